"""What every package may import: errors, settings, command lines, files."""

from __future__ import annotations

import contextlib
from importlib import import_module


def silence_gym() -> None:
    """Let the old `gym` say nothing when it is imported; called by each package that leads to such an import.

    `procgen` and Stable-Baselines3 import it, and it prints to stderr that it is no longer maintained, although nothing
    here uses it. The text comes from a table of the package `gym_notices`, and can be taken out before `gym` is loaded.
    """
    with contextlib.suppress(ImportError, AttributeError):
        import_module("gym_notices.notices").notices.clear()
