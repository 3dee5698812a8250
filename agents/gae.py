"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gae(NamedTuple):
    """Estimates for a rollout; neither carries gradient.

    Attributes:
        advantages: (T, B).
        returns: advantages plus values, the target of the value head, (T, B).
    """

    advantages: Tensor
    returns: Tensor


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    dones: Tensor,
    bootstrap_value: Tensor,
    discount: float,
    gae_lambda: float,
) -> Gae:
    """Exponentially weighted sum of temporal-difference errors, cut where an episode ends.

        delta_t = r_t + discount V(x_{t+1}) (1 - done_t) - V(x_t)
        A_t = delta_t + discount gae_lambda (1 - done_t) A_{t+1}

    Args:
        rewards: reward that followed each action, (T, B).
        values: V(x_t) when the action was chosen, (T, B).
        dones: whether the episode ended with that action, (T, B), bool.
        bootstrap_value: V(x_T), (B,).
        discount: discount per step.
        gae_lambda: 0 gives one-step errors, 1 gives discounted returns minus values.

    Raises:
        ValueError: the shapes disagree.
        TypeError: `dones` is not bool (negating an integer mask would silently give 254 or 255).
    """
    if dones.dtype is not torch.bool:
        raise TypeError(f"dones must be bool, not {dones.dtype}")
    shape = rewards.shape
    if (
        rewards.dim() != 2
        or values.shape != shape
        or dones.shape != shape
        or bootstrap_value.shape != shape[1:]
    ):
        raise ValueError(
            "gae takes (T, B) tensors and a (B,) bootstrap value, not "
            f"{[tuple(tensor.shape) for tensor in (rewards, values, dones, bootstrap_value)]}"
        )
    going_on = (~dones).to(rewards.dtype)
    next_values = torch.cat([values[1:], bootstrap_value[None]])
    deltas = rewards + discount * next_values * going_on - values

    advantages = torch.empty_like(values)
    advantage = torch.zeros_like(bootstrap_value)
    for t in reversed(range(shape[0])):
        advantage = deltas[t] + discount * gae_lambda * going_on[t] * advantage
        advantages[t] = advantage
    return Gae(advantages, advantages + values)
