"""Statistics of episode returns: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from envs import score_range


@dataclass(frozen=True)
class Estimate:
    """A mean and the standard error of it (NaN where it cannot be known, as from a single episode)."""

    mean: float
    standard_error: float


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of `values` and its standard error: the sample deviation (n - 1) divided by the root of n.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to estimate a mean from")
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(fmean(values), error)


def normalized(game: str, mode: str, raw: Estimate) -> Estimate:
    """A mean return as (R - min) / (max - min), with the constants of the ProcGen paper."""
    bounds = score_range(game, mode)
    span = bounds.high - bounds.low
    return Estimate((raw.mean - bounds.low) / span, raw.standard_error / span)


def aggregate(scores: Sequence[Estimate]) -> Estimate:
    """The mean over games of independent `scores`: each game counts the same, however many episodes it has.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("no scores to aggregate")
    error = math.sqrt(sum(score.standard_error**2 for score in scores)) / len(scores)
    return Estimate(fmean(score.mean for score in scores), error)
