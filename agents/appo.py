"""APPO: IMPALA's actors and V-trace with PPO's clipped surrogate, so that each rollout can be learned from repeatedly.

As in sample-factory (Petrenko et al. 2020, arXiv 2006.11751, section 3.3): V-trace corrects the estimates for weights
that have moved since the rollout was played, clipping bounds how far they move. Estimates are made when an unroll is
first used, and kept for later passes: by then the value function has been fitted to them, and what it leaves is their
noise. Without clipping, with one pass, it is IMPALA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from agents.agent import Agent
from agents.config import Count, Positive, Share
from agents.impala import ImpalaConfig, ImpalaLearner
from agents.losses import clipped_surrogate_loss, normalized
from agents.rewards import REWARD_TRANSFORMS
from agents.rollout import Batch
from agents.vtrace import VTrace
from common.config import OneOf


@dataclass(frozen=True)
class AppoConfig(ImpalaConfig):
    """Hyperparameters; the defaults are OpenAI's for PPO on ProcGen (Cobbe et al. 2020) where the two meet.

    Attributes:
        passes: how often each unroll is used; V-trace corrects for the weights that changed in between, and clipping
            bounds how far they go.
        clip_range: of the probability ratio to the policy that acted; None for IMPALA's policy gradient.
        normalize_advantages: give the advantages of each batch mean 0 and deviation 1.
    """

    learning_rate: Annotated[float, Positive] = 5e-4
    learning_rate_decay: bool = False
    discount: Annotated[float, Share] = 0.999
    # Of a sum over the 1,000 or so steps of a batch: 0.5 for their mean, as PPO has it.
    max_grad_norm: Annotated[float, Positive] = 500.0
    reward_transform: Annotated[str, OneOf(REWARD_TRANSFORMS, "reward transform")] = "normalize"
    optimizer: Annotated[str, OneOf(("rmsprop", "adam"))] = "adam"
    passes: Annotated[int, Count] = 3
    trace_lambda: Annotated[float, Share] = 0.95
    clip_range: Annotated[float | None, Positive] = 0.2
    normalize_advantages: bool = True


@dataclass(frozen=True, kw_only=True)
class ReusedBatch(Batch):
    """Unrolls with what V-trace said of them when they were first used, each (T, B)."""

    value_targets: Tensor
    advantages: Tensor
    weighted_advantages: Tensor


_KEPT = ("value_targets", "advantages", "weighted_advantages")


class AppoLearner(ImpalaLearner):
    """Follows the clipped surrogate of V-trace's advantages."""

    config: AppoConfig
    _fresh: Batch | None = None
    _estimates: VTrace | None = None

    def batches(self, rollout: Batch) -> Iterator[Batch]:
        """As IMPALA's; from the second pass on, with the estimates of the first."""
        parts = self.config.batches_per_pass(rollout.actions.shape[1] * self.exchange.size)
        rollout = rollout.in_unrolls(self.config.unrolls)
        count = rollout.actions.shape[1]
        used: list[tuple[Tensor, VTrace]] = []
        for unrolls in self.dealt(count, parts):
            self._fresh = rollout.select(unrolls.to(rollout.actions.device))
            yield self._fresh
            assert self._estimates is not None
            used.append((unrolls, self._estimates))
        order = torch.cat([unrolls for unrolls, _ in used]).argsort().to(rollout.actions.device)
        kept = [torch.cat(found, 1)[:, order] for found in zip(*(found for _, found in used), strict=True)]
        known: dict[str, Any] = {**vars(rollout), **dict(zip(_KEPT, kept, strict=True))}
        whole = ReusedBatch(**known)
        for _ in range(self.config.passes - 1):
            for unrolls in self.dealt(count, parts):
                yield whole.select(unrolls.to(rollout.actions.device))

    def estimate(self, batch: Batch, log_probs: Tensor, values: Tensor, bootstrap: Tensor) -> VTrace:
        if isinstance(batch, ReusedBatch):
            return VTrace(batch.value_targets, batch.advantages, batch.weighted_advantages)
        found = super().estimate(batch, log_probs, values, bootstrap)
        if batch is self._fresh:
            self._estimates = found
        return found

    def policy_loss(self, log_probs: Tensor, batch: Batch, estimates: VTrace) -> Tensor:
        if self.config.clip_range is None:
            return super().policy_loss(log_probs, batch, estimates)
        advantages = estimates.advantages
        if self.config.normalize_advantages:
            advantages = normalized(advantages, self.exchange.sum)
        return clipped_surrogate_loss(log_probs, batch.log_probs, advantages, self.config.clip_range)


class APPO(Agent):
    """Asynchronous PPO; `APPO("srwm", ProcgenVecEnv("starpilot")).learn(1_000_000)`."""

    algorithm = "appo"
    config_class = AppoConfig
    learner_class = AppoLearner
