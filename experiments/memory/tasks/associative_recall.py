"""Associative recall: letters, each followed by its answer in a step of its own, are then shown again.

After Ba et al. 2016 (arXiv 1610.06258), with a question for every letter instead of one alone. What belongs together
lies one step apart, so a core has to remember the letter until its answer comes.
"""

from __future__ import annotations

import torch

from experiments.memory.tasks.base import ANSWERS, Batch, episode, one_hot, random_orders, with_questions

LETTERS = 16


def draw(generator: torch.Generator, streams: int, length: int) -> Batch:
    """Episodes of `length` different letters with answers, then as many questions in another order; T is 3 `length`.

    Raises:
        ValueError: there are not so many letters.
    """
    if length > LETTERS:
        raise ValueError(f"{length} letters are asked for, there are {LETTERS}")
    letters = random_orders(generator, streams, LETTERS)[:length]
    answers = torch.randint(ANSWERS, (length, streams), generator=generator)
    order = random_orders(generator, streams, length)
    shown, told = one_hot(letters, 0, LETTERS), one_hot(answers, LETTERS, ANSWERS)
    lessons = torch.stack([shown, told], dim=1).flatten(0, 1)
    asked = torch.zeros(3 * length, streams, dtype=torch.bool)
    asked[2 * length :] = True
    questions = one_hot(letters.gather(0, order), 0, LETTERS)
    target = torch.cat([answers.repeat_interleave(2, dim=0), answers.gather(0, order)])
    return episode(with_questions(torch.cat([lessons, questions]), asked), target, asked, generator)
