"""Runs of tasks one after another: what they measured, by method, and the metrics of each run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agents import CheckpointError, read_checkpoint
from common.errors import UserError, raise_problems
from envs import Task, normalized_score
from evaluation import continual
from evaluation.continual import CORA_SMOOTHING, Curve, Matrix
from evaluation.report.gather import grouped
from evaluation.report.plots import published_curves
from evaluation.report.random_player import random_return
from evaluation.report.runs import Run, differing_settings
from evaluation.report.statistics import Interval, mean, with_interval
from policies.tasks import PER_TASK
from records.continual import BETWEEN, BOUNDARY, FILE, RECOVERY, ContinualLog, Measurement
from records.sequence import DIP_PERCENT, Stage
from records.writers import STEP, read_progress

NORMALIZERS = ("procgen", "expert", "ppo")
"""Constants that returns are put on a common scale with: ProcGen's own, those of experts, those of published PPO."""
PUBLISHED_STEPS = 25_000_000


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


# Metrics of one run


def final_performance(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Continual World's performance."""
    return continual.final_performance(study.normalized(study.raw(one, split), split))


def lifetime(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Area under the curve of the mean over tasks."""
    curve = one.curve(split)
    return continual.lifetime_performance(Curve(curve.steps, study.normalized(curve.values, split)))


def forgetting(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Continual World's forgetting, over all tasks but the last."""
    if one.joint:
        return math.nan
    return continual.forgetting(study.normalized(study.raw(one, split), split))


def forgetting_from_best(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Chaudhry's forgetting."""
    if one.joint:
        return math.nan
    return continual.forgetting_from_best(study.normalized(study.raw(one, split), split))


def backward_transfer(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Lopez-Paz's backward transfer."""
    return -forgetting(study, method, one, split)


def intransigence(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Chaudhry's intransigence; NaN without experts."""
    expert = np.array([study.expert_return(task, split) for task in study.tasks])
    p = study.normalized(np.vstack([study.raw(one, split), expert]), split)
    return math.nan if one.joint else continual.intransigence(p[:-1], p[-1])


def forward_transfer(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Continual World's forward transfer; NaN without experts."""
    if one.joint:
        return math.nan
    ours = [_own_area(study, one, split, number, number) for number in range(len(study.tasks))]
    theirs = [
        np.mean([_own_area(study, expert, split, 0, number) for expert in study.experts.get(str(task), ())])
        if study.experts.get(str(task))
        else math.nan
        for number, task in enumerate(study.tasks)
    ]
    return continual.forward_transfer(np.array(ours), np.array(theirs))


def _own_area(study: ContinualStudy, one: Sequenced, split: str, column: int, number: int) -> float:
    """Area under the curve of task `number` of the study in its own first stage; `column` is its place in the run."""
    stage = next(stage for stage in one.stages if stage.task_index == column)
    curve = one.during(one.curve(split), stage)
    values = np.full((len(curve.steps), len(study.tasks)), np.nan)
    values[:, number] = curve.values[:, column]
    return continual.area(curve.steps, study.normalized(values, split)[:, number])


def isolated_forgetting(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """CORA's summary of F, divided by the largest returns of all methods."""
    if one.joint:
        return math.nan
    pairs = continual.isolated_forgetting(study.raw(one, split), study.scales[split])
    return continual.cora_summary(pairs)


def cora_forgetting(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """CORA's summary of F as CORA computes it, divided by the largest returns of the same method."""
    if one.joint:
        return math.nan
    scale = continual.cora_scale([study.raw(run, split) for run in method.runs])
    return continual.cora_summary(continual.isolated_forgetting(study.raw(one, split), scale))


def zero_shot_transfer(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """CORA's summary of Z; NaN for heads that were never trained."""
    if one.joint or one.run.config.policy.tasks.heads == PER_TASK:
        return math.nan
    pairs = continual.zero_shot_transfer(study.raw(one, split), study.scales[split])
    return continual.cora_summary(pairs)


def dip(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Mean over switches of the fall of old tasks' scores soon after it."""
    if one.joint:
        return math.nan
    curve, plan = one.curve(split), one.run.config.plan
    curve = Curve(curve.steps, study.normalized(curve.values, split))
    found = []
    for stage in one.stages[1:]:
        begin = one.border(stage.number - 1)
        end = plan.at_rollout_end(begin + stage.part(DIP_PERCENT))
        earlier = {other.task_index for other in one.stages[: stage.number - 1]}
        found.append(continual.dip(curve.between(begin, end), sorted(earlier - {stage.task_index})))
    return continual.mean_or_nan(np.array(found))


def _over_cycles(one: Sequenced, measure: Callable[[Stage, Stage, int], float]) -> float:
    """Mean over tasks of what compares the stage of a task in the first cycle with that in the second."""
    if one.joint or one.run.config.sequence.cycles < 2:
        return math.nan
    count = len(one.tasks)
    pairs = zip(one.stages[:count], one.stages[count : 2 * count], strict=True)
    return continual.mean_or_nan(np.array([measure(*pair, pair[0].task_index) for pair in pairs]))


def relearning(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Steps to what was learned of a task, in the second cycle over those in the first; NaN with one cycle."""
    curve = one.curve(split)
    return _over_cycles(
        one,
        lambda first, second, task: continual.relearning(
            one.during(curve, first), one.during(curve, second), task
        ),
    )


def plasticity(study: ContinualStudy, method: Method, one: Sequenced, split: str) -> float:
    """Area under the curve of a task in its stage of the second cycle over that in the first; NaN with one cycle."""
    curve = one.curve(split)
    curve = Curve(curve.steps, study.normalized(curve.values, split))
    return _over_cycles(
        one,
        lambda first, second, task: continual.plasticity(
            one.during(curve, first), one.during(curve, second), task
        ),
    )


# Cost


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
    config = one.run.config
    method = "joint" if config.sequence.joint else config.retention
    return one.run.label or f"{config.policy_name}, {method}"
