"""Reset rules: at which steps a recurrent core forgets.

A rule turns the starts of episodes into the steps before which the core's memory is cleared. It is part of a
policy's configuration, so acting, learning and evaluation follow the same rule. What a rule has to remember
between two calls (the span rule counts steps) lives in the core's state, beside the memory itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError, shown

State = dict[str, Tensor]
"""What a core remembers between two calls: a flat dict of tensors, batch first."""

AGE = "age"
"""State entry of the span rule: steps since the last clearing, int64 (B,)."""

MAX_SPAN = 1_000_000
"""Most steps of a span rule; beyond it a number is a typing error."""


class ResetRule(ABC):
    """Where a core's memory is cleared."""

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """What the rule itself remembers, for `batch_size` fresh environments."""
        return {}

    @abstractmethod
    def mask(self, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        """Where to clear.

        Args:
            state: the core's state, of which the rule reads only its own entries.
            episode_start: bool (T, B); true where step t is the first of an episode.

        Returns:
            bool (T, B), true where the memory is cleared before step t; and the rule's own new entries.
        """


@dataclass(frozen=True)
class EpisodeReset(ResetRule):
    """Clear at the start of each episode."""

    def mask(self, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        return episode_start, {}


@dataclass(frozen=True)
class NeverReset(ResetRule):
    """Never clear: the memory lives on through a sequence of episodes, and gradient crosses their borders."""

    def mask(self, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        return torch.zeros_like(episode_start), {}


@dataclass(frozen=True)
class SpanReset(ResetRule):
    """Clear at the start of each episode and every `span` steps since (the ablation of carried-over weights).

    The steps are counted in the state, so the places do not depend on how a sequence is cut into calls.
    """

    span: int

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        return {AGE: torch.zeros(batch_size, dtype=torch.int64, device=device)}

    def mask(self, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        steps = episode_start.shape[0]
        if steps == 0:
            return episode_start, {AGE: state[AGE]}
        time = torch.arange(steps, device=episode_start.device).unsqueeze(1)
        # What was before this call counts as if its last clearing had been at time -age.
        start_time = torch.where(episode_start, time, -state[AGE])
        age = (time - start_time.cummax(dim=0).values) % self.span
        return age == 0, {AGE: (age[-1] + 1) % self.span}


def parse_reset(text: str | int) -> ResetRule:
    """The reset rule that `text` names: "episode", "never" or a number of steps such as "50".

    Raises:
        UserError: it names none.
    """
    word = str(text).strip()
    if word == "episode":
        return EpisodeReset()
    if word == "never":
        return NeverReset()
    if word.isascii() and word.isdigit() and 1 <= float(word) <= MAX_SPAN:
        return SpanReset(int(word))
    raise UserError(
        f"unknown reset rule {shown(word)}: use episode, never or a number of steps such as 50, up to {MAX_SPAN:,}"
    )
