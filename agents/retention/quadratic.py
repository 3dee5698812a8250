"""What penalties share that pull weights back to where they were: springs, one for each weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from agents.retention.base import Retention
from agents.retention.weights import Tensors, Weights

if TYPE_CHECKING:
    from agents.learner import Learner

STIFFEST = 1e30
"""Of a product that infinity would turn into something that is not a number."""


@dataclass(frozen=True)
class QuadraticConfig:
    """How penalties act.

    Attributes:
        decoupled: let the penalty act after each step of the optimizer, in closed form, instead of through its
            gradient: stable however strong it is, and not rescaled by the optimizer or by clipping.
    """

    decoupled: bool = False


@dataclass
class Springs:
    """The penalty constant + 1/2 sum_i stiffness_i (theta_i - anchor_i)^2, before any strength."""

    stiffness: Tensors
    anchor: Tensors
    constant: float = 0.0

    @classmethod
    def mean(cls, springs: list[Springs], factor: float | None = None) -> Springs:
        """One set of springs with the penalty of several, times `factor` (None: their mean)."""
        factor = 1.0 / len(springs) if factor is None else factor
        if len(springs) == 1:  # as it is: its penalty is exactly 0 at its anchor
            (only,) = springs
            return cls([factor * tensor for tensor in only.stiffness], only.anchor)
        together = cls([], [])
        for parts in zip(*[zip(s.stiffness, s.anchor, strict=True) for s in springs], strict=True):
            stiffness = sum((f for f, _ in parts), torch.zeros_like(parts[0][0]))
            pulled = sum((f * a for f, a in parts), torch.zeros_like(stiffness))
            anchor = torch.where(stiffness > 0, pulled / stiffness, parts[-1][1])
            together.stiffness.append(factor * stiffness)
            together.anchor.append(anchor)
            together.constant += (
                0.5 * factor * float(sum((f * (a - anchor).square()).sum() for f, a in parts))
            )
        return together


class QuadraticPenalty(Retention):
    """Adds strength times the gradient of springs; subclasses set `springs` where a task ends."""

    springs: Springs | None = None

    @property
    def strength(self) -> float:
        """Factor of the penalty."""
        raise NotImplementedError

    def protected(self, learner: Learner) -> Weights:
        """The weights that have springs: all, unless a method says otherwise."""
        return Weights(learner.policy.named_parameters())

    def attach(self, learner: Learner) -> None:
        super().attach(learner)
        self.learner = learner
        self.weights = self.protected(learner)

    @property
    def acting(self) -> bool:
        """Whether there is anything to hold on to."""
        return self.springs is not None and self.strength > 0.0

    @torch.no_grad()
    def add_gradients(self, scale: float) -> dict[str, Tensor]:
        found = super().add_gradients(scale)
        if not self.acting:
            return found
        assert self.springs is not None
        away = self.weights.moved_from(self.springs.anchor)
        pull = torch._foreach_mul(away, self.springs.stiffness)
        if not self.config.decoupled:
            torch._foreach_add_(self.weights.gradients(), pull, alpha=self.strength * scale)
        energy = torch.stack([torch.sum(a * p) for a, p in zip(away, pull, strict=True)]).sum()
        return {**found, f"{self.name}_penalty": self.strength * (0.5 * energy + self.springs.constant)}

    @torch.no_grad()
    def after_step(self) -> None:
        super().after_step()
        if not (self.acting and self.config.decoupled):
            return
        assert self.springs is not None
        rate = self.learner.optimizer.param_groups[0]["lr"] * self.strength
        for parameter, stiffness, anchor in zip(
            self.weights.parameters, self.springs.stiffness, self.springs.anchor, strict=True
        ):
            # The minimiser of |x - theta|^2 / (2 eta) + strength/2 stiffness (x - anchor)^2.
            product = (rate * stiffness).clamp(max=STIFFEST)
            parameter.lerp_(anchor, product / (1.0 + product))

    # State of springs

    def springs_state(self, springs: Springs) -> dict[str, Any]:
        """As a checkpoint holds them."""
        named = self.weights.named
        return {"stiffness": named(springs.stiffness), "anchor": named(springs.anchor)}

    def read_springs(self, stored: dict[str, Any]) -> Springs:
        """What `springs_state` made."""
        return Springs(self.weights.read(stored["stiffness"]), self.weights.read(stored["anchor"]))
