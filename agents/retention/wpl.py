"""The weight plasticity loss (Benyahia, Yu et al. 2019, arXiv 1902.08232): several policies on one encoder.

Model 1 has private weights theta_1 (core and heads) and shares theta_s (the encoder) with model 2, which is trained
after it. With v = theta_s - theta_s*, and H the Fisher information of model 1 in blocks,

    L_2 + strength / 2 * v' Omega v,    Omega = H_ss - H_s1 H_11^-1 H_1s

is the price for model 1. The published loss leaves the cross term out and keeps the diagonal of H_ss (``diagonal``).
With it (``schur``), the price is that which is left once model 1's private weights have adapted again. From gradients
G_1 (K, p_1) and G_s (K, p_s) of K unrolls, with H = floor I + G'G / K,

    v' Omega v = floor |v|^2 + u' M u / K,    u = G_s v,    M = (I + G_1 G_1' / (floor K))^-1

In published code, the strength multiplies the stored Fisher information at each update, so that it compounds until a
clip of its norm holds it; here it does not, and the clip is on what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from torch import Tensor

from agents.retention.base import ConsolidationConfig, Rollouts
from agents.retention.consolidation import Consolidating
from agents.retention.fisher import FisherConfig, drawn_score, measured, output_of
from agents.retention.quadratic import QuadraticConfig, QuadraticPenalty, Springs
from agents.retention.stored import check_kinds
from agents.retention.weights import Tensors, Weights
from agents.rollout import Batch
from agents.schema import Number
from common.config import OneOf, Range

if TYPE_CHECKING:
    from agents.learner import Learner

DIAGONAL, SCHUR = "diagonal", "schur"
SHARED = "encoder."
"""What the names of the weights begin with that all policies share."""


@dataclass(frozen=True)
class WplConfig(FisherConfig, QuadraticConfig, ConsolidationConfig):
    """Settings of the weight plasticity loss.

    Attributes:
        wpl_form: wpl: diagonal, as published, or schur, with its cross term.
        wpl_strength: wpl: weight of the penalty.
        wpl_rate: wpl: diagonal: how far each consolidation moves the running sensitivities towards its own.
        wpl_clip: wpl: diagonal: largest norm of the sensitivities of one tensor.
        wpl_unrolls: wpl: schur: unrolls whose gradients are kept, each as large as the encoder.
        wpl_floor: wpl: schur: what is added to the diagonal of the Fisher information.
    """

    wpl_form: Annotated[str, OneOf((DIAGONAL, SCHUR))] = DIAGONAL
    wpl_strength: Annotated[float, Range(0)] = 60.0
    wpl_rate: Annotated[float, Range(0, 1, open_low=True)] = 0.9
    wpl_clip: Annotated[float, Range(0, open_low=True)] = 10.0
    wpl_unrolls: Annotated[int, Range(1, 10_000)] = 32
    wpl_floor: Annotated[float, Range(0, open_low=True)] = 1e-3

    def contradictions(self) -> list[str]:
        """What does not go together."""
        if self.wpl_form == SCHUR and self.decoupled:
            return ["retain.wpl_form schur has no decoupled step: use diagonal, or leave decoupled out"]
        return []


@dataclass
class CrossTerm:
    """The penalty of the Schur form.

    Attributes:
        gradients: G_s (K, p_s).
        inner: M (K, K).
        floor: of the diagonal.
        anchor: theta_s* (p_s,).
    """

    gradients: Tensor
    inner: Tensor
    floor: float
    anchor: Tensor

    @classmethod
    def of(cls, private: Tensor, shared: Tensor, floor: float, anchor: Tensor) -> CrossTerm:
        """From the gradients (K, p_1) and (K, p_s) of K unrolls."""
        count = len(shared)
        identity = torch.eye(count, dtype=shared.dtype, device=shared.device)
        inner = torch.linalg.inv(identity + private @ private.t() / (floor * count))
        return cls(shared, inner, floor, anchor)

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """1/2 v' Omega v and its gradient Omega v at theta_s (p_s,)."""
        v = theta - self.anchor
        pull = self.floor * v + self.gradients.t() @ (self.inner @ (self.gradients @ v)) / len(self.gradients)
        return 0.5 * v.dot(pull), pull


