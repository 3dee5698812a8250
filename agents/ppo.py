"""PPO (Schulman et al. 2017, arXiv 1707.06347), recurrent: whole unrolls in each minibatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch

from agents.agent import Agent
from agents.config import AgentConfig, Count, Positive, Share
from agents.gae import gae
from agents.learner import Learner, Losses
from agents.rewards import REWARD_TRANSFORMS
from agents.rollout import Batch, Sequences
from agents.surrogate import surrogate_losses
from common.config import OneOf


@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """Hyperparameters; the defaults are OpenAI's for ProcGen (Cobbe et al. 2020, arXiv 1912.01588, appendix).

    Attributes:
        epochs: passes over each rollout.
        minibatches: equal parts of each pass; for recurrent policies parts are groups of unrolls.
        adam_eps: Adam's epsilon.
        gae_lambda: of generalised advantage estimation.
        clip_range: of the probability ratio.
        value_clip_range: how far a value may move within one phase of learning; None for any distance.
    """

    learning_rate: Annotated[float, Positive] = 5e-4
    discount: Annotated[float, Share] = 0.999
    max_grad_norm: Annotated[float, Positive] = 0.5
    reward_transform: Annotated[str, OneOf(REWARD_TRANSFORMS, "reward transform")] = "normalize"
    rollout_steps: Annotated[int, Count] = 256
    epochs: Annotated[int, Count] = 3
    minibatches: Annotated[int, Count] = 8
    adam_eps: Annotated[float, Positive] = 1e-5
    gae_lambda: Annotated[float, Share] = 0.95
    clip_range: Annotated[float, Positive] = 0.2
    value_clip_range: Annotated[float | None, Positive] = 0.2

    def largest_batch(self, num_envs: int) -> int:
        return self.rollout_steps * num_envs // self.minibatches

    def batch_problems(self, num_envs: int, processes: int) -> list[str]:
        whose, own = ("", num_envs) if processes == 1 else (" of each process", num_envs // processes)
        own *= self.unrolls
        what = "environments" if self.unrolls == 1 else "unrolls in a rollout"
        if own % self.minibatches == 0:
            return []
        return [
            f"minibatches must divide the number of {what}{whose}, but {self.minibatches} does not divide {own}"
        ]


class PPOLearner(Learner):
    """Several passes over each rollout, each bounded by clipping.

    The policy's state is kept where unrolls begin and recomputed with resets while learning. Minibatches are groups
    of unrolls; for a policy without memory they are drawn from all steps, as OpenAI's are.
    """

    config: PPOConfig

    def make_optimizer(self) -> torch.optim.Optimizer:
        # epsilon 1e-5 as in OpenAI's baselines, not torch's 1e-8: the first steps are smaller.
        return torch.optim.Adam(self.policy.parameters(), self.config.learning_rate, eps=self.config.adam_eps)

    def batches(self, rollout: Batch) -> Iterator[Sequences]:
        """`epochs` passes over the rollout in `minibatches` parts."""
        sequences = self.mixed(self.estimate(rollout), rollout.states)
        yield from self.passes(sequences, self.config.epochs, self.config.minibatches)

    @torch.no_grad()
    def estimate(self, rollout: Batch) -> Sequences:
        """Advantages and returns of a rollout, with the value that follows its last action."""
        final = self.policy(
            rollout.rgb[-1:], rollout.reward_input[-1:], rollout.final_state, rollout.episode_start[-1:]
        )
        estimates = gae(
            rollout.rewards,
            rollout.values,
            rollout.dones,
            final.value.squeeze(0),
            self.config.discount,
            self.config.gae_lambda,
        )
        return Sequences.of(rollout, rollout.values, estimates.advantages, estimates.returns)

    def losses(self, batch: Sequences) -> Losses:
        config = self.config
        losses = surrogate_losses(
            self.policy,
            batch,
            clip_range=config.clip_range,
            value_cost=config.value_cost,
            entropy_cost=config.entropy_cost,
            total=self.exchange.sum,
            value_clip_range=config.value_clip_range,
        )
        return losses._replace(total=self.loss_scale(batch) * losses.total)


class PPO(Agent):
    """Proximal policy optimisation; `PPO("feedforward", ProcgenVecEnv("starpilot")).learn(25_000_000)`."""

    algorithm = "ppo"
    config_class = PPOConfig
    learner_class = PPOLearner
