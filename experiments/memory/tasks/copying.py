"""Copy: symbols one after the other, then questions for them in the same order."""

from __future__ import annotations

import torch

from experiments.memory.tasks.base import ANSWERS, Batch, episode, one_hot, with_questions


def draw(generator: torch.Generator, streams: int, length: int) -> Batch:
    """Episodes of `length` symbols, and then `length` questions that show nothing else; T is 2 `length`."""
    symbols = torch.randint(ANSWERS, (length, streams), generator=generator)
    shown = one_hot(symbols, 0, ANSWERS)
    asked = torch.zeros(2 * length, streams, dtype=torch.bool)
    asked[length:] = True
    signal = with_questions(torch.cat([shown, torch.zeros_like(shown)]), asked)
    return episode(signal, symbols.repeat(2, 1), asked, generator)
