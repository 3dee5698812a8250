"""What is lost and won when tasks come one after another. Pure functions of numbers.

``R`` (S + 1, n) holds the mean return on each of n tasks before the first of S stages (row 0) and after each. In the
first cycle, stage j trains task j, so that row j + 1, column j is what was learned of a task when it was left. ``p`` is
R on a scale that makes tasks comparable. A `Curve` has the same numbers at more times. Where a number is not defined,
as forgetting with a single task, it is NaN.

CORA: Powers et al. (arXiv 2110.10067). Continual World: Wołczyk et al. (arXiv 2105.10919). Chaudhry et al. (arXiv
1801.10112). Lopez-Paz & Ranzato (arXiv 1706.08840).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

CORA_SCALE = 10.0
"""CORA's tables show ten times the numbers of its definitions."""
CORA_SMOOTHING = 20
"""Evaluations that CORA's moving mean is over."""


@dataclass(frozen=True)
class Curve:
    """Scores in the course of a sequence, at m times.

    Attributes:
        steps: environment steps of training (m,), rising.
        values: score of each task (m, n).
    """

    steps: Matrix
    values: Matrix

    def between(self, begin: float, end: float) -> Curve:
        """The part from step `begin` to step `end`, both of which belong to it."""
        inside = (self.steps >= begin) & (self.steps <= end)
        return Curve(self.steps[inside], self.values[inside])

    def smoothed(self, window: int) -> Curve:
        """Each score as the mean of the last `window` ones, or of as many as there are."""
        sums = np.cumsum(np.vstack([np.zeros(self.values.shape[1]), self.values]), axis=0)
        ends = np.arange(1, len(self.steps) + 1)
        begins = np.maximum(0, ends - window)
        return Curve(self.steps, (sums[ends] - sums[begins]) / (ends - begins)[:, None])

    def at(self, steps: Sequence[float]) -> Matrix:
        """The scores at some of its steps (len(steps), n). Raises `ValueError` for a step that it does not have."""
        places = [int(np.flatnonzero(self.steps == step)[0]) for step in steps if step in self.steps]
        if len(places) < len(steps):
            raise ValueError("the curve has no scores at some of these steps")
        return self.values[places]


