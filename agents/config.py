"""Hyperparameters that every learning algorithm has."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agents.rewards import reward_transform_problems
from agents.safety import on_nan_problems


@dataclass(frozen=True)
class AgentConfig:
    """Hyperparameters that every algorithm has.

    Attributes:
        rollout_steps: steps of each environment between two phases of learning.
        learning_rate: at the start of training.
        learning_rate_decay: whether it falls linearly to 0 at the end of training.
        discount: per environment step.
        entropy_cost: weight of the entropy bonus.
        value_cost: weight of the value loss (half the squared error).
        max_grad_norm: gradients are scaled down to this norm.
        reward_transform: what the learner sees instead of the raw reward: "clip" to [-1, 1], "normalize" by the
            running standard deviation of each game's returns, or "none".
        on_nan: what to do when a loss, gradient, weight or state is not finite: "stop", or "skip" the update and go on
            with the weights of before it.
    """

    learning_rate: float
    learning_rate_decay: bool
    discount: float
    entropy_cost: float
    value_cost: float
    max_grad_norm: float
    reward_transform: str
    rollout_steps: int
    on_nan: str = "stop"

    @property
    def rollout_length(self) -> int:
        """Steps that each environment makes between two phases of learning."""
        return self.rollout_steps

    @property
    def lag(self) -> int:
        """How many phases of learning the acting policy may be behind (0 or 1)."""
        return 0

    def problems(self, num_envs: int) -> list[str]:
        """Everything wrong with these values for `num_envs` environments, a line each."""
        found = [*reward_transform_problems(self.reward_transform), *on_nan_problems(self.on_nan)]
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                found.append(f"{name} must be positive and finite, not {getattr(self, name)}")
        for name in ("entropy_cost", "value_cost"):
            if not 0 <= getattr(self, name) < math.inf:
                found.append(f"{name} must be finite and not negative, but is {getattr(self, name)}")
        if not 0 <= self.discount <= 1:
            found.append(f"discount must lie between 0 and 1, not {self.discount}")
        if self.rollout_length < 1:
            found.append(f"the rollout must be at least 1 step long, not {self.rollout_length}")
        return found
