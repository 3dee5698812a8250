"""How sure a comparison is: aggregates over runs and games with bootstrap intervals. Pure functions of numbers.

Scores are matrices (runs, games) of normalised scores. The aggregates are those of Agarwal et al., "Deep Reinforcement
Learning at the Edge of the Statistical Precipice" (NeurIPS 2021), computed by their library ``rliable``; intervals are
95 % percentile intervals of a bootstrap that draws runs anew for each game (stratified). They need at least two runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rliable import library, metrics

Scores = NDArray[np.float64]

REPETITIONS = 5_000
_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; both bounds are None where a single run says nothing about others."""

    value: float
    low: float | None = None
    high: float | None = None


def mean(scores: Scores) -> float:
    """Mean over runs and games."""
    return float(metrics.aggregate_mean(scores))


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all scores, runs and games together."""
    return float(metrics.aggregate_iqm(scores))


def with_interval(
    aggregate: Callable[[Scores], float], scores: Scores, repetitions: int = REPETITIONS
) -> Interval:
    """`aggregate` of `scores` (runs, games) with its stratified bootstrap interval."""
    value = aggregate(scores)
    if len(scores) < 2:
        return Interval(value)
    with _seeded():
        _, bounds = library.get_interval_estimates(
            {"": scores}, lambda drawn: np.array([aggregate(drawn)]), reps=repetitions
        )
    return Interval(value, float(bounds[""][0, 0]), float(bounds[""][1, 0]))


def difference_with_interval(ours: Scores, theirs: Scores, repetitions: int = REPETITIONS) -> Interval:
    """Mean of `ours` minus mean of `theirs`, each drawn anew on its own."""
    return _pair_with_interval(lambda x, y: mean(x) - mean(y), ours, theirs, repetitions)


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """Chance that a run of ours beats a run of theirs, mean over games; a draw counts one half.

    The same as `rliable.metrics.probability_of_improvement`, which tests for significance each time and is far too
    slow for a bootstrap.
    """
    won = (ours[:, None] > theirs[None]) + 0.5 * (ours[:, None] == theirs[None])
    return float(won.mean())


def improvement_with_interval(ours: Scores, theirs: Scores, repetitions: int = REPETITIONS) -> Interval:
    """`probability_of_improvement` with its interval."""
    return _pair_with_interval(probability_of_improvement, ours, theirs, repetitions)


def _pair_with_interval(
    compare: Callable[[Scores, Scores], float], ours: Scores, theirs: Scores, repetitions: int
) -> Interval:
    value = compare(ours, theirs)
    if min(len(ours), len(theirs)) < 2:
        return Interval(value)
    with _seeded():
        _, bounds = library.get_interval_estimates(
            {"": [ours, theirs]}, lambda x, y: np.array([compare(x, y)]), reps=repetitions
        )
    return Interval(value, float(bounds[""][0, 0]), float(bounds[""][1, 0]))


@dataclass(frozen=True)
class Profile:
    """Share of runs and games that score above each threshold; bounds are None for a single run."""

    thresholds: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


def performance_profile(scores: Scores, thresholds: NDArray[np.float64], repetitions: int = 2_000) -> Profile:
    """The profile of `scores` (runs, games) at `thresholds` (n,)."""

    def share(drawn: Scores, at: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = (drawn[..., None] > at).mean((0, 1))
        return result

    if len(scores) < 2:
        return Profile(thresholds, share(scores, thresholds), None, None)
    with _seeded():
        profiles, bounds = library.create_performance_profile(
            {"": scores}, thresholds, custom_profile_func=share, reps=repetitions
        )
    return Profile(thresholds, profiles[""], bounds[""][0], bounds[""][1])


@contextmanager
def _seeded() -> Iterator[None]:
    """The same intervals every time: rliable draws from numpy's global generator, whatever it is given."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def standard_error(values: Sequence[float]) -> float | None:
    """Sample deviation (n - 1) divided by the root of n; None for fewer than two values."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
