"""The statistics, held against rliable called directly and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from rliable import library, metrics

from evaluation.report.statistics import (
    Interval,
    difference,
    interquartile_mean,
    mean,
    performance_profile,
    probability_of_improvement,
    with_interval,
)

Scores = NDArray[np.float64]


@pytest.fixture
def ours() -> Scores:
    return np.random.default_rng(1).normal(0.4, 0.3, (4, 6))


@pytest.fixture
def theirs() -> Scores:
    return np.random.default_rng(2).normal(0.2, 0.3, (3, 6))


def test_point_estimates_are_those_of_rliable(ours: Scores, theirs: Scores) -> None:
    assert interquartile_mean(ours) == metrics.aggregate_iqm(ours)
    assert mean(ours) == metrics.aggregate_mean(ours)
    tied = np.round(np.vstack([ours, theirs]), 1)
    for x, y in ((ours, theirs), (theirs, ours), (tied[:4], tied[4:]), (ours, ours)):
        assert probability_of_improvement(x, y) == pytest.approx(metrics.probability_of_improvement(x, y))


def test_they_are_what_they_say() -> None:
    scores = np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 100.0]])
    assert interquartile_mean(scores) == 3.5  # of 2, 3, 4, 5
    assert probability_of_improvement(np.array([[1.0, 0.0]]), np.array([[0.5, 0.0], [2.0, 1.0]])) == 0.375


def test_intervals_are_those_of_rliable_with_the_same_draws(ours: Scores, theirs: Scores) -> None:
    def direct(scores: object, func: object, repetitions: int = 500) -> tuple[float, float]:
        np.random.seed(0)  # noqa: NPY002
        _, bounds = library.get_interval_estimates({"x": scores}, func, reps=repetitions)
        return bounds["x"][0, 0], bounds["x"][1, 0]

    found = with_interval(interquartile_mean, ours, repetitions=500)
    assert (found.low, found.high) == direct(ours, lambda x: np.array([metrics.aggregate_iqm(x)]))
    found = with_interval(difference, ours, theirs, repetitions=500)
    assert found.value == pytest.approx(ours.mean() - theirs.mean())
    assert (found.low, found.high) == pytest.approx(
        direct([ours, theirs], lambda x, y: np.array([x.mean() - y.mean()]))
    )
    found = with_interval(probability_of_improvement, ours, theirs, repetitions=100)
    expected = direct(
        [ours, theirs], lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), repetitions=100
    )
    assert (found.low, found.high) == pytest.approx(expected)


def test_profiles_are_those_of_rliable(ours: Scores) -> None:
    thresholds = np.linspace(-0.5, 1.5, 21)
    found = with_interval(performance_profile(thresholds), ours, repetitions=200)
    np.random.seed(0)  # noqa: NPY002
    profiles, bounds = library.create_performance_profile({"x": ours}, thresholds, reps=200)
    np.testing.assert_allclose(found.value, profiles["x"])
    np.testing.assert_allclose(found.low, bounds["x"][0])
    np.testing.assert_allclose(found.high, bounds["x"][1])
    assert found.value[0] == 1.0
    assert found.value[-1] == 0.0


def test_intervals_repeat_and_leave_the_global_generator_alone(ours: Scores) -> None:
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    first = with_interval(mean, ours, repetitions=50)
    assert np.random.random() == expected  # noqa: NPY002
    assert with_interval(mean, ours, repetitions=50) == first
    assert first.low is not None
    assert first.high is not None
    assert first.low < first.value < first.high


def test_one_run_has_no_interval(ours: Scores) -> None:
    one = ours[:1]
    assert with_interval(mean, one) == Interval(mean(one), None, None)
    assert with_interval(difference, ours, one).low is None
    assert with_interval(probability_of_improvement, one, ours).high is None
    profile = with_interval(performance_profile(np.array([0.0])), one)
    assert profile.low is None
    assert profile.high is None
