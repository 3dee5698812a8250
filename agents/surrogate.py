"""The loss of PPO and APPO: the clipped surrogate (Schulman et al. 2017, arXiv 1707.06347), value and entropy."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from agents.learner import Losses
from agents.losses import (
    action_log_probs,
    clipped_surrogate_loss,
    clipped_value_loss,
    entropy,
    explained_variance,
    normalized,
    value_loss,
)
from agents.rollout import Sequences
from policies import Policy


def surrogate_losses(
    policy: Policy,
    batch: Sequences,
    *,
    clip_range: float,
    value_cost: float,
    entropy_cost: float,
    total: Callable[[Tensor], Tensor],
    value_clip_range: float | None = None,
    normalize_advantages: bool = True,
) -> Losses:
    """The loss of a batch, a mean per step.

    Args:
        policy: the weights that learn.
        batch: unrolls with estimates.
        clip_range: of the probability ratio to the policy that acted.
        value_cost: weight of the value loss (half the squared error).
        entropy_cost: weight of the entropy bonus.
        total: sums over the processes that share a batch.
        value_clip_range: how far a value may move from `batch.values`; None for any distance.
        normalize_advantages: give the advantages mean 0 and deviation 1.
    """
    output = policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
    log_probs = action_log_probs(output.logits, batch.actions)
    advantages = normalized(batch.advantages, total) if normalize_advantages else batch.advantages
    policy_loss = clipped_surrogate_loss(log_probs, batch.log_probs, advantages, clip_range).mean()
    if value_clip_range is None:
        critic_loss = value_loss(output.value, batch.returns).mean()
    else:
        critic_loss = clipped_value_loss(output.value, batch.values, batch.returns, value_clip_range).mean()
    mean_entropy = entropy(output.logits).mean()
    log_ratio = (log_probs - batch.log_probs).detach()
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": critic_loss,
        "entropy": mean_entropy,
        "explained_variance": explained_variance(batch.values, batch.returns, total),
        # Schulman's estimator of the divergence from the old policy: unbiased and never negative.
        "approx_kl": (log_ratio.exp() - 1 - log_ratio).mean(),
        "clip_fraction": ((log_ratio.exp() - 1).abs() > clip_range).float().mean(),
    }
    return Losses(policy_loss + value_cost * critic_loss - entropy_cost * mean_entropy, metrics, output)
