"""What the directory of a suite says about the runs in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD = "suite.json"
"""File in the directory of a suite that says what its runs are, for the report."""


def read_record(directory: Path) -> dict[str, Any] | None:
    """What `Plan.write_record` wrote into `directory`; None where there is nothing that can be read."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def group_of(name: str) -> str:
    """The group of the run called `name`.

    >>> group_of("reset-50-seed1")
    'reset-50'
    """
    return name.rpartition("-seed")[0]
