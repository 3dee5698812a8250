"""IMPALA (Espeholt et al. 2018, arXiv 1802.01561): learning from rollouts of older weights, corrected by V-trace."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.base import Agent, Metrics
from agents.config import AgentConfig
from agents.losses import action_log_probs, entropy, explained_variance, policy_gradient_loss, value_loss
from agents.rollout import Batch
from agents.vtrace import VTrace, vtrace

PUBLISHED_BATCH = 32


@dataclass(frozen=True)
class ImpalaConfig(AgentConfig):
    """Hyperparameters; the defaults are those of the SRWM paper's reinforcement learning (Irie et al. 2022).

    Losses are sums over time and batch, so `learning_rate`, the costs and `max_grad_norm` belong to the batch size.

    Attributes:
        rollout_steps: steps of an unroll, through which gradient flows.
        batch_unrolls: unrolls in one update. None: the largest number up to 32, the published one, that divides the
            number of environments.
        passes: how often each unroll is used; 1 as published. V-trace corrects for the weights that changed in
            between, but nothing bounds how far they go: three passes can ruin a policy (docs/learning.md).
        rmsprop_alpha: decay of RMSProp's mean square.
        rmsprop_eps: added to RMSProp's root mean square.
        rho_clip: upper bound of V-trace's importance weights.
        c_clip: upper bound of V-trace's trace-cutting weights.
        trace_lambda: factor of those weights; below 1, targets lean more on values and vary less.
        rollout_lag: 1 lets the environments step with the weights of before the present update, while it runs
            (V-trace corrects it). 0 alternates, and repeats exactly.
    """

    learning_rate: float = 6e-4
    learning_rate_decay: bool = True
    discount: float = 0.99
    entropy_cost: float = 0.01
    value_cost: float = 0.5
    max_grad_norm: float = 40.0
    reward_transform: str = "clip"
    rollout_steps: int = 50
    batch_unrolls: int | None = None
    passes: int = 1
    rmsprop_alpha: float = 0.99
    rmsprop_eps: float = 0.01
    rho_clip: float = 1.0
    c_clip: float = 1.0
    trace_lambda: float = 1.0
    rollout_lag: int = 0

    @property
    def lag(self) -> int:
        return self.rollout_lag

    def unrolls_per_update(self, num_envs: int) -> int:
        """`batch_unrolls`, or what None stands for with `num_envs` environments."""
        if self.batch_unrolls is not None:
            return self.batch_unrolls
        return max(n for n in range(1, min(PUBLISHED_BATCH, num_envs) + 1) if num_envs % n == 0)

    def problems(self, num_envs: int) -> list[str]:
        found = super().problems(num_envs)
        if self.batch_unrolls is not None and (self.batch_unrolls < 1 or num_envs % self.batch_unrolls):
            found.append(
                f"batch_unrolls must divide the number of slots, but {self.batch_unrolls} does not divide {num_envs}"
            )
        if self.passes < 1:
            found.append(f"passes must be at least 1, not {self.passes}")
        if not 0 <= self.rmsprop_alpha < 1:
            found.append(f"rmsprop_alpha must be at least 0 and below 1, not {self.rmsprop_alpha}")
        for name in ("rmsprop_eps", "rho_clip", "c_clip"):
            if not 0 < getattr(self, name) < math.inf:
                found.append(f"{name} must be positive and finite, not {getattr(self, name)}")
        if not 0 <= self.trace_lambda <= 1:
            found.append(f"trace_lambda must lie between 0 and 1, not {self.trace_lambda}")
        if self.rollout_lag not in (0, 1):
            found.append(f"rollout_lag must be 0 or 1, not {self.rollout_lag}")
        return found


class IMPALA(Agent):
    """Actor-learner with V-trace; `IMPALA("srwm", ProcgenVecEnv(["bigfish", "maze"])).learn(1_000_000)`."""

    algorithm = "impala"
    config_class = ImpalaConfig
    config: ImpalaConfig

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.RMSprop(
            self.policy.parameters(), config.learning_rate, alpha=config.rmsprop_alpha, eps=config.rmsprop_eps
        )

    def update(self, batch: Batch) -> Metrics:
        """`passes` times, one update for each group of `batch_unrolls` environments."""
        num_envs = batch.actions.shape[1]
        parts = []
        for _ in range(self.config.passes):
            order = torch.randperm(num_envs, generator=self._random.shuffling).to(self.device)
            for group in order.split(self.config.unrolls_per_update(num_envs)):
                parts.append(self._update_once(batch.select(group)))
        return {tag: sum(part[tag] for part in parts) / len(parts) for tag in parts[0]}

    def _update_once(self, batch: Batch) -> Metrics:
        config = self.config
        output = self.policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
        # The last observation only bootstraps: from here on, index t is "observation t, then action t".
        logits, values, bootstrap = output.logits[:-1], output.value[:-1], output.value[-1]
        log_probs = action_log_probs(logits, batch.actions)
        estimates = self._estimates(batch, log_probs, values, bootstrap)
        policy_loss = policy_gradient_loss(log_probs, estimates.advantages).sum()
        critic_loss = value_loss(values, estimates.targets).sum()
        mean_entropy = entropy(logits).mean()
        loss = (
            policy_loss
            + config.value_cost * critic_loss
            - config.entropy_cost * mean_entropy * batch.actions.numel()
        )
        grad_norm = self._step_optimizer(loss, batch)
        with torch.no_grad():
            weights = torch.exp(log_probs - batch.log_probs)
        steps = batch.actions.numel()
        return {
            "loss": loss.item() / steps,
            "policy_loss": policy_loss.item() / steps,
            "value_loss": critic_loss.item() / steps,
            "entropy": mean_entropy.item(),
            "grad_norm": grad_norm.item(),
            "explained_variance": explained_variance(values.detach(), estimates.targets),
            "rho_clipped": (weights > config.rho_clip).float().mean().item(),
        }

    def _estimates(self, batch: Batch, log_probs: Tensor, values: Tensor, bootstrap: Tensor) -> VTrace:
        config = self.config
        return vtrace(
            behaviour_log_probs=batch.log_probs,
            target_log_probs=log_probs,
            rewards=batch.rewards,
            discounts=config.discount * (~batch.dones).float(),
            values=values,
            bootstrap_value=bootstrap,
            rho_clip=config.rho_clip,
            c_clip=config.c_clip,
            trace_lambda=config.trace_lambda,
        )
