from __future__ import annotations

import math

import pytest

from evaluation.scoring.results import Estimate, aggregate, estimate, normalized


def test_mean_and_standard_error() -> None:
    # Deviations from 2.5 squared: 2.25 + 0.25 + 0.25 + 2.25 = 5; 5 / 3 over 4 values: root of 5 / 12.
    value = estimate([1.0, 2.0, 3.0, 4.0])
    assert value.mean == 2.5
    assert value.standard_error == pytest.approx(math.sqrt(5 / 12))


def test_one_value_has_no_standard_error() -> None:
    value = estimate([7.0])
    assert value.mean == 7.0
    assert math.isnan(value.standard_error)


def test_equal_values_have_none_either() -> None:
    assert estimate([3.0, 3.0, 3.0]) == Estimate(3.0, 0.0)


@pytest.mark.parametrize(
    ("game", "mode", "raw", "expected"),
    [
        ("bigfish", "easy", Estimate(20.5, 3.9), Estimate(0.5, 0.1)),  # 1 to 40
        ("maze", "memory", Estimate(7.0, 0.6), Estimate(0.5, 0.1)),  # the hard constants: 4 to 10
        ("fruitbot", "easy", Estimate(-1.5, 0.0), Estimate(0.0, 0.0)),  # -1.5 to 32.4
    ],
)
def test_normalized(game: str, mode: str, raw: Estimate, expected: Estimate) -> None:
    found = normalized(game, mode, raw)
    assert found.mean == pytest.approx(expected.mean)
    assert found.standard_error == pytest.approx(expected.standard_error)


def test_aggregate_counts_games_equally() -> None:
    total = aggregate([Estimate(0.2, 0.03), Estimate(0.6, 0.04)])
    assert total.mean == pytest.approx(0.4)
    assert total.standard_error == pytest.approx(0.05 / 2)  # root of 0.03² + 0.04², for a mean of two


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
    with pytest.raises(ValueError, match="at least one"):
        aggregate([])
