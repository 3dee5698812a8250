"""Runs of tasks one after another: what each has measured, and what it has cost."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agents import CheckpointError, read_checkpoint
from common.errors import UserError
from envs import Task
from evaluation.continual import Curve, Matrix
from evaluation.report.runs import Run
from records.continual import BETWEEN, BOUNDARY, RECOVERY, Measurement
from records.sequence import Stage
from records.writers import STEP, read_progress


@dataclass(frozen=True)
class Sequenced:
    """A run, and what it measured."""

    run: Run
    measured: tuple[Measurement, ...]

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.run.config.seed

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """What it played, in order."""
        return self.run.config.tasks

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Its stages."""
        return self.run.config.plan.stages

    @property
    def joint(self) -> bool:
        """Whether it played all tasks at once."""
        return self.run.config.sequence.joint

    @property
    def complete(self) -> bool:
        """Whether every task was scored at every boundary."""
        return all(np.isfinite(self.matrix(split)).all() for split in self.splits)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it was scored on."""
        return self.run.config.sequence.evaluation_splits

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {str(task): number for number, task in enumerate(self.tasks)}

    def matrix(self, split: str) -> Matrix:
        """Mean returns before the first stage and after each (S + 1, n); NaN where something is missing."""
        found = np.full((len(self.stages) + 1, len(self.tasks)), np.nan)
        for one in self.measured:
            if one.kind == BOUNDARY and one.split == split and one.task in self._columns:
                found[one.stage, self._columns[one.task]] = one.mean
        return found

    def curve(self, split: str) -> Curve:
        """Mean returns at all times of which every task has one."""
        rows: dict[int, Matrix] = {}
        for one in self.measured:
            if one.kind in (BOUNDARY, BETWEEN) and one.split == split and one.task in self._columns:
                row = rows.setdefault(one.step, np.full(len(self.tasks), np.nan))
                row[self._columns[one.task]] = one.mean
        steps = sorted(step for step, row in rows.items() if np.isfinite(row).all())
        values = np.array([rows[step] for step in steps]).reshape(len(steps), len(self.tasks))
        return Curve(np.array(steps, dtype=np.float64), values)

    def border(self, number: int) -> int:
        """The environment step at which so many stages had ended."""
        if number == 0:
            return 0
        return self.run.config.plan.at_rollout_end(self.stages[number - 1].end)

    def during(self, curve: Curve, stage: Stage) -> Curve:
        """The part of `curve` in a stage, both ends included."""
        return curve.between(self.border(stage.number - 1), self.border(stage.number))

    @property
    def recovery(self) -> list[Measurement]:
        """What came back without gradient."""
        return [one for one in self.measured if one.kind == RECOVERY]


@dataclass(frozen=True)
class Cost:
    """What a run has cost; NaN where that is not known.

    Attributes:
        speed: environment steps per second, evaluations included.
        memory: peak, in GB.
        disk: what its directory takes, in GB.
        evaluation_steps: environment steps of its evaluations.
        consolidation_steps: environment steps that its method played at changes of the task.
    """

    speed: float
    memory: float
    disk: float
    evaluation_steps: float
    consolidation_steps: float


def cost_of(one: Sequenced) -> Cost:
    """What a run has cost."""
    directory, rows = one.run.directory, list[dict[str, str]]()
    with contextlib.suppress(OSError):
        rows = [row for row in read_progress(directory.progress_file) if row.get(STEP)]

    def column(name: str) -> Matrix:
        values = np.array([float(row.get(name) or "nan") for row in rows])
        known: Matrix = values[np.isfinite(values) & (values > 0)]
        return known

    speeds, memory = column("time/sps"), column("memory/peak_gb")
    consolidation = math.nan
    with contextlib.suppress(CheckpointError, UserError, KeyError):
        state = read_checkpoint(directory.newest_checkpoint())["run"]
        consolidation = float(state.get("consolidation_steps", 0))
    return Cost(
        1 / float((1 / speeds).mean()) if len(speeds) else math.nan,
        float(memory.max()) if len(memory) else math.nan,
        sum(path.stat().st_size for path in directory.path.rglob("*") if path.is_file()) / 1e9,
        float(sum(one.steps for one in one.measured)),
        consolidation,
    )
