"""Import the old `gym` once, without its banner.

Both `procgen` and Stable-Baselines3 import `gym` where it is installed, and `gym` prints to stderr that it is
no longer maintained. Nothing here uses it. Whoever imports it first decides whether users see that banner, so
this module must be imported before either of them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings


def import_gym_quietly() -> None:
    """Load `gym` if it is installed, discarding what it says while loading."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        contextlib.suppress(ImportError),
    ):
        warnings.simplefilter("ignore")
        importlib.import_module("gym")


import_gym_quietly()
