"""Hyperparameters that every learning algorithm has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from agents.numerics import ON_NAN
from agents.rewards import REWARD_TRANSFORMS
from common.config import OneOf, Range, problems

LARGEST = 10**9
"""Beyond it a number is a typing error, and single precision not far from its end."""
Positive = Range(0, LARGEST, open_low=True)
NotNegative = Range(0, LARGEST)
Share = Range(0, 1)
Count = Range(1, LARGEST)


@dataclass(frozen=True)
class AgentConfig:
    """Hyperparameters that every algorithm has.

    Attributes:
        learning_rate: at the start of training.
        learning_rate_decay: whether it falls linearly to 0 at the end of training.
        discount: per environment step.
        entropy_cost: weight of the entropy bonus.
        value_cost: weight of the value loss (half the squared error).
        max_grad_norm: gradients are scaled down to this norm.
        reward_transform: what the learner sees instead of the raw reward: "clip" to [-1, 1], "normalize" by the
            running standard deviation of each game's returns, or "none".
        rollout_steps: steps of each environment between two phases of learning.
        unroll_steps: rollouts are learned from in equal unrolls of up to so many steps, each from the state that the
            policy had where it begins: batches mix more moments of more episodes. Gradient flows through all steps of
            an unroll and no further. None: a rollout is one unroll.
        on_nan: what to do when a loss, gradient, weight or state is not finite: "stop", or "skip" the update and go on
            with the weights of before it.
    """

    learning_rate: Annotated[float, Positive] = 6e-4
    learning_rate_decay: bool = False
    discount: Annotated[float, Share] = 0.99
    entropy_cost: Annotated[float, NotNegative] = 0.01
    value_cost: Annotated[float, NotNegative] = 0.5
    max_grad_norm: Annotated[float, Positive] = 40.0
    reward_transform: Annotated[str, OneOf(REWARD_TRANSFORMS, "reward transform")] = "clip"
    rollout_steps: Annotated[int, Count] = 50
    unroll_steps: Annotated[int | None, Count] = None
    on_nan: Annotated[str, OneOf(ON_NAN)] = "stop"

    @property
    def lag(self) -> int:
        """How many phases of learning the acting policy may be behind (0 or 1)."""
        return 0

    @property
    def horizon(self) -> int:
        """Steps of an unroll: the furthest that gradient can flow."""
        return self.rollout_steps // self.unrolls

    @property
    def unrolls(self) -> int:
        """How many unrolls a rollout of one environment is cut into: as few as possible."""
        fewest = -(-self.rollout_steps // (self.unroll_steps or self.rollout_steps))
        counts = range(fewest, 2 * fewest + 1)
        return next((count for count in counts if self.rollout_steps % count == 0), 1)

    def largest_batch(self, num_envs: int) -> int:
        """Steps that one update learns from, at least, with `num_envs` environments."""
        return self.rollout_steps

    def problems(self, num_envs: int, processes: int = 1) -> list[str]:
        """Everything wrong with these values for `num_envs` environments, shared by `processes`, a line each."""
        return problems(self) or self._unroll_problems() or self.batch_problems(num_envs, processes)

    def _unroll_problems(self) -> list[str]:
        if self.unroll_steps is None or self.horizon <= self.unroll_steps:
            return []
        return [
            f"a rollout of {self.rollout_steps} steps cannot be cut into equal unrolls of about {self.unroll_steps}: "
            "let rollout_steps be a multiple of unroll_steps"
        ]

    def batch_problems(self, num_envs: int, processes: int) -> list[str]:
        """Why rollouts of `num_envs` environments, shared by `processes`, cannot be cut into batches, a line each."""
        return []