class WeightPlasticityLoss(Consolidating, QuadraticPenalty):
    """Holds the shared weights; private ones are free."""

    name = "wpl"
    config_class = WplConfig
    inert: ClassVar[dict[str, Any]] = {"wpl_strength": 0.0}
    cross_term: CrossTerm | None = None

    @property
    def strength(self) -> float:
        value: float = self.config.wpl_strength
        return value

    def protected(self, learner: Learner) -> Weights:
        return Weights((n, p) for n, p in learner.policy.named_parameters() if n.startswith(SHARED))

    def private(self) -> Weights:
        """The weights that are not shared."""
        named = self.learner.policy.named_parameters()
        return Weights((name, parameter) for name, parameter in named if not name.startswith(SHARED))

    def consolidate(self, task: int, rollouts: Rollouts) -> None:
        if self.strength == 0.0:
            return
        if self.config.wpl_form == SCHUR:
            self.cross_term = self._measured_cross_term(rollouts)
            return
        found = measured(
            self.config, self.learner, self.weights, rollouts(self.config.consolidation_rollouts)
        )
        if self.springs is not None:
            torch._foreach_lerp_(found, self.springs.stiffness, 1.0 - self.config.wpl_rate)
        clip = self.config.wpl_clip
        found = [tensor * (clip / tensor.norm().clamp_min(clip)) for tensor in found]
        self.springs = Springs(found, self.weights.values())

    def _measured_cross_term(self, rollouts: Rollouts) -> CrossTerm:
        private, kept = self.private(), []
        count, value_cost = self.config.wpl_unrolls, self.learner.config.value_cost
        for unroll in single_unrolls(rollouts, count, self.config.consolidation_rollouts):
            output = output_of(self.learner.policy, unroll)
            score = drawn_score(
                output, value_cost if self.config.protect_value else 0.0, self.learner.replaying
            )
            # Per step, as all sensitivities are.
            kept.append(_gradients(score / len(unroll.actions) ** 0.5, private, self.weights))
        own, shared = (torch.stack(rows) for rows in zip(*kept, strict=True))
        return CrossTerm.of(own, shared, self.config.wpl_floor, _flat(self.weights.values()))

    @torch.no_grad()
    def add_gradients(self, scale: float) -> dict[str, Tensor]:
        found = super().add_gradients(scale)
        if self.cross_term is None or self.strength == 0.0:
            return found
        value, pull = self.cross_term(_flat(self.weights.parameters))
        sizes = [parameter.numel() for parameter in self.weights.parameters]
        for gradient, part in zip(self.weights.gradients(), pull.split(sizes), strict=True):
            gradient.add_(part.view(gradient.shape), alpha=self.strength * scale)
        return {**found, f"{self.name}_penalty": self.strength * value}

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "springs": None if self.springs is None else self.springs_state(self.springs),
            "cross_term": None if self.cross_term is None else vars(self.cross_term),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.springs = None if state["springs"] is None else self.read_springs(state["springs"])
        stored = state["cross_term"]
        self.cross_term = None if stored is None else self._read_cross_term(dict(stored))

    def _read_cross_term(self, stored: dict[str, Any]) -> CrossTerm:
        """What a checkpoint holds of it, which may be of another network."""
        floor = stored.pop("floor")
        Number().check(floor, "cross_term/floor")
        size = sum(parameter.numel() for parameter in self.weights.parameters)
        count = len(stored["gradients"])
        shapes = {"gradients": (count, size), "inner": (count, count), "anchor": (size,)}
        check_kinds(stored, {name: (shape, True) for name, shape in shapes.items()}, "the cross term")
        device = self.learner.policy.device
        return CrossTerm(**{name: tensor.to(device) for name, tensor in stored.items()}, floor=floor)


def single_unrolls(rollouts: Rollouts, count: int, rollout_count: int) -> Iterator[Batch]:
    """So many unrolls, as many from each rollout."""
    each = -(-count // rollout_count)

    def all_of_them() -> Iterator[Batch]:
        for rollout in rollouts(rollout_count):
            for env in range(min(each, rollout.actions.shape[1])):
                yield rollout.select(torch.tensor([env], device=rollout.actions.device))

    return islice(all_of_them(), count)


def _gradients(objective: Tensor, private: Weights, shared: Weights) -> tuple[Tensor, Tensor]:
    parameters = [*private.parameters, *shared.parameters]
    whole = list(torch.autograd.grad(objective, parameters, materialize_grads=True))
    border = len(private.parameters)
    return _flat(whole[:border]), _flat(whole[border:])


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
