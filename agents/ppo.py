"""PPO (Schulman et al. 2017, arXiv 1707.06347), recurrent: whole sequences in each minibatch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.base import Agent, Metrics
from agents.config import AgentConfig
from agents.gae import gae
from agents.losses import (
    action_log_probs,
    clipped_surrogate_loss,
    clipped_value_loss,
    entropy,
    explained_variance,
    value_loss,
)
from agents.rollout import Batch, map_tensors, select
from policies import State


@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """Hyperparameters; the defaults are OpenAI's for ProcGen (Cobbe et al. 2020, arXiv 1912.01588, appendix).

    Attributes:
        rollout_steps: steps of each environment between two phases of learning.
        epochs: passes over each rollout.
        minibatches: equal parts of each pass; for recurrent policies parts are groups of environments.
        adam_eps: Adam's epsilon.
        gae_lambda: of generalised advantage estimation.
        clip_range: of the probability ratio.
        value_clip_range: how far a value may move within one phase of learning; None for any distance.
    """

    learning_rate: float = 5e-4
    learning_rate_decay: bool = False
    discount: float = 0.999
    entropy_cost: float = 0.01
    value_cost: float = 0.5
    max_grad_norm: float = 0.5
    reward_transform: str = "normalize"
    rollout_steps: int = 256
    epochs: int = 3
    minibatches: int = 8
    adam_eps: float = 1e-5
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    value_clip_range: float | None = 0.2

    def problems(self, num_envs: int) -> list[str]:
        found = super().problems(num_envs)
        if self.minibatches < 1 or num_envs % self.minibatches:
            found.append(
                f"minibatches must divide the number of slots, but {self.minibatches} does not divide {num_envs}"
            )
        if self.epochs < 1:
            found.append(f"epochs must be at least 1, not {self.epochs}")
        for name in ("clip_range", "value_clip_range"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                found.append(f"{name} must be positive, not {value}")
        if not 0 < self.adam_eps < math.inf:
            found.append(f"adam_eps must be positive and finite, not {self.adam_eps}")
        if not 0 <= self.gae_lambda <= 1:
            found.append(f"gae_lambda must lie between 0 and 1, not {self.gae_lambda}")
        return found


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

    def select(self, columns: Tensor) -> Sequences:
        """The sequences with these numbers (n,)."""
        return select(self, columns)

    def one_step_each(self) -> Sequences:
        """Every step as a sequence of its own, for a policy without memory: (T, B, ...) -> (1, T * B, ...)."""
        return map_tensors(self, lambda x: x.flatten(0, 1).unsqueeze(0), _refuse)


def _refuse(state: Tensor) -> Tensor:
    raise ValueError("steps of a policy with memory cannot be taken out of their sequence")


class PPO(Agent):
    """Proximal policy optimisation; `PPO("feedforward", ProcgenVecEnv("starpilot")).learn(25_000_000)`.

    The policy's state is kept once per rollout and recomputed with resets while learning. Minibatches are groups of
    environments; for a policy without memory they are drawn from all steps, as OpenAI's are.
    """

    algorithm = "ppo"
    config_class = PPOConfig
    config: PPOConfig

    def _make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.policy.parameters(), self.config.learning_rate, eps=self.config.adam_eps)

    def update(self, batch: Batch) -> Metrics:
        """`epochs` passes over the rollout in `minibatches` parts."""
        sequences = self.estimate(batch)
        if not self.policy.is_recurrent:
            sequences = sequences.one_step_each()
        parts = [self._update_once(minibatch) for minibatch in self._minibatches(sequences)]
        return {
            **{tag: sum(part[tag] for part in parts) / len(parts) for tag in parts[0]},
            "explained_variance": explained_variance(sequences.values, sequences.returns),
        }

    @torch.no_grad()
    def estimate(self, batch: Batch) -> Sequences:
        """Advantages and returns of a rollout, with the value that follows its last action."""
        final = self.policy(
            batch.rgb[-1:], batch.reward_input[-1:], batch.final_state, batch.episode_start[-1:]
        )
        estimates = gae(
            batch.rewards,
            batch.values,
            batch.dones,
            final.value.squeeze(0),
            self.config.discount,
            self.config.gae_lambda,
        )
        return Sequences(
            rgb=batch.rgb[:-1],
            reward_input=batch.reward_input[:-1],
            episode_start=batch.episode_start[:-1],
            actions=batch.actions,
            log_probs=batch.log_probs,
            values=batch.values,
            advantages=estimates.advantages,
            returns=estimates.returns,
            initial_state=batch.initial_state,
        )

    def _minibatches(self, sequences: Sequences) -> Iterator[Sequences]:
        count = sequences.actions.shape[1]
        for _ in range(self.config.epochs):
            order = torch.randperm(count, generator=self._random.shuffling).to(self.device)
            for columns in order.split(count // self.config.minibatches):
                yield sequences.select(columns)

    def losses(self, minibatch: Sequences) -> dict[str, Tensor]:
        """The terms of the loss and the loss itself for one minibatch, as means, with gradient."""
        config = self.config
        output = self.policy(
            minibatch.rgb, minibatch.reward_input, minibatch.initial_state, minibatch.episode_start
        )
        log_probs = action_log_probs(output.logits, minibatch.actions)
        advantages = minibatch.advantages
        if advantages.numel() > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = clipped_surrogate_loss(
            log_probs, minibatch.log_probs, advantages, config.clip_range
        ).mean()
        if config.value_clip_range is None:
            critic_loss = value_loss(output.value, minibatch.returns).mean()
        else:
            critic_loss = clipped_value_loss(
                output.value, minibatch.values, minibatch.returns, config.value_clip_range
            ).mean()
        mean_entropy = entropy(output.logits).mean()
        log_ratio = (log_probs - minibatch.log_probs).detach()
        return {
            "loss": policy_loss + config.value_cost * critic_loss - config.entropy_cost * mean_entropy,
            "policy_loss": policy_loss,
            "value_loss": critic_loss,
            "entropy": mean_entropy,
            # Schulman's estimator of the divergence from the old policy: unbiased and never negative.
            "approx_kl": (log_ratio.exp() - 1 - log_ratio).mean(),
            "clip_fraction": ((log_ratio.exp() - 1).abs() > config.clip_range).float().mean(),
        }

    def _update_once(self, minibatch: Sequences) -> Metrics:
        terms = self.losses(minibatch)
        grad_norm = self._step_optimizer(terms["loss"], minibatch)
        return {**{tag: term.item() for tag, term in terms.items()}, "grad_norm": grad_norm.item()}
