"""What layers with weights that are written say about a step: numbers of each environment."""

from __future__ import annotations

import math

from torch import Tensor

from policies.cores.base import Kind, Reading


def norm_of(weights: Tensor, name: str) -> Reading:
    """The Frobenius norm of weights (B, H, rows, columns), all heads together."""
    return Reading(name, Kind.NORM, weights.flatten(1).norm(dim=1))


def rate_of(rate: Tensor, name: str) -> Reading:
    """A rate of writing (B, H), and its mean over heads."""
    return Reading(name, Kind.RATE, rate.mean(dim=1), heads=rate)


def share_of(part: Tensor, whole: Tensor, name: str) -> Reading:
    """|part| / |whole| of vectors (B, H, ...), all heads together; 0 where both are 0.

    It is above 1 where the part and the rest of the whole point in opposite directions.
    """
    share = part.flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1).clamp_min(1e-30)
    return Reading(name, Kind.SHARE, share)


def entropy_of(weights: Tensor, name: str) -> Reading:
    """How evenly vectors (B, H, D) are spread: the entropy of |weights| / sum |weights| as a share of the greatest
    possible one, log D; 1 where all weights are alike, 0 where one of them is everything."""
    shares = weights.abs()
    shares = shares / shares.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    entropy = -shares.xlogy(shares).sum(dim=-1) / math.log(max(weights.shape[-1], 2))
    return Reading(name, Kind.SHARE, entropy.mean(dim=1), heads=entropy)
