"""What a run has made, and how it differs from what another run has made."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from agents import read_checkpoint
from benchmarks.compare import differences
from benchmarks.faults.process import TOTAL_STEPS
from records.directory import RunDirectory


def exact_column(tag: str) -> bool:
    """Whether a logged number is the same in every repetition; times and memory are not."""
    return not tag.startswith(("time/", "memory/")) or tag == "time/total_timesteps"


@dataclass(frozen=True)
class Artifacts:
    """What a finished run has made, as far as it must be the same after any interruption.

    Attributes:
        checkpoint: the last one.
        rows: of progress.csv.
        curves: of TensorBoard, by tag: steps and values.
        scores: of the final evaluation.
    """

    checkpoint: Any
    rows: list[dict[str, str]]
    curves: dict[str, list[tuple[int, float]]]
    scores: Any

    @classmethod
    def of(cls, run: RunDirectory) -> Artifacts:
        """Read them."""
        with run.progress_file.open(newline="", encoding="utf-8") as file:
            rows = [{k: v for k, v in row.items() if exact_column(k)} for row in csv.DictReader(file)]
        scores = None
        if run.evaluation_file.exists():
            scores = {**json.loads(run.evaluation_file.read_text(encoding="utf-8")), "checkpoint": None}
        content = read_checkpoint(run.checkpoint_at(TOTAL_STEPS))
        return cls(content, rows, _curves(run.tensorboard), scores)

    def differences(self, other: Artifacts) -> list[str]:
        """Names of what is not the same, bit for bit."""
        found = differences(self.checkpoint, other.checkpoint, "checkpoint")
        found += ["progress.csv"] if self.rows != other.rows else []
        found += ["TensorBoard"] if self.curves != other.curves else []
        return found + (["evaluation.json"] if self.scores != other.scores else [])


def _curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    module = import_module("tensorboard.backend.event_processing.event_accumulator")

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = module.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if exact_column(tag)
    }
