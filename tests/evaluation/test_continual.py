"""Metrics of sequences against numbers worked out by hand, and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import continual
from evaluation.continual import Curve, Matrix

# Three tasks: each is learned to 0.8, 0.6 and 1.0, and the first is half forgotten, then half won back.
P = np.array(
    [
        [0.0, 0.1, 0.0],
        [0.8, 0.2, 0.0],
        [0.4, 0.6, 0.1],
        [0.6, 0.0, 1.0],
    ]
)


def test_what_was_learned_and_what_is_left() -> None:
    assert continual.learned(P).tolist() == [0.8, 0.6, 1.0]
    assert continual.final_performance(P) == pytest.approx(1.6 / 3)
    assert continual.forgetting(P) == pytest.approx(((0.8 - 0.6) + (0.6 - 0.0)) / 2)
    assert continual.backward_transfer(P) == pytest.approx(-0.4)
    assert continual.intransigence(P, np.array([1.0, 1.0, 1.0])) == pytest.approx((0.2 + 0.4 + 0.0) / 3)


def test_forgetting_from_the_best_stage_counts_what_came_back_in_between() -> None:
    p = P.copy()
    p[2, 0] = 0.9  # better after the second stage than after its own
    assert continual.forgetting_from_best(p) == pytest.approx(((0.9 - 0.6) + 0.6) / 2)
    assert continual.forgetting(p) == pytest.approx(0.4)


def test_with_a_single_task_there_is_nothing_to_forget() -> None:
    p = np.array([[0.0], [0.7]])
    assert continual.final_performance(p) == 0.7
    assert math.isnan(continual.forgetting(p))
    assert math.isnan(continual.forgetting_from_best(p))


def test_coras_tables() -> None:
    R = np.array([[0.0, 0.0, 2.0], [10.0, 1.0, 2.0], [4.0, 5.0, 1.0], [6.0, 4.0, 4.0]])
    scale = continual.cora_scale([R])
    assert scale.tolist() == [10.0, 5.0, 4.0]
    lost, gained = continual.isolated_forgetting(R, scale), continual.zero_shot_transfer(R, scale)
    assert lost[0, 1] == pytest.approx(0.6)
    assert lost[0, 2] == pytest.approx(-0.2)  # it came back by itself
    assert lost[1, 2] == pytest.approx(0.2)
    assert gained[1, 0] == pytest.approx(0.2)
    assert gained[2, 0] == 0.0
    assert gained[2, 1] == pytest.approx(-0.25)
    assert np.isnan(lost[np.tril_indices(3)]).all()
    assert np.isnan(gained[np.triu_indices(3)]).all()
    assert continual.cora_summary(lost) == pytest.approx(10 * (0.6 - 0.2 + 0.2) / 3)


def test_a_task_that_nobody_ever_scored_on_has_no_share() -> None:
    R = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]])
    scale = continual.cora_scale([R])
    assert np.isnan(scale[1])
    assert continual.cora_summary(continual.isolated_forgetting(R, scale)) == pytest.approx(5.0)


matrices = st.integers(2, 5).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(-20, 20, width=32), min_size=n, max_size=n), min_size=n + 1, max_size=n + 1
    )
)


@given(matrices)
def test_against_plain_loops(rows: list[list[float]]) -> None:
    R, n = np.array(rows), len(rows[0])
    ones = np.ones(n)
    lost, gained = continual.isolated_forgetting(R, ones), continual.zero_shot_transfer(R, ones)
    total = 0.0
    for i in range(n):
        for j in range(n):
            end, before = rows[j + 1][i], rows[j][i]
            if j > i:
                assert lost[i, j] == pytest.approx(before - end)
            if j < i:
                assert gained[i, j] == pytest.approx(end - before)
    for j in range(n - 1):
        total += rows[j + 1][j] - rows[n][j]
        # What later stages cost one by one is what is gone at the end.
        assert np.nansum(lost[j]) == pytest.approx(rows[j + 1][j] - rows[n][j], abs=1e-6)
    assert continual.forgetting(R) == pytest.approx(total / (n - 1), abs=1e-9)
    assert continual.forgetting_from_best(R) >= continual.forgetting(R) - 1e-9


def curve(*points: tuple[float, ...]) -> Curve:
    table = np.array(points)
    return Curve(table[:, 0], table[:, 1:])


def test_areas_do_not_depend_on_how_densely_a_line_is_measured() -> None:
    coarse = curve((0, 0.0, 1.0), (100, 1.0, 1.0))
    fine = curve((0, 0.0, 1.0), (10, 0.1, 1.0), (60, 0.6, 1.0), (100, 1.0, 1.0))
    for one in (coarse, fine):
        assert continual.area(one.steps, one.values[:, 0]) == pytest.approx(0.5)
        assert continual.lifetime_performance(one) == pytest.approx(0.75)
    assert math.isnan(continual.area(np.array([3.0]), np.array([1.0])))


def test_parts_and_places_of_a_curve() -> None:
    whole = curve((0, 0.0), (10, 1.0), (20, 2.0), (30, 3.0))
    assert whole.between(10, 20).steps.tolist() == [10, 20]
    assert whole.at([30, 0])[:, 0].tolist() == [3.0, 0.0]
    with pytest.raises(ValueError, match="no scores"):
        whole.at([15])


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12), st.integers(1, 6))
def test_smoothing_is_a_mean_of_the_last_ones(values: list[float], window: int) -> None:
    steps = np.arange(len(values), dtype=float)
    smooth = Curve(steps, np.array(values)[:, None]).smoothed(window).values[:, 0]
    for place in range(len(values)):
        last = values[max(0, place + 1 - window) : place + 1]
        assert smooth[place] == pytest.approx(sum(last) / len(last), abs=1e-5)


def test_forward_transfer_is_the_share_of_the_room_that_was_left() -> None:
    areas, experts = np.array([0.6, 0.1, 1.0]), np.array([0.2, 0.2, 1.0])
    # The third expert left no room.
    assert continual.forward_transfer(areas, experts) == pytest.approx((0.4 / 0.8 - 0.1 / 0.8) / 2)


def test_relearning_compares_the_steps_to_the_same_score() -> None:
    first = curve((0, 0.0), (100, 0.2), (200, 0.8), (300, 0.7))
    second = curve((1000, 0.3), (1050, 0.75), (1300, 0.9))
    assert continual.relearning(first, second, 0) == pytest.approx(50 / 200)
    never = curve((1000, 0.1), (1300, 0.5))
    assert math.isnan(continual.relearning(first, never, 0))


def test_the_dip_is_of_old_tasks_alone() -> None:
    after = curve((100, 0.8, 0.5, 0.1), (102, 0.2, 0.6, 0.0), (104, 0.5, 0.3, 0.9))
    assert continual.dip(after, [0, 1]) == pytest.approx((0.6 + 0.2) / 2)
    assert math.isnan(continual.dip(after, []))
    assert math.isnan(continual.dip(after.between(100, 101), [0]))


def test_plasticity_is_one_where_a_task_is_learned_again_as_well() -> None:
    first, later = curve((0, 0.0), (100, 1.0)), curve((500, 0.2), (600, 0.4))
    assert continual.plasticity(first, first, 0) == 1.0
    assert continual.plasticity(first, later, 0) == pytest.approx(0.6)


def test_recovery_is_a_share_of_what_was_lost() -> None:
    returns: Matrix = np.array([2.0, 4.0, 10.0, 12.0])
    assert continual.recovered(returns, 10.0).tolist() == [0.0, 0.25, 1.0, 1.25]
    assert np.isnan(continual.recovered(returns, 1.0)).all()  # nothing was lost
