"""What a run was made with."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from policies.ops import VARIABLE

DISTRIBUTIONS = ("torch", "gymnasium", "stable-baselines3", "numpy")
PROCGEN = ("procgen", "procgen-mirror")


def versions() -> dict[str, Any]:
    """Python, the platform, the libraries and the variable that can move a result, and the commit of this code."""
    procgen = {name: found for name in PROCGEN if (found := _version(name)) is not None}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in DISTRIBUTIONS},
        # The same library under two names: which one is part of the record.
        "procgen": [{"distribution": name, "version": found} for name, found in procgen.items()],
        VARIABLE: os.environ.get(VARIABLE),  # it decides before the configuration does
        "git": git_state(Path(__file__).resolve().parent.parent),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def git_state(directory: Path) -> dict[str, Any] | None:
    """The commit checked out in `directory` and whether tracked files differ from it.

    None if `directory` is not the top of a git checkout, or there is no git.
    """
    top = _git(directory, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != directory.resolve():
        return None
    commit = _git(directory, "rev-parse", "HEAD")
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes)} if commit is not None else None


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
