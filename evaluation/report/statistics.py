"""How sure a comparison is: aggregates over runs and games with bootstrap intervals. Pure functions of numbers.

Scores are matrices (runs, games) of normalised scores. The aggregates are those of Agarwal et al., "Deep Reinforcement
Learning at the Edge of the Statistical Precipice" (NeurIPS 2021), computed by their library ``rliable``; intervals are
95 % percentile intervals of a bootstrap that draws runs anew for each game (stratified). They need at least two runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from rliable import library, metrics

Scores = NDArray[np.float64]
Value = TypeVar("Value", float, NDArray[np.float64])

REPETITIONS = 5_000
_SEED = 0


@dataclass(frozen=True)
class Interval(Generic[Value]):
    """A value with its 95 % interval; both bounds are None where a single run says nothing about others."""

    value: Value
    low: Value | None = None
    high: Value | None = None


def with_interval(
    aggregate: Callable[..., Value], *scores: Scores, repetitions: int = REPETITIONS
) -> Interval[Value]:
    """`aggregate` of the scores (runs, games) of one group or more, each drawn anew on its own."""
    value = aggregate(*scores)
    if min(map(len, scores)) < 2:
        return Interval(value)
    with _seeded():
        _, bounds = library.get_interval_estimates(
            {"": scores[0] if len(scores) == 1 else scores},
            lambda *drawn: np.atleast_1d(aggregate(*drawn)),
            reps=repetitions,
        )
    low, high = (bound if np.ndim(value) else float(bound[0]) for bound in bounds[""])
    return Interval(value, low, high)


def mean(scores: Scores) -> float:
    """Mean over runs and games."""
    return float(metrics.aggregate_mean(scores))


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all scores, runs and games together."""
    return float(metrics.aggregate_iqm(scores))


def difference(ours: Scores, theirs: Scores) -> float:
    """Mean of `ours` minus mean of `theirs`."""
    return mean(ours) - mean(theirs)


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """Chance that a run of ours beats a run of theirs, mean over games; a draw counts one half.

    The same as `rliable.metrics.probability_of_improvement`, which tests for significance each time and is far too
    slow for a bootstrap.
    """
    won = (ours[:, None] > theirs[None]) + 0.5 * (ours[:, None] == theirs[None])
    return float(won.mean())


def performance_profile(thresholds: NDArray[np.float64]) -> Callable[[Scores], NDArray[np.float64]]:
    """What gives the share of runs and games that score above each of `thresholds` (n,)."""

    def shares(scores: Scores) -> NDArray[np.float64]:
        result: NDArray[np.float64] = (scores[..., None] > thresholds).mean((0, 1))
        return result

    return shares


@contextmanager
def _seeded() -> Iterator[None]:
    """The same intervals every time: rliable draws from numpy's global generator, whatever it is given."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
