"""APPO: IMPALA's actors and V-trace with PPO's clipped surrogate, so that each rollout can be learned from repeatedly.

As in sample-factory (Petrenko et al. 2020, arXiv 2006.11751, section 3.3): V-trace corrects the estimates for weights
that have moved since the rollout was played, clipping bounds how far they move. Estimates are made once, of whole
rollouts, before the first of several passes: later the value function has been fitted to them, and what it leaves is
their noise. Without clipping it is IMPALA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from agents.agent import Agent
from agents.config import Count, Positive, Share
from agents.impala import ImpalaConfig, ImpalaLearner
from agents.learner import Losses
from agents.losses import action_log_probs
from agents.rewards import REWARD_TRANSFORMS
from agents.rollout import Batch, Sequences
from agents.surrogate import surrogate_losses
from common.config import OneOf

BATCH_STEPS = 2048


@dataclass(frozen=True)
class AppoConfig(ImpalaConfig):
    """Hyperparameters; the defaults are OpenAI's for PPO on ProcGen (Cobbe et al. 2020) where the two meet.

    Attributes:
        batch_unrolls: unrolls in one update. None: they are dealt into as few batches of up to 2,048 steps as possible,
            of sizes as equal as possible.
        passes: how often each unroll is used; V-trace corrects for the weights that changed since it was played, and
            clipping bounds how far they go.
        clip_range: of the probability ratio to the policy that acted; None for IMPALA, whatever the number of passes.
        normalize_advantages: give the advantages of each batch mean 0 and deviation 1.
    """

    learning_rate: Annotated[float, Positive] = 5e-4
    learning_rate_decay: bool = False
    discount: Annotated[float, Share] = 0.999
    # Of a sum over the 2,000 or so steps of a batch: a quarter for their mean, of which PPO's is 0.5.
    max_grad_norm: Annotated[float, Positive] = 500.0
    reward_transform: Annotated[str, OneOf(REWARD_TRANSFORMS, "reward transform")] = "normalize"
    rollout_steps: Annotated[int, Count] = 256
    optimizer: Annotated[str, OneOf(("rmsprop", "adam"))] = "adam"
    passes: Annotated[int, Count] = 3
    trace_lambda: Annotated[float, Share] = 0.95
    clip_range: Annotated[float | None, Positive] = 0.2
    normalize_advantages: bool = True

    def batches_per_pass(self, num_envs: int) -> int:
        if self.batch_unrolls is not None:
            return super().batches_per_pass(num_envs)
        return min(num_envs * self.unrolls, -(-num_envs * self.rollout_steps // BATCH_STEPS))


class AppoLearner(ImpalaLearner):
    """Follows the clipped surrogate of V-trace's advantages."""

    config: AppoConfig

    def batches(self, rollout: Batch) -> Iterator[Batch | Sequences]:
        """`passes` times all steps: in unrolls, or one by one for a policy without memory."""
        if self.config.clip_range is None:
            yield from super().batches(rollout)
            return
        parts = self.config.batches_per_pass(rollout.actions.shape[1] * self.exchange.size)
        sequences = self.mixed(self.estimated(rollout), rollout.states)
        yield from self.passes(sequences, self.config.passes, parts)

    @torch.no_grad()
    def estimated(self, rollout: Batch) -> Sequences:
        """A rollout with V-trace's estimates under the weights as they are, made in parts of a batch's size."""
        num_envs = rollout.actions.shape[1]
        size = max(1, self.config.largest_batch(num_envs) // self.config.rollout_steps)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for envs in torch.arange(num_envs, device=rollout.actions.device).split(size):
            part = rollout.select(envs)
            output = self.policy(part.rgb, part.reward_input, part.initial_state, part.episode_start)
            values = output.value[:-1]
            log_probs = action_log_probs(output.logits[:-1], part.actions)
            estimates = self.estimate(part, log_probs, values, output.value[-1])
            found.append((values, estimates.advantages, estimates.targets))
        return Sequences.of(rollout, *(torch.cat(each, dim=1) for each in zip(*found, strict=True)))

    def losses(self, batch: Batch | Sequences) -> Losses:
        if isinstance(batch, Batch):
            return super().losses(batch)
        config = self.config
        assert config.clip_range is not None
        losses = surrogate_losses(
            self.policy,
            batch,
            clip_range=config.clip_range,
            value_cost=config.value_cost,
            entropy_cost=config.entropy_cost,
            total=self.exchange.sum,
            normalize_advantages=config.normalize_advantages,
        )
        return losses._replace(total=self.loss_scale(batch) * losses.total)


class APPO(Agent):
    """Asynchronous PPO; `APPO("srwm", ProcgenVecEnv("starpilot")).learn(1_000_000)`."""

    algorithm = "appo"
    config_class = AppoConfig
    learner_class = AppoLearner
