from __future__ import annotations

import threading

import pytest

from agents.schedule import alternate, overlap


def test_alternating_learns_from_each_rollout_before_the_next_one_is_played() -> None:
    events: list[str] = []
    rollouts = iter([1, 2, None])

    def collect() -> int | None:
        rollout = next(rollouts)
        events.append(f"collect {rollout}")
        return rollout

    def learn(rollout: int) -> int:
        events.append(f"learn {rollout}")
        return 10 * rollout

    assert list(alternate(collect, learn)) == [10, 20]
    assert events == ["collect 1", "learn 1", "collect 2", "learn 2", "collect None"]


def test_overlapping_plays_the_next_rollout_while_it_learns() -> None:
    numbers = iter(range(1, 10))
    learning, playing = threading.Event(), threading.Event()
    accepted: list[int] = []

    def play() -> int:
        number = next(numbers)
        if number > 1:
            playing.set()
            assert learning.wait(10)  # returns only while the update before it runs
            learning.clear()
        return number

    def accept(rollout: int) -> bool:
        accepted.append(rollout)
        return rollout < 4

    def learn(rollout: int) -> int:
        if rollout < 4:
            assert playing.wait(10)
            playing.clear()
            learning.set()
        return rollout

    assert list(overlap(play, accept, learn)) == [1, 2, 3, 4]
    assert accepted == [1, 2, 3, 4]
    assert next(numbers) == 5  # nothing was played beyond the end


@pytest.mark.parametrize("at", ["play", "accept"])
def test_overlapping_ends_where_it_is_broken_off_and_learns_from_no_part_of_a_rollout(at: str) -> None:
    learned: list[int] = []
    rollouts = iter([1, 2, None if at == "play" else 3, 4])

    def accept(rollout: int) -> bool | None:
        return None if at == "accept" and rollout == 3 else True

    def learn(rollout: int) -> None:
        learned.append(rollout)

    list(overlap(lambda: next(rollouts), accept, learn))
    assert learned == [1, 2]


def test_an_error_of_the_acting_thread_follows_what_was_learned() -> None:
    learned: list[int] = []

    def play() -> int:
        if learned:
            raise RuntimeError("the game broke")
        return 1

    def learn(rollout: int) -> int:
        learned.append(rollout)
        return rollout

    with pytest.raises(RuntimeError, match="the game broke"):
        list(overlap(play, lambda rollout: True, learn))
