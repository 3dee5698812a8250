"""What a sequence measures in its course: ``continual.jsonl``, a line for each task, split and time.

Lines hold nothing that depends on the clock, so a run that was killed and continued writes the same file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from common.config import plain
from common.files import atomic_write

FILE = "continual.jsonl"
BOUNDARY, BETWEEN, RECOVERY, PLASTICITY = "boundary", "between", "recovery", "plasticity"


Place = tuple[str, str, str, int]
"""Task, split, condition and episode of a measurement."""


@dataclass(frozen=True)
class Measurement:
    """Returns on one task and split at one time.

    Attributes:
        step: environment steps of training so far.
        stage: at a boundary, how many stages have ended; in between, the number of the one under way, from 1.
        kind: at a boundary between stages, in between, of recovery without gradient, or of plasticity: then what
            stands for returns is a number about the network.
        task: its text form.
        split: the levels, as the settings name them.
        returns: raw returns of the episodes.
        steps: environment steps that the evaluation took.
        condition: of recovery, what the core remembered at first and whether it could write; of plasticity, which
            number it is.
        episode: of recovery, which of the episodes in a row these are, from 1; else 0.
    """

    step: int
    stage: int
    kind: str
    task: str
    split: str
    returns: tuple[float, ...] = field(repr=False)
    steps: int = 0
    condition: str = ""
    episode: int = 0

    @property
    def mean(self) -> float:
        """Mean return."""
        return fmean(self.returns)

    @property
    def place(self) -> Place:
        """What tells it from others of the same kind and step."""
        return self.task, self.split, self.condition, self.episode

    @classmethod
    def from_json(cls, data: Any) -> Measurement:
        """What a line holds. Raises `ValueError`, `TypeError` or `KeyError` if it is something else."""
        returns = tuple(float(value) for value in data["returns"])
        if not returns:
            raise ValueError("no returns")
        step, stage, steps, episode = (int(data[name]) for name in ("step", "stage", "steps", "episode"))
        kind, task, split, condition = (str(data[name]) for name in ("kind", "task", "split", "condition"))
        return cls(step, stage, kind, task, split, returns, steps, condition, episode)


class ContinualLog:
    """The measurements of a run, in the order in which they were made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Measurement]:
        """All whole lines up to the first damaged one; none without a file.

        Raises:
            OSError: it cannot be read.
        """
        if not self.path.exists():
            return []
        found: list[Measurement] = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                if not line.endswith("\n"):
                    break  # a crash may have cut off digits
                found.append(Measurement.from_json(json.loads(line)))
            except (ValueError, TypeError, KeyError):
                break
        return found

    def append(self, measurements: Sequence[Measurement]) -> None:
        """Add lines, all at once, and flush them to the disk.

        Raises:
            OSError: they cannot be written; the file is as it was.
        """
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(_lines(measurements))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.path, before)
            raise

    def keep(self, wanted: Callable[[Measurement], bool]) -> list[Measurement]:
        """Leave only the lines that are `wanted`, and return them; a damaged end goes, too.

        Raises:
            OSError: they cannot be written; the file is as it was.
        """
        kept = [measurement for measurement in self.read() if wanted(measurement)]
        if self.path.exists() and self.path.read_bytes() != _lines(kept):
            with atomic_write(self.path, "wb") as file:
                file.write(_lines(kept))
        return kept


def _lines(measurements: Iterable[Measurement]) -> bytes:
    return b"".join(json.dumps(plain(one), allow_nan=False).encode() + b"\n" for one in measurements)
