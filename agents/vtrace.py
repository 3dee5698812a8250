"""V-trace targets and policy-gradient advantages (IMPALA, Espeholt et al. 2018, arXiv 1802.01561, section 4.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class VTrace(NamedTuple):
    """V-trace estimates for an unroll; neither carries gradient.

    Attributes:
        targets: value targets v_s, (T, B).
        advantages: r_s + gamma_s v_{s+1} - V(x_s), (T, B).
        weighted_advantages: rho_s times that: what the policy gradient of the paper follows, (T, B).
    """

    targets: Tensor
    advantages: Tensor
    weighted_advantages: Tensor


@torch.no_grad()
def vtrace(
    behaviour_log_probs: Tensor,
    target_log_probs: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    values: Tensor,
    bootstrap_value: Tensor,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
    trace_lambda: float = 1.0,
) -> VTrace:
    """Correct n-step returns for actions that an older policy chose.

    With delta_t = rho_t (r_t + gamma_t V(x_{t+1}) - V(x_t)):

        v_t - V(x_t) = delta_t + gamma_t c_t (v_{t+1} - V(x_{t+1}))

    where c_t = trace_lambda min(c_clip, weight_t); trace_lambda below 1 (remark 2 of the paper) trusts the values
    more and long sums of rewards less.

    Args:
        behaviour_log_probs: log probability of each action when it was chosen, (T, B).
        target_log_probs: log probability of the same actions under the policy being trained, (T, B).
        rewards: reward that followed each action, (T, B).
        discounts: discount after each action, 0 where the episode ended, (T, B).
        values: V(x_t) of the policy being trained, (T, B).
        bootstrap_value: V(x_T), (B,).
        rho_clip: upper bound of the importance weights rho, in targets and in advantages.
        c_clip: upper bound of the trace-cutting weights c.
        trace_lambda: their factor; with 1 the actions' own policy gives n-step returns, with 0 one-step ones.

    Raises:
        ValueError: the shapes disagree.
    """
    shape = rewards.shape
    inputs = (behaviour_log_probs, target_log_probs, discounts, values)
    if (
        rewards.dim() != 2
        or any(tensor.shape != shape for tensor in inputs)
        or bootstrap_value.shape != shape[1:]
    ):
        raise ValueError(
            "vtrace takes (T, B) tensors and a (B,) bootstrap value, not "
            f"{[tuple(tensor.shape) for tensor in (rewards, *inputs, bootstrap_value)]}"
        )
    weights = torch.exp(target_log_probs - behaviour_log_probs)
    rho = weights.clamp(max=rho_clip)
    trace = discounts * trace_lambda * weights.clamp(max=c_clip)
    next_values = torch.cat([values[1:], bootstrap_value[None]])
    deltas = rho * (rewards + discounts * next_values - values)

    corrections = torch.empty_like(values)
    correction = torch.zeros_like(bootstrap_value)
    for t in reversed(range(shape[0])):
        correction = deltas[t] + trace[t] * correction
        corrections[t] = correction
    targets = values + corrections
    next_targets = torch.cat([targets[1:], bootstrap_value[None]])
    advantages = rewards + discounts * next_targets - values
    return VTrace(targets, advantages, rho * advantages)
