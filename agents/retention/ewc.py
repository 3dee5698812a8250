"""Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv 1612.00796), and its online form (Progress & Compress,
Schwarz et al. 2018, arXiv 1805.06370, section 4).

Where a task ends, the diagonal F_k of its Fisher information and the weights theta*_k are kept. From then on

    strength / 2 * mean_k sum_i F_k,i (theta_i - theta*_k,i)^2

is part of the loss. It acts from the first update after the change of the task: most is forgotten there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch

from agents.retention.base import ConsolidationConfig, Rollouts
from agents.retention.consolidation import Consolidating
from agents.retention.fisher import FisherConfig, measured
from agents.retention.quadratic import QuadraticConfig, QuadraticPenalty, Springs
from agents.retention.weights import Tensors, Weights
from common.config import OneOf, Range

if TYPE_CHECKING:
    from agents.learner import Learner

OWN_WEIGHTS = "w0"
"""Last part of the names of the weights that a self-referential core starts from."""


@dataclass(frozen=True)
class EwcConfig(FisherConfig, QuadraticConfig, ConsolidationConfig):
    """Settings of EWC.

    Attributes:
        ewc_strength: ewc: weight of the penalty; CORA's 10,000 belongs to the published Fisher information.
        ewc_combine: ewc: whether the penalties of earlier tasks are averaged (mean) or added (sum).
        online_ewc_strength: online_ewc: weight of the penalty.
        online_ewc_decay: online_ewc: what is left of older tasks' sensitivities at each change of the task.
        ewc_normalize: online_ewc: give the sensitivities of each tensor norm 1 before they are added.
        ewc_weights: which weights are held: all, w0 (those that an SRWM starts from) or rest (all others).
    """

    ewc_strength: Annotated[float, Range(0)] = 1e3
    ewc_combine: Annotated[str, OneOf(("mean", "sum"))] = "mean"
    online_ewc_strength: Annotated[float, Range(0)] = 175.0
    online_ewc_decay: Annotated[float, Range(0, 1)] = 0.99
    ewc_normalize: bool = True
    ewc_weights: Annotated[str, OneOf(("all", OWN_WEIGHTS, "rest"))] = "all"


class _FisherPenalty(Consolidating, QuadraticPenalty):
    """Springs as stiff as the Fisher information."""

    def protected(self, learner: Learner) -> Weights:
        which = self.config.ewc_weights
        chosen = [
            (name, parameter)
            for name, parameter in learner.policy.named_parameters()
            if which == "all" or (which == OWN_WEIGHTS) == (name.rpartition(".")[2] == OWN_WEIGHTS)
        ]
        return Weights(chosen)

    def measure(self, rollouts: Rollouts) -> Tensors:
        """The Fisher information of the task that ends."""
        count = self.config.consolidation_rollouts
        return measured(self.config, self.learner, self.weights, rollouts(count))


class Ewc(_FisherPenalty):
    """A Fisher information and an anchor for each task; a task that comes back replaces its own.

    The cost of an update does not grow with the number of tasks.
    """

    name = "ewc"
    config_class = EwcConfig
    inert: ClassVar[dict[str, Any]] = {"ewc_strength": 0.0}

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._tasks: dict[int, Springs] = {}

    @property
    def strength(self) -> float:
        value: float = self.config.ewc_strength
        return value

    def consolidate(self, task: int, rollouts: Rollouts) -> None:
        if self.strength > 0.0:
            self._tasks[task] = Springs(self.measure(rollouts), self.weights.values())
            self._combine()

    def _combine(self) -> None:
        factor = 1.0 if self.config.ewc_combine == "sum" else None
        # In the order of their numbers, so that a checkpoint adds in the same order.
        tasks = [self._tasks[task] for task in sorted(self._tasks)]
        self.springs = Springs.mean(tasks, factor) if tasks else None

    def state(self) -> dict[str, Any]:
        tasks = {str(task): self.springs_state(springs) for task, springs in self._tasks.items()}
        return {**super().state(), "tasks": tasks}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._tasks = {int(task): self.read_springs(stored) for task, stored in state["tasks"].items()}
        self._combine()


class OnlineEwc(_FisherPenalty):
    """One running Fisher information, and the weights of the latest change as its anchor: memory does not grow."""

    name = "online_ewc"
    config_class = EwcConfig
    inert: ClassVar[dict[str, Any]] = {"online_ewc_strength": 0.0}

    @property
    def strength(self) -> float:
        value: float = self.config.online_ewc_strength
        return value

    def consolidate(self, task: int, rollouts: Rollouts) -> None:
        if self.strength == 0.0:
            return
        found = self.measure(rollouts)
        if self.config.ewc_normalize:
            found = [tensor / tensor.norm().clamp_min(torch.finfo(tensor.dtype).tiny) for tensor in found]
        if self.springs is not None:
            torch._foreach_add_(found, self.springs.stiffness, alpha=self.config.online_ewc_decay)
        self.springs = Springs(found, self.weights.values())

    def state(self) -> dict[str, Any]:
        springs = None if self.springs is None else self.springs_state(self.springs)
        return {**super().state(), "springs": springs}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.springs = None if state["springs"] is None else self.read_springs(state["springs"])
