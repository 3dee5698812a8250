"""The terms of the losses, as pure functions of tensors. None of them reduces; the algorithms sum or average.

Statistics of a batch are those of the whole batch, whose parts several processes may hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def action_log_probs(logits: Tensor, actions: Tensor) -> Tensor:
    """Log probability of `actions` (...) under categorical `logits` (..., A)."""
    return F.log_softmax(logits, dim=-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the categorical distributions with `logits` (..., A)."""
    log_probs = F.log_softmax(logits, dim=-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """REINFORCE with a baseline: minus log probability times advantage; the advantage carries no gradient."""
    return -log_probs * advantages.detach()


def clipped_surrogate_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> Tensor:
    """PPO's pessimistic surrogate (Schulman et al. 2017, arXiv 1707.06347, equation 7), negated.

    Args:
        log_probs: of the actions under the policy being trained, any shape.
        old_log_probs: of the same actions when they were chosen, same shape.
        advantages: same shape, without gradient.
        clip_range: the probability ratio gains nothing outside [1 - clip_range, 1 + clip_range].
    """
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def value_loss(values: Tensor, targets: Tensor) -> Tensor:
    """Half the squared error; the target carries no gradient."""
    return 0.5 * (values - targets.detach()).square()


def clipped_value_loss(values: Tensor, old_values: Tensor, targets: Tensor, clip_range: float) -> Tensor:
    """The larger of two half squared errors, with the value free and kept within `clip_range` of its old self.

    As in OpenAI's baselines (ppo2), which the published ProcGen curves come from.
    """
    near_old = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return torch.maximum(value_loss(values, targets), value_loss(near_old, targets))


Total = Callable[[Tensor], Tensor]
"""Sums a tensor over the processes that share a batch; the tensor itself where there is one process."""


def _alone(tensor: Tensor) -> Tensor:
    return tensor


def moments(values: Tensor, total: Total = _alone) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and variance (biased) of each row of `values` (k, n) over all processes, each (k,)."""
    counts = torch.full_like(values[:, 0], values.shape[1])
    sums = total(torch.stack([counts, values.sum(1)]))
    count, mean = sums[0], sums[1] / sums[0]
    return count, mean, total((values - mean.unsqueeze(1)).square().sum(1)) / count


def normalized(advantages: Tensor, total: Total = _alone) -> Tensor:
    """Advantages with mean 0 and deviation 1, so that the step does not depend on the scale of returns.

    Per batch, as in OpenAI's baselines. A single advantage stays as it is.
    """
    (count,), (mean,), (variance,) = moments(advantages.reshape(1, -1), total)
    deviation = (variance * count / (count - 1).clamp(min=1)).sqrt()
    return torch.where(count > 1, (advantages - mean) / (deviation + 1e-8), advantages)


def explained_variance(predictions: Tensor, targets: Tensor, total: Total = _alone) -> Tensor:
    """1 - Var(targets - predictions) / Var(targets), a scalar; nan where the targets do not vary."""
    rows = torch.stack([(targets - predictions).flatten(), targets.flatten()])
    _, _, (error, variance) = moments(rows, total)
    return torch.where(variance > 0.0, 1.0 - error / variance, torch.nan)
