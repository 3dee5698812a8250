"""The delta rule as a plain loop: the reference for every other version."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.ops.support import steps_with_resets


def deltanet_naive(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """See `policies.ops.deltanet.deltanet`."""
    resets = steps_with_resets(reset)
    q, k, v = q.unsqueeze(-2), k.unsqueeze(-2), v.unsqueeze(-2)  # (T, B, H, 1, D): rows
    beta = beta[..., None, None]  # (T, B, H, 1, 1)
    w = memory  # (B, H, D, E)
    outputs = []
    for t in range(q.shape[0]):
        if resets[t]:
            w = torch.where(reset[t, :, None, None, None], 0.0, w)
        v_old = k[t] @ w
        w = w + k[t].transpose(-1, -2) * (beta[t] * (v[t] - v_old))
        outputs.append((q[t] @ w).squeeze(-2))
    return torch.stack(outputs), w
