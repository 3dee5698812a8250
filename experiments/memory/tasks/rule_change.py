"""A rule that changes in the middle of an episode, without notice.

At every step there is a stimulus, and an answer is wanted. The step after it repeats the stimulus and tells the right
answer, beside the next stimulus. Which answer belongs to which stimulus, the rule, is drawn anew for each episode; on
the way every stimulus gets another answer. So what was learned has to be found, used, and written over as soon as
feedback contradicts it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.memory.tasks.base import ANSWERS, Batch, episode, one_hot

STIMULI = 4


def draw(generator: torch.Generator, streams: int, length: int) -> Batch:
    """Episodes of `length` trials, T = `length`, whose rule changes in their middle third.

    What counts are stimuli whose answer has been told since the rule began: who keeps the latest feedback is always
    right. No stimulus comes twice in a row, so that feedback alone, without memory, helps nobody.
    """
    stimuli = _stimuli(generator, streams, length)
    rule = torch.randint(ANSWERS, (STIMULI, streams), generator=generator)
    other_rule = (rule + torch.randint(1, ANSWERS, rule.shape, generator=generator)) % ANSWERS
    change = torch.randint(length // 3, 2 * length // 3 + 1, (streams,), generator=generator)
    changed = torch.arange(length).unsqueeze(1) >= change
    target = torch.where(changed, other_rule.gather(0, stimuli), rule.gather(0, stimuli))
    told = one_hot(stimuli[:-1], STIMULI, STIMULI) + one_hot(target[:-1], 2 * STIMULI, ANSWERS)
    signal = one_hot(stimuli, 0, STIMULI)
    signal[1:] += told
    return episode(signal, target, _answerable(stimuli, changed), generator)


def _stimuli(generator: torch.Generator, streams: int, steps: int) -> Tensor:
    """Stimuli (T, B), each different from the one before."""
    moves = torch.randint(1, STIMULI, (steps, streams), generator=generator)
    return moves.cumsum(0) % STIMULI


def _answerable(stimuli: Tensor, changed: Tensor) -> Tensor:
    """Where a stimulus has come before under the same rule: bool (T, B)."""
    item = 2 * stimuli + changed.long()
    shown = F.one_hot(item, 2 * STIMULI)
    before = shown.cumsum(0) - shown
    return before.gather(2, item.unsqueeze(-1)).squeeze(-1) > 0
