"""Methods on the same tasks, one after another: their runs, the scales of scores, what they are held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agents.retention import retention_names
from agents.retention.combined import SEPARATOR
from agents.retention.lwf import LearningWithoutForgetting
from common.errors import UserError, raise_problems
from envs import Task, normalized_score
from evaluation import continual
from evaluation.continual import CORA_SMOOTHING, Matrix
from evaluation.report.gather import grouped
from evaluation.report.plots import published_curves
from evaluation.report.random_player import random_return
from evaluation.report.runs import Run, differing_settings
from evaluation.report.sequence_runs import Sequenced
from evaluation.report.statistics import Interval, mean, with_interval
from policies.tasks import PER_TASK
from records.config import TrainConfig
from records.continual import FILE, ContinualLog

NORMALIZERS = ("procgen", "expert", "ppo")
"""Constants that returns are put on a common scale with: ProcGen's own, those of experts, those of published PPO."""
PUBLISHED_STEPS = 25_000_000


@dataclass(frozen=True)
class Method:
    """Runs that differ in their seed alone.

    Attributes:
        label: its name in tables and plots.
        name: that in its suite, "" without one.
    """

    label: str
    name: str
    runs: tuple[Sequenced, ...]

    @property
    def first(self) -> Sequenced:
        """One of them; the others differ in their seed."""
        return self.runs[0]


@dataclass(frozen=True)
class ContinualStudy:
    """Methods on the same tasks.

    Attributes:
        tasks: in their order.
        splits: that all were scored on.
        methods: sequences and joint training.
        experts: by text form of a task, runs on that task alone.
        normalizer: which constants scores are put on a common scale with.
        smoothing: evaluations that scores are the moving mean of; None for those of boundaries as they are.
        baseline: label or name of what methods are compared with; None for the same run without a method.
        unfinished: runs that lack scores.
    """

    tasks: tuple[Task, ...]
    splits: tuple[str, ...]
    methods: tuple[Method, ...]
    experts: Mapping[str, tuple[Sequenced, ...]]
    normalizer: str = "procgen"
    smoothing: int | None = None
    baseline: str | None = None
    unfinished: tuple[Run, ...] = ()

    # Scales

    def raw(self, one: Sequenced, split: str) -> Matrix:
        """Returns before the first stage and after each (S + 1, n)."""
        if self.smoothing is None:
            return one.matrix(split)
        borders = [one.border(number) for number in range(len(one.stages) + 1)]
        return one.curve(split).smoothed(self.smoothing).at(borders)

    def normalized(self, returns: Matrix, split: str) -> Matrix:
        """Returns (..., n) on the common scale."""
        low, high = np.array([self._bounds(task, split) for task in self.tasks]).T
        scaled: Matrix = (returns - low) / np.where(high > low, high - low, np.nan)
        return scaled

    def _bounds(self, task: Task, split: str) -> tuple[float, float]:
        """What scores 0 and what scores 1."""
        if self.normalizer == "procgen":
            zero, one = (float(normalized_score(task.game, task.mode, value)) for value in (0.0, 1.0))
            return -zero / (one - zero), (1 - zero) / (one - zero)
        if self.normalizer == "ppo":
            return random_return(task, split), published_return(task, split)
        return random_return(task, split), self.expert_return(task, split)

    def expert_return(self, task: Task, split: str) -> float:
        """Mean return of the experts of a task; NaN without any."""
        found = [one.matrix(split)[-1, 0] for one in self.experts.get(str(task), ())]
        return float(np.mean(found)) if found else math.nan

    @cached_property
    def scales(self) -> dict[str, Matrix]:
        """What CORA's differences are divided by: the largest returns of all methods, by split."""
        return {
            split: continual.cora_scale(
                [self.raw(one, split) for method in self.methods for one in method.runs]
            )
            for split in self.splits
        }

    # Metrics

    def values(self, method: Method, split: str, metric: Metric) -> Matrix:
        """A metric of each run (runs,)."""
        return np.array([metric(self, method, one, split) for one in method.runs])

    def interval(self, method: Method, split: str, metric: Metric) -> Interval[float]:
        """A metric over the runs in which it is defined, with its interval."""
        return over_runs(self.values(method, split, metric))

    def reference(self, method: Method) -> Method | None:
        """What `method` is compared with; None for itself, or without any."""
        if self.baseline is not None:
            found = [other for other in self.methods if self.baseline in (other.label, other.name)]
        else:
            found = [other for other in self.methods if _same_but_for_method(method, other)]
        return None if not found or found[0] is method else found[0]

    def improvement(self, method: Method, split: str, metric: Metric) -> Interval[float] | None:
        """`metric` minus that of what `method` is compared with, paired by seed; None without such a pair."""
        reference = self.reference(method)
        if reference is None:
            return None
        ours, theirs = (
            dict(zip([run.seed for run in one.runs], self.values(one, split, metric), strict=True))
            for one in (method, reference)
        )
        seeds = sorted(ours.keys() & theirs.keys())
        return over_runs(np.array([ours[seed] - theirs[seed] for seed in seeds])) if seeds else None


