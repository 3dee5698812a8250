"""How long an evaluation will still take, although the longest episodes end last."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import Episode, Progress, Protocol
from evaluation.scoring.time_left import EvaluationProgress, mean_length, steps_left


def test_a_mean_counts_the_steps_of_unfinished_episodes() -> None:
    assert mean_length(0, 0, 1000) == 200  # nothing is known
    assert mean_length(9800, 99, 1000) == 100
    assert mean_length(99_800, 99, 6000) == 1000
    assert mean_length(99_800, 99, 500) == 500  # none is longer than the limit


def test_steps_that_are_left() -> None:
    left, ages = np.array([1, 3, 0, 1]), np.array([50, 10, 0, 980])
    # 100 for the present episode, 100 + 2 x 100, nothing, and at most the 20 steps up to the limit.
    together, last = steps_left(left, ages, 100.0, 1000)
    assert together == 100 + 300 + 0 + 20
    assert last == pytest.approx(100 * (1 + 1 / 2 + 1 / 3) + 2 * 100)
    assert steps_left(left, ages, 900.0, 1000)[1] == (1000 - 10) + 2 * 900  # none is longer than the limit
    assert steps_left(np.zeros(3, dtype=np.int64), ages[:3], 100.0, 1000) == (0.0, 0.0)


def simulate(lengths: np.ndarray, game: str = "plunder") -> list[tuple[float, Progress]]:
    """What is reported, and when, while environments play one episode each of these lengths (n,)."""
    now = 0.0
    reports: list[Progress] = []
    times: list[float] = []
    protocol = Protocol((game,), splits=("test1",), episodes=len(lengths), num_envs=len(lengths))
    progress = EvaluationProgress(protocol, reports.append, clock=lambda: now)
    for t in range(1, int(lengths.max()) + 1):
        now += 0.02 + 0.001 * int((lengths >= t).sum())  # fewer environments, faster steps
        for _ in range(int((lengths == t).sum())):
            progress.count(0, Episode(0.0, t, 0, False))
        left = (lengths > t).astype(np.int64)
        progress.step("test1", [left], [left * t])
        times.append(now)
    return list(zip(times, reports, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_the_time_left_is_about_right_until_the_end(seed: int) -> None:
    lengths = np.random.default_rng(seed).geometric(1 / 150, 100).clip(max=4000)
    reports = simulate(lengths)
    end = reports[-1][0]
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        time, report = min(reports, key=lambda item: abs(item[0] - share * end))
        assert report.seconds_left is not None
        assert (end - time) / 3 < report.seconds_left < 3 * (end - time), share
    # Counts of episodes alone would promise too much.
    half = next(report for time, report in reports if time > end / 2)
    assert half.done > 0.6 * half.total


def test_what_is_waited_for_is_named() -> None:
    reports = [report for _, report in simulate(np.array([5] * 20 + [30] * 12 + [40, 50]))]
    assert reports[0].what == "test1"
    assert [report.done for report in reports[29:31]] == [32, 32]
    assert reports[29].what == "test1, waiting for 2 episodes of plunder"
    assert reports[45].what == "test1, waiting for 1 episode of plunder"
    assert reports[-1] == Progress(34, 34, "test1", 0.0)
