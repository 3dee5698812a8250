"""How train.py starts itself anew, for several processes or for the runs of a suite."""

from __future__ import annotations

from pathlib import Path


def started_as(program: str) -> list[str]:
    """What Python is given to start train.py: the file `program`, or the module where an installed package has none."""
    return [program] if Path(program).exists() else ["-m", "experiments.program"]