Metric = Callable[[ContinualStudy, Method, Sequenced, str], float]
"""A number of one run of a method on one split."""


def over_runs(values: Matrix) -> Interval[float]:
    """The mean of what is not NaN, with its interval over runs."""
    known = values[np.isfinite(values)]
    return with_interval(mean, known[:, None]) if len(known) else Interval(math.nan)


def _same_but_for_method(one: Method, other: Method) -> bool:
    def settings(method: Method) -> dict[str, str]:
        ignored = ("label", "retention", "retain.", "sequence.joint", "tasks.count")
        return {name: value for name, value in method.first.run.kind if not name.startswith(ignored)}

    config = other.first.run.config
    return (config.retention, config.sequence.joint) == ("none", False) and settings(one) == settings(other)


# Gathering


def published_return(task: Task, split: str) -> float:
    """Return of the published PPO on a game after 25 M steps; NaN where nothing was published."""
    if (task.mode, task.levels) != ("easy", "train"):
        return math.nan
    published = published_curves()
    curve = published["easy-200"].get(task.game, {}).get("train" if split == "train" else "test")
    return float(curve["mean"][published["steps"].index(PUBLISHED_STEPS)]) if curve else math.nan


def gather(
    runs: Sequence[Run],
    *,
    normalizer: str = "procgen",
    cora: bool = False,
    baseline: str | None = None,
) -> ContinualStudy:
    """Compare `runs`, which have sequences; those of a single task are experts.

    Args:
        runs: finished ones are compared, the others are listed.
        normalizer: one of `NORMALIZERS`.
        cora: whether scores at boundaries are CORA's moving means.
        baseline: label or name of what methods are compared with; None for the same run without a method.

    Raises:
        UserError: they cannot be compared, or none has finished.
    """
    read = [Sequenced(run, tuple(ContinualLog(run.directory.path / FILE).read())) for run in runs]
    finished = [one for one in read if one.complete]
    unfinished = tuple(one.run for one in read if not one.complete)
    main = [one for one in finished if len(one.tasks) > 1]
    if not main:
        names = ", ".join(run.name for run in unfinished)
        raise UserError(f"no sequence of several tasks has finished{f': {names}' if names else ''}")
    raise_problems(_problems(main))
    first = main[0]
    methods = _methods(main)
    if baseline is not None and all(baseline not in (method.label, method.name) for method in methods):
        raise UserError(
            f"no group is called {baseline!r}: there are {', '.join(method.label for method in methods)}"
        )
    experts = grouped(
        (one for one in finished if len(one.tasks) == 1 and one.tasks[0] in first.tasks),
        lambda one: str(one.tasks[0]),
    )
    if normalizer == "expert" and (lacking := [task for task in first.tasks if str(task) not in experts]):
        raise UserError(
            f"no finished expert of {', '.join(map(str, lacking))}: normalise with procgen, or name its run"
        )
    return ContinualStudy(
        first.tasks,
        first.splits,
        methods,
        {task: tuple(found) for task, found in experts.items()},
        normalizer,
        CORA_SMOOTHING if cora else None,
        baseline,
        unfinished,
    )


def _problems(runs: Sequence[Sequenced]) -> list[str]:
    """Why they cannot stand in one report, a line each."""
    found = []
    for what, kinds in (
        ("tasks", grouped(runs, lambda one: ", ".join(map(str, one.tasks)))),
        ("stages", grouped(runs, lambda one: ", ".join(f"{stage.end:,}" for stage in one.stages))),
        ("splits of their evaluations", grouped(runs, lambda one: ", ".join(one.splits))),
    ):
        if len(kinds) > 1:
            listed = "; ".join(f"{members[0].run.name} has {value}" for value, members in kinds.items())
            found.append(
                f"sequences of different {what} cannot be compared: {listed}: make one report for each"
            )
    return found


def _methods(runs: Sequence[Sequenced]) -> tuple[Method, ...]:
    kinds = list(grouped(runs, lambda one: one.run.kind).values())
    base = [_label(members[0]) for members in kinds]
    found = []
    for place, (label, members) in enumerate(zip(base, kinds, strict=True)):
        twins = [twin for twin, text in enumerate(base) if text == label]
        if len(twins) > 1:
            differing = differing_settings([kinds[twin][0].run for twin in twins])
            own = twins.index(place)
            label += f" ({', '.join(f'{name} {values[own]}' for name, values in differing.items())})"
        by_seed = {one.seed: one for one in reversed(members)}
        found.append(Method(label, members[0].run.group, tuple(by_seed[seed] for seed in sorted(by_seed))))
    return tuple(found)


def _label(one: Sequenced) -> str:
    """What its suite calls it, or its policy and method."""
    return one.run.label or f"{one.run.config.policy_name}, {_method_name(one.run.config)}"


def _method_name(config: TrainConfig) -> str:
    """Distillation without heads of old tasks holds the new policy to the old one: it is called what it is."""
    if config.sequence.joint:
        return "joint"
    if config.policy.tasks.heads == PER_TASK:
        return config.retention
    names = retention_names(config.retention)
    return SEPARATOR.join("kickstart" if name == LearningWithoutForgetting.name else name for name in names)
