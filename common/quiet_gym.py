"""The old `gym`, without its banner.

`procgen` and Stable-Baselines3 import `gym`, which prints to stderr that it is no longer maintained, although nothing
here uses it. The text comes from a table of the package `gym_notices`, and can be taken out before `gym` is loaded.
"""

from __future__ import annotations

import contextlib
from importlib import import_module


def silence_gym() -> None:
    """Let `gym` say nothing when it is imported; called by each package of ours that leads to such an import."""
    with contextlib.suppress(ImportError, AttributeError):
        import_module("gym_notices.notices").notices.clear()
