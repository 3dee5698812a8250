"""IMPALA (Espeholt et al. 2018, arXiv 1802.01561): learning from rollouts of older weights, corrected by V-trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from agents.agent import Agent
from agents.config import AgentConfig, Count, Positive, Share
from agents.learner import Learner, Losses
from agents.losses import action_log_probs, entropy, explained_variance, policy_gradient_loss, value_loss
from agents.rollout import Batch, Sequences
from agents.vtrace import VTrace, vtrace
from common.config import OneOf, Range

PUBLISHED_BATCH = 32


@dataclass(frozen=True)
class ImpalaConfig(AgentConfig):
    """Hyperparameters; the defaults are those of the SRWM paper's reinforcement learning (Irie et al. 2022).

    Losses are sums over time and batch, so `learning_rate`, the costs and `max_grad_norm` belong to the batch size.

    Attributes:
        batch_unrolls: unrolls (rollouts of one environment, or what they are cut into) in one update.
            None: they are dealt into as few batches of up to 32, the published number, as possible, of sizes as equal
            as possible.
        passes: how often each unroll is used; 1 as published. V-trace corrects for the weights that changed in
            between, but nothing bounds how far they go: three passes can ruin a policy (docs/learning.md).
        optimizer: "rmsprop" as published, or "adam".
        rmsprop_alpha: decay of RMSProp's mean square.
        rmsprop_eps: added to RMSProp's root mean square.
        adam_eps: added to Adam's root mean square.
        rho_clip: upper bound of V-trace's importance weights.
        c_clip: upper bound of V-trace's trace-cutting weights.
        trace_lambda: factor of those weights; below 1, targets lean more on values and vary less.
        rollout_lag: 1 lets the environments step with the weights of before the present update, while it runs
            (V-trace corrects it); 0 alternates.
    """

    learning_rate_decay: bool = True
    batch_unrolls: Annotated[int | None, Count] = None
    passes: Annotated[int, Count] = 1
    optimizer: Annotated[str, OneOf(("rmsprop", "adam"))] = "rmsprop"
    rmsprop_alpha: Annotated[float, Range(0, 1, open_high=True)] = 0.99
    rmsprop_eps: Annotated[float, Positive] = 0.01
    adam_eps: Annotated[float, Positive] = 1e-5
    rho_clip: Annotated[float, Positive] = 1.0
    c_clip: Annotated[float, Positive] = 1.0
    trace_lambda: Annotated[float, Share] = 1.0
    rollout_lag: Annotated[int, Range(0, 1)] = 0

    @property
    def lag(self) -> int:
        return self.rollout_lag

    def batches_per_pass(self, num_envs: int) -> int:
        """Updates that one pass over a rollout of `num_envs` environments makes."""
        return -(-num_envs * self.unrolls // (self.batch_unrolls or PUBLISHED_BATCH))

    def largest_batch(self, num_envs: int) -> int:
        return self.horizon * -(-num_envs * self.unrolls // self.batches_per_pass(num_envs))

    def batch_problems(self, num_envs: int, processes: int) -> list[str]:
        unrolls = num_envs * self.unrolls
        what = "environments" if self.unrolls == 1 else "unrolls in a rollout"
        if self.batch_unrolls is not None and unrolls % self.batch_unrolls:
            return [
                f"batch_unrolls must divide the number of {what}, but {self.batch_unrolls} does not divide {unrolls}"
            ]
        parts = self.batches_per_pass(num_envs)
        if parts * processes > unrolls:
            return [
                f"{unrolls} {what} are dealt into {parts} batches, and each of {processes} processes has a "
                f"part of each: use at most {unrolls // parts} processes, or more environments"
            ]
        return []


class ImpalaLearner(Learner):
    """Follows the policy gradient of V-trace's advantages."""

    config: ImpalaConfig

    def make_optimizer(self) -> torch.optim.Optimizer:
        config, parameters = self.config, self.policy.parameters()
        if config.optimizer == "adam":
            return torch.optim.Adam(parameters, config.learning_rate, eps=config.adam_eps)
        return torch.optim.RMSprop(
            parameters, config.learning_rate, alpha=config.rmsprop_alpha, eps=config.rmsprop_eps
        )

    def batches(self, rollout: Batch) -> Iterator[Any]:
        """`passes` times all unrolls, in an order drawn anew, dealt into equal batches."""
        parts = self.config.batches_per_pass(rollout.actions.shape[1] * self.exchange.size)
        yield from self.passes(rollout.in_unrolls(self.config.unrolls), self.config.passes, parts)

    def loss_scale(self, batch: Batch | Sequences) -> float:
        # Sums over time and batch, as in the published code (torchbeast): the gradient's norm grows with the batch.
        return float(batch.actions.numel())

    def losses(self, batch: Batch) -> Losses:
        config = self.config
        output = self.policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
        # The last observation only bootstraps: from here on, index t is "observation t, then action t".
        logits, values, bootstrap = output.logits[:-1], output.value[:-1], output.value[-1]
        log_probs = action_log_probs(logits, batch.actions)
        estimates = self.estimate(batch, log_probs, values, bootstrap)
        policy_loss = self.policy_loss(log_probs, batch, estimates).sum()
        critic_loss = value_loss(values, estimates.targets).sum()
        mean_entropy = entropy(logits).mean()
        steps = self.loss_scale(batch)
        total = policy_loss + config.value_cost * critic_loss - config.entropy_cost * mean_entropy * steps
        log_ratio = (log_probs - batch.log_probs).detach()
        weights = log_ratio.exp()
        metrics = {
            "policy_loss": policy_loss / steps,
            "value_loss": critic_loss / steps,
            "entropy": mean_entropy,
            "explained_variance": explained_variance(values.detach(), estimates.targets, self.exchange.sum),
            # Weights of the policy that acted are 1 up to rounding, which is no clipping.
            "rho_clipped": (weights > 1.0001 * config.rho_clip).float().mean(),
            # Schulman's estimator of the divergence from the policy that acted: unbiased and never negative.
            "approx_kl": (weights - 1 - log_ratio).mean(),
        }
        return Losses(total, metrics, output)

    def policy_loss(self, log_probs: Tensor, batch: Batch, estimates: VTrace) -> Tensor:
        """The policy's loss at each step, (T, B)."""
        return policy_gradient_loss(log_probs, estimates.weighted_advantages)

    def estimate(self, batch: Batch, log_probs: Tensor, values: Tensor, bootstrap: Tensor) -> VTrace:
        """Value targets and advantages of a batch under the weights that learn."""
        config = self.config
        return vtrace(
            behaviour_log_probs=batch.log_probs,
            target_log_probs=log_probs,
            rewards=batch.rewards,
            # A value never crosses the end of an episode. Time limits count as ends: ProcGen does not tell them apart.
            discounts=config.discount * (~batch.dones).float(),
            values=values,
            bootstrap_value=bootstrap,
            rho_clip=config.rho_clip,
            c_clip=config.c_clip,
            trace_lambda=config.trace_lambda,
        )


class IMPALA(Agent):
    """Actor-learner with V-trace; `IMPALA("srwm", ProcgenVecEnv(["bigfish", "maze"])).learn(1_000_000)`."""

    algorithm = "impala"
    config_class = ImpalaConfig
    learner_class = ImpalaLearner
