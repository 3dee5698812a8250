"""Binding of pairs: vectors that were never seen before come with an answer each, and are then shown again.

Nothing that is known about symbols helps, since every episode has vectors of its own: what was shown together must be
kept together, and found again by a vector that differs from the one kept by the noise on both.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from experiments.memory.tasks.base import (
    ANSWERS,
    FEATURES,
    Batch,
    episode,
    one_hot,
    random_orders,
    with_questions,
)

VECTOR = 32
"""Features of a vector, each drawn from N(0, 1)."""


def draw(generator: torch.Generator, streams: int, length: int) -> Batch:
    """Episodes of `length` pairs, one at each step, and then `length` questions, in another order; T is 2 `length`."""
    vectors = torch.randn(length, streams, VECTOR, generator=generator)
    answers = torch.randint(ANSWERS, (length, streams), generator=generator)
    order = random_orders(generator, streams, length)
    shown = F.pad(vectors, (0, FEATURES - VECTOR))
    pairs = shown + one_hot(answers, VECTOR, ANSWERS)
    questions = shown.gather(0, order.unsqueeze(-1).expand_as(shown))
    asked = torch.zeros(2 * length, streams, dtype=torch.bool)
    asked[length:] = True
    signal = with_questions(torch.cat([pairs, questions]), asked)
    return episode(signal, torch.cat([answers, answers.gather(0, order)]), asked, generator)
