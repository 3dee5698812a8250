"""The self-referential weight matrix as a plain loop: the reference for every other version."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.ops.support import steps_with_resets


def srwm_naive(x: Tensor, w0: Tensor, shift: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """See `policies.ops.srwm.srwm`."""
    width = x.shape[-1]
    blocks = [w0.shape[-1] - 2 * width - 4, width, width, 4]
    resets = steps_with_resets(reset)
    phi_x = x.softmax(dim=-1).unsqueeze(-2)  # (T, B, H, 1, D)
    w = w0 + shift  # (B, H, D, E + 2D + 4)
    outputs = []
    for t in range(x.shape[0]):
        if resets[t]:
            w = torch.where(reset[t, :, None, None, None], w0, w)
        y, q, k, beta = (phi_x[t] @ w).split(blocks, dim=-1)  # each (B, H, 1, its block)
        outputs.append(y.squeeze(-2))
        phi_q, phi_k = q.softmax(dim=-1), k.softmax(dim=-1)
        rates = beta.sigmoid().split(1, dim=-1)
        # v_new - v_old = phi(q) W - phi(k) W, in one product.
        difference = ((phi_q - phi_k) @ w).split(blocks, dim=-1)
        step = torch.cat([rate * block for rate, block in zip(rates, difference, strict=True)], dim=-1)
        w = w + phi_k.transpose(-1, -2) * step
    return torch.stack(outputs), w - w0
