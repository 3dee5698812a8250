"""In which order rollouts are collected and learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Rollout = TypeVar("Rollout")
Outcome = TypeVar("Outcome")


def alternate(
    collect: Callable[[], Rollout | None], learn: Callable[[Rollout], Outcome]
) -> Iterator[Outcome]:
    """Collect, learn, collect, learn: what is learned from was chosen by the weights that learn from it.

    Args:
        collect: the next rollout; None at the end.
        learn: from a rollout.

    Yields:
        What `learn` returned.
    """
    while (rollout := collect()) is not None:
        yield learn(rollout)


def overlap(
    play: Callable[[], Rollout | None],
    accept: Callable[[Rollout], bool | None],
    learn: Callable[[Rollout], Outcome],
) -> Iterator[Outcome]:
    """Play the next rollout, with the weights of before this update, while this update runs.

    Args:
        play: the next rollout; runs in a thread of its own from the second one on. None if it was broken off.
        accept: called between two rollouts, while nothing else runs: takes note of a rollout's steps, and readies what
            plays. True to go on, False to learn from this rollout and end, None to end at once.
        learn: from a rollout.

    Yields:
        What `learn` returned, after the next rollout has been played.
    """
    with ThreadPoolExecutor(1, "acting") as thread:
        ready = play()
        while ready is not None and (going_on := accept(ready)) is not None:
            following = thread.submit(play) if going_on else None
            outcome = learn(ready)
            ready = following.result() if following is not None else None
            yield outcome
