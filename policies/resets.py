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

from common.errors import UserError
from policies.sizes import require_positive

State = dict[str, Tensor]
"""What a core remembers between two calls: a flat dict of tensors, batch first."""

AGE = "age"
"""State entry of the span rule: steps since the last clearing, int64 (B,)."""


class ResetRule(ABC):
    """Where a core's memory is cleared."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The text that `parse_reset` turns into this rule."""

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """What the rule itself remembers, for `batch_size` fresh streams."""
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

    @property
    def name(self) -> str:
        return "episode"

    def mask(self, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        return episode_start, {}


@dataclass(frozen=True)
class NeverReset(ResetRule):
    """Never clear: the memory lives on through a stream of episodes, and gradient crosses their borders."""

    @property
    def name(self) -> str:
        return "never"

    def mask(self, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        return torch.zeros_like(episode_start), {}


@dataclass(frozen=True)
class SpanReset(ResetRule):
    """Clear at the start of each episode and every `span` steps since (the ablation of carried-over weights).

    The steps are counted in the state, so the places do not depend on how a stream is cut into calls.

    Raises:
        UserError: `span` is not a positive whole number.
    """

    span: int

    def __post_init__(self) -> None:
        require_positive("reset span (in steps)", self.span)

    @property
    def name(self) -> str:
        return str(self.span)

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        return {AGE: torch.zeros(batch_size, dtype=torch.int64, device=device)}

    def mask(self, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        steps = episode_start.shape[0]
        if steps == 0:
            return episode_start, {AGE: state[AGE]}
        time = torch.arange(steps, device=episode_start.device).unsqueeze(1)
        # The stream before this call counts as if its last clearing had been at time -age.
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
    try:
        span = int(word)
    except ValueError:
        raise UserError(
            f"unknown reset rule {word!r}: use episode, never or a number of steps such as 50"
        ) from None
    return SpanReset(span)
