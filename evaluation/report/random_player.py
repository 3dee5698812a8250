"""What uniformly drawn actions score, as measured by `benchmarks.random_player`."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources

from envs import Task
from records.sequence import TRAINED_LEVELS


@cache
def _table() -> dict[tuple[str, str, str], float]:
    file = resources.files("evaluation.report") / "reference" / "random_player.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return {(row["game"], row["mode"], row["split"]): float(row["mean"]) for row in rows}


def random_return(task: Task, split: str) -> float:
    """Mean return of a random player on a split of a task; NaN where it was not measured."""
    levels = task.levels if split == TRAINED_LEVELS else split
    return _table().get((task.game, task.mode, levels), math.nan)
