"""Metrics of one run of tasks one after another, on one split: what `ContinualStudy.values` is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from evaluation import continual
from evaluation.continual import Curve
from evaluation.report.continual_study import ContinualStudy, Method
from evaluation.report.sequence_runs import Sequenced
from policies.tasks import PER_TASK
from records.sequence import DIP_PERCENT, Stage


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