def mean_or_nan(values: Matrix) -> float:
    """The mean of what is not NaN; NaN where that is nothing."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def area(steps: Matrix, values: Matrix) -> float:
    """The mean height of a curve over its steps, which is its area on a scale of steps from 0 to 1 (trapezoids)."""
    if len(steps) < 2 or steps[-1] <= steps[0]:
        return float("nan")
    heights = (values[1:] + values[:-1]) / 2
    return float((heights * np.diff(steps)).sum() / (steps[-1] - steps[0]))


# Of the matrix


def learned(p: Matrix) -> Matrix:
    """The score on each task when its first stage ended (n,)."""
    count = p.shape[1]
    found: Matrix = p[np.arange(1, count + 1), np.arange(count)]
    return found


def final_performance(p: Matrix) -> float:
    """Mean over tasks of the score at the end (Continual World's performance)."""
    return float(p[-1].mean())


def forgetting(p: Matrix) -> float:
    """Mean over all tasks but the last of what was learned and is gone at the end.

    Continual World divides by n instead of n - 1: the last task cannot have been forgotten.
    """
    return mean_or_nan((learned(p) - p[-1])[:-1])


def forgetting_from_best(p: Matrix) -> float:
    """As `forgetting`, from the best score after any earlier stage instead (Chaudhry)."""
    if p.shape[1] < 2:
        return float("nan")
    return mean_or_nan((p[1:-1].max(0) - p[-1])[:-1])


def backward_transfer(p: Matrix) -> float:
    """Mean over all tasks but the last of what later stages have added (Lopez-Paz): the opposite of forgetting."""
    return -forgetting(p)


def intransigence(p: Matrix, expert: Matrix) -> float:
    """Mean over tasks of what an expert of that task alone knows more, when the task was left (Chaudhry)."""
    return mean_or_nan(expert - learned(p))


def isolated_forgetting(R: Matrix, scale: Matrix) -> Matrix:
    """How much of task i each later stage j of the first cycle has cost (n, n), NaN for j <= i (CORA's F).

    Args:
        R: returns.
        scale: a return for each task (n,) that differences are divided by.
    """
    count = R.shape[1]
    drops = ((R[:count] - R[1 : count + 1]) / scale).T
    rows, columns = np.indices((count, count))
    return np.where(columns > rows, drops, np.nan)


def zero_shot_transfer(R: Matrix, scale: Matrix) -> Matrix:
    """How much each stage j of the first cycle has added to a task i that came later (n, n), NaN for j >= i (CORA's Z).

    Arguments are those of `isolated_forgetting`.
    """
    count = R.shape[1]
    gains = ((R[1 : count + 1] - R[:count]) / scale).T
    rows, columns = np.indices((count, count))
    return np.where(columns < rows, gains, np.nan)


def cora_summary(pairs: Matrix) -> float:
    """The mean over pairs of tasks, as CORA's tables show it."""
    return CORA_SCALE * mean_or_nan(pairs)


def cora_scale(matrices: Sequence[Matrix]) -> Matrix:
    """The largest absolute return on each task in all of `matrices` (m, n), (n,): what CORA divides by.

    CORA takes it over the runs of one method, so that a method that learns nothing divides by little.
    """
    largest: Matrix = np.max([np.abs(matrix).max(0) for matrix in matrices], axis=0)
    return np.where(largest > 0, largest, np.nan)


# Of the curve


def lifetime_performance(curve: Curve) -> float:
    """Mean over tasks and over the whole training of the score: the area under the curve."""
    return area(curve.steps, curve.values.mean(1))


def forward_transfer(areas: Matrix, expert_areas: Matrix) -> float:
    """Mean over tasks of how much faster each is learned than by an expert of it alone (Continual World).

    Args:
        areas: under the curve of each task in its own first stage (n,), on a scale whose best is 1.
        expert_areas: the same for the experts.
    """
    room = np.where(expert_areas < 1.0, 1.0 - expert_areas, np.nan)
    return mean_or_nan((areas - expert_areas) / room)


def steps_to_reach(curve: Curve, task: int, level: float) -> float:
    """Steps from the beginning of `curve` until the score of `task` is `level` or more; NaN if it never is."""
    reached = np.flatnonzero(curve.values[:, task] >= level)
    return float(curve.steps[reached[0]] - curve.steps[0]) if len(reached) else float("nan")


def relearning(first: Curve, second: Curve, task: int) -> float:
    """Steps to what was learned of `task`, in its second stage over those in its first: below 1, something was left.

    Args:
        first: its stage in the first cycle.
        second: that in the second.
        task: its number.
    """
    level = float(first.values[-1, task])
    before, again = steps_to_reach(first, task, level), steps_to_reach(second, task, level)
    return again / before if before > 0 else float("nan")


def dip(after: Curve, old: Sequence[int]) -> float:
    """Mean over the tasks `old` of how far their scores fall soon after a switch.

    Args:
        after: from the moment of the switch on, as far as it counts.
        old: tasks that were trained before.
    """
    if len(after.steps) < 2 or not old:
        return float("nan")
    values = after.values[:, list(old)]
    return float((values[0] - values[1:].min(0)).mean())


def plasticity(first: Curve, later: Curve, task: int) -> float:
    """The area under the curve of `task` in a later stage of it over that in its first."""
    areas = [area(curve.steps, curve.values[:, task]) for curve in (first, later)]
    return areas[1] / areas[0] if areas[0] > 0 else float("nan")


# Without gradient


def recovered(returns: Matrix, at_boundary: float) -> Matrix:
    """How much of what was lost is back after each of k episodes of the game, 0 for nothing and 1 for all (k,).

    Args:
        returns: mean return of the first, second, ... episode (k,).
        at_boundary: what was scored when the task was left.
    """
    lost = at_boundary - returns[0]
    return (returns - returns[0]) / lost if lost > 0 else np.full(len(returns), np.nan)
