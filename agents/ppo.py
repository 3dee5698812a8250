"""PPO (Schulman et al. 2017, arXiv 1707.06347), recurrent: whole unrolls in each minibatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from agents.agent import Agent
from agents.config import AgentConfig, Count, Positive, Share
from agents.gae import gae
from agents.learner import Learner, Losses
from agents.losses import (
    action_log_probs,
    clipped_surrogate_loss,
    clipped_value_loss,
    entropy,
    explained_variance,
    normalized,
    value_loss,
)
from agents.rewards import REWARD_TRANSFORMS
from agents.rollout import Batch, in_unrolls, map_tensors, select
from common.config import OneOf
from policies import TASK, State


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


@dataclass(frozen=True)
class Sequences:
    """A rollout as the learner of PPO takes it; as `Batch`, without the last observation and with estimates.

    All tensors are (T, B, ...) except the state, which is batch first.
    """

    rgb: Tensor
    reward_input: Tensor
    episode_start: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    initial_state: State
    targets: Tensor | None = None

    def select(self, columns: Tensor) -> Sequences:
        """The sequences with these numbers (n,)."""
        return select(self, columns)

    def one_step_each(self) -> Sequences:
        """Every step as a sequence of its own, for a policy without memory: (T, B, ...) -> (1, T * B, ...)."""
        if not self.initial_state.keys() <= {TASK}:
            raise ValueError("steps of a policy with memory cannot be taken out of their sequence")
        steps = len(self.actions)
        return map_tensors(self, lambda x: x.flatten(0, 1).unsqueeze(0), lambda task: task.repeat(steps))


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
        sequences = self.estimate(rollout)
        if not self.policy.is_recurrent:
            sequences = sequences.one_step_each()
        elif self.config.unrolls > 1:
            steps, count = len(rollout.actions), self.config.unrolls
            sequences = in_unrolls(sequences, rollout.states, steps, count)
        count = sequences.actions.shape[1]
        for _ in range(self.config.epochs):
            for part in self.dealt(count, self.config.minibatches):
                yield sequences.select(part.to(sequences.actions.device))

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
        return Sequences(
            rgb=rollout.rgb[:-1],
            reward_input=rollout.reward_input[:-1],
            episode_start=rollout.episode_start[:-1],
            actions=rollout.actions,
            log_probs=rollout.log_probs,
            values=rollout.values,
            advantages=estimates.advantages,
            returns=estimates.returns,
            initial_state=rollout.initial_state,
            targets=rollout.targets,
        )

    def losses(self, batch: Sequences) -> Losses:
        config = self.config
        output = self.policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
        log_probs = action_log_probs(output.logits, batch.actions)
        advantages = normalized(batch.advantages, self.exchange.sum)
        policy_loss = clipped_surrogate_loss(log_probs, batch.log_probs, advantages, config.clip_range).mean()
        if config.value_clip_range is None:
            critic_loss = value_loss(output.value, batch.returns).mean()
        else:
            critic_loss = clipped_value_loss(
                output.value, batch.values, batch.returns, config.value_clip_range
            ).mean()
        mean_entropy = entropy(output.logits).mean()
        log_ratio = (log_probs - batch.log_probs).detach()
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": critic_loss,
            "entropy": mean_entropy,
            "explained_variance": explained_variance(batch.values, batch.returns, self.exchange.sum),
            # Schulman's estimator of the divergence from the old policy: unbiased and never negative.
            "approx_kl": (log_ratio.exp() - 1 - log_ratio).mean(),
            "clip_fraction": ((log_ratio.exp() - 1).abs() > config.clip_range).float().mean(),
        }
        total = policy_loss + config.value_cost * critic_loss - config.entropy_cost * mean_entropy
        return Losses(self.loss_scale(batch) * total, metrics, output)


class PPO(Agent):
    """Proximal policy optimisation; `PPO("feedforward", ProcgenVecEnv("starpilot")).learn(25_000_000)`."""

    algorithm = "ppo"
    config_class = PPOConfig
    learner_class = PPOLearner
