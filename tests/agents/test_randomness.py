"""Streams of random numbers: which are the same for whom, and what they were before there were others."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from agents.randomness import RandomStreams

CPU = torch.device("cpu")


def drawn(streams: RandomStreams) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(torch.randint(2**40, (4,), generator=generator).tolist())
        for name, generator in vars(streams).items()
    }


def test_no_two_streams_are_the_same() -> None:
    """Neither within a process, nor actions in two processes."""
    ranks = [drawn(RandomStreams(3, CPU, rank)) for rank in range(4)]
    own = [ranks[0]["shuffling"], ranks[0]["replaying"]]
    own += [rank[name] for rank in ranks for name in ("acting", "predicting")]
    assert all(one != other for one, other in itertools.combinations(own, 2))


def test_what_all_processes_draw_alike() -> None:
    first, second = (drawn(RandomStreams(3, CPU, rank)) for rank in (0, 1))
    for name in ("shuffling", "replaying"):
        assert first[name] == second[name]


def test_runs_draw_what_they_always_drew() -> None:
    """The first three streams are the first three children of the seed, however many there are."""
    streams = RandomStreams(3, CPU)
    found = (streams.acting, streams.predicting, streams.shuffling)
    for stream, child in zip(found, np.random.SeedSequence(3).spawn(3), strict=True):
        assert stream.initial_seed() == int(child.generate_state(1, np.uint64)[0]) >> 1
