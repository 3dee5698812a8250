"""What a memory task is: batches of noisy symbols in which some steps ask for something that was shown earlier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

FEATURES = 64
"""Features of each step, in every task."""
ANSWERS = 4
"""Possible answers to each question, in every task: who guesses is right once in four times."""
QUESTION = FEATURES - 1
"""The feature that is raised where an answer is wanted."""
SIGNAL = 1.5
"""How far a symbol raises its feature."""
NOISE = 0.3
"""Standard deviation of the noise on every feature of every step."""


class Batch(NamedTuple):
    """Sequences of T steps in B streams.

    Attributes:
        x: features (T, B, 64).
        episode_start: bool (T, B); true where step t is the first of an episode.
        target: the right answers (T, B), from 0 to 3; without meaning where nothing is asked.
        asked: bool (T, B); where an answer counts.
    """

    x: Tensor
    episode_start: Tensor
    target: Tensor
    asked: Tensor


Draw = Callable[[torch.Generator, int, int], Batch]
"""Draws a batch: ``draw(generator, streams, length)``; the same generator gives the same batch."""


@dataclass(frozen=True)
class Task:
    """A memory task.

    Attributes:
        summary: what is asked, in one line.
        length: how much there is to remember, or for how long; the task says what it counts.
        draw: makes its batches, of any length.
    """

    summary: str
    length: int
    draw: Draw


def one_hot(symbols: Tensor, first: int, count: int) -> Tensor:
    """Symbols below `count` (...) as features (..., 64): the one at place `first` + symbol is raised."""
    return F.pad(SIGNAL * F.one_hot(symbols, count), (first, FEATURES - first - count))


def episode(signal: Tensor, target: Tensor, asked: Tensor, generator: torch.Generator) -> Batch:
    """The batch in which each stream is one episode and shows `signal` (T, B, 64) with noise."""
    noise = NOISE * torch.randn(signal.shape, generator=generator)
    start = torch.zeros(asked.shape, dtype=torch.bool)
    start[0] = True
    return Batch(signal + noise, start, target, asked)


def with_questions(signal: Tensor, asked: Tensor) -> Tensor:
    """`signal` with the question raised where an answer is wanted."""
    raised = signal.clone()
    raised[..., QUESTION] += SIGNAL * asked
    return raised


def random_orders(generator: torch.Generator, streams: int, count: int) -> Tensor:
    """A permutation of `count` numbers for each stream (count, B)."""
    return torch.rand(count, streams, generator=generator).argsort(dim=0)
