"""Synaptic intelligence (Zenke et al. 2017, arXiv 1703.04200).

While a task is trained, each weight's share of the drop of its loss is added up along the path:

    W_i <- W_i - g_i (theta_i after the step - theta_i before it)

with g the gradient of the task's own loss, before clipping and without any penalty. Where the task ends,

    Omega_i += max(W_i, 0) / ((theta_i - theta_i at the task's start)^2 + damping)

and strength * sum_i Omega_i (theta_i - theta*_i)^2 is part of the loss from then on.

With noisy gradients and an optimizer that divides by their size, W grows whether or not the loss falls: it becomes
much like the root of a Fisher information (Benzing 2022, arXiv 2006.06357).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch

from agents.retention.base import ConsolidationConfig, Rollouts
from agents.retention.consolidation import Consolidating
from agents.retention.quadratic import QuadraticConfig, QuadraticPenalty, Springs
from agents.retention.weights import Tensors
from common.config import Range

if TYPE_CHECKING:
    from agents.learner import Learner


@dataclass(frozen=True)
class SiConfig(QuadraticConfig, ConsolidationConfig):
    """Settings of synaptic intelligence.

    Attributes:
        si_strength: si: weight of the penalty, which has no factor 1/2.
        si_damping: si: what keeps the importance of weights that have not moved finite.
    """

    si_strength: Annotated[float, Range(0)] = 10.0
    si_damping: Annotated[float, Range(0, open_low=True)] = 0.1


class SynapticIntelligence(Consolidating, QuadraticPenalty):
    """Springs as stiff as what each weight has contributed."""

    name = "si"
    config_class = SiConfig
    inert: ClassVar[dict[str, Any]] = {"si_strength": 0.0}

    @property
    def strength(self) -> float:
        return 2.0 * float(self.config.si_strength)  # springs have a factor 1/2

    def attach(self, learner: Learner) -> None:
        super().attach(learner)
        self.path = self.weights.zeros()
        self._start = self.weights.values()
        self._gradients: Tensors = []
        self._before: Tensors = []

    @torch.no_grad()
    def see_gradients(self, scale: float) -> None:
        super().see_gradients(scale)
        if self.strength > 0.0:
            self._gradients = list(torch._foreach_div(self.weights.gradients(), scale))
            self._before = self.weights.values()

    @torch.no_grad()
    def after_step(self) -> None:
        if self.strength > 0.0:
            moved = self.weights.moved_from(self._before)
            torch._foreach_addcmul_(self.path, self._gradients, moved, value=-1.0)
        super().after_step()

    @torch.no_grad()
    def consolidate(self, task: int, rollouts: Rollouts) -> None:
        if self.strength == 0.0:
            return
        now = self.weights.values()
        importance = [
            path.clamp_min(0.0) / ((theta - start).square() + self.config.si_damping)
            for path, theta, start in zip(self.path, now, self._start, strict=True)
        ]
        if self.springs is not None:
            torch._foreach_add_(importance, self.springs.stiffness)
        self.springs = Springs(importance, now)
        self.path, self._start = self.weights.zeros(), [tensor.clone() for tensor in now]

    def snapshot(self) -> dict[str, Any]:
        return {**super().snapshot(), "path": self.weights.named([tensor.clone() for tensor in self.path])}

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "path": self.weights.named(self.path),
            "start": self.weights.named(self._start),
            "springs": None if self.springs is None else self.springs_state(self.springs),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.path, self._start = self.weights.read(state["path"]), self.weights.read(state["start"])
        self.springs = None if state["springs"] is None else self.read_springs(state["springs"])
