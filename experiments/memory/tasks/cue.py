"""Cue and delay: the first step of an episode shows one of four cues; some steps later it must be named."""

from __future__ import annotations

import torch

from experiments.memory.tasks.base import ANSWERS, FEATURES, Batch, episode, one_hot, with_questions

AFTERWARDS = 8
"""Steps after the question, in which nothing is asked."""


def draw(generator: torch.Generator, streams: int, length: int) -> Batch:
    """Episodes in which the cue is asked for `length` steps after it was shown; T is `length` + 9."""
    steps = length + 1 + AFTERWARDS
    cue = torch.randint(ANSWERS, (streams,), generator=generator)
    signal = torch.zeros(steps, streams, FEATURES)
    signal[0] = one_hot(cue, 0, ANSWERS)
    asked = torch.zeros(steps, streams, dtype=torch.bool)
    asked[length] = True
    return episode(with_questions(signal, asked), cue.expand(steps, streams), asked, generator)
