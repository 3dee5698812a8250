"""The self-referential weight matrix for calls of a single step, as in acting: few operations, and few passes over the
matrices, which are all that a step costs. Longer sequences take one step after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.ops.support import cleared


def block_of_column(output: int, width: int, device: torch.device) -> Tensor:
    """For each of the E + 2D + 4 columns, which of the blocks y, q, k, beta (0 to 3) it is in."""
    return torch.tensor([0] * output + [1] * width + [2] * width + [3] * 4, device=device)


def srwm_step(x: Tensor, w0: Tensor, shift: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """See `policies.ops.srwm.srwm`."""
    steps, batch, heads, width = x.shape
    n, columns = batch * heads, w0.shape[-1]
    output = columns - 2 * width - 4
    block = block_of_column(output, width, x.device)
    phi_x = x.softmax(dim=-1).view(steps, n, 1, width)
    outputs = []
    for t in range(steps):
        shift = cleared(shift, reset[t])
        w = (w0 + shift).view(n, width, columns)
        z = torch.bmm(phi_x[t], w)
        phi_q, phi_k = z[:, 0, output:-4].unflatten(1, (2, width)).softmax(dim=-1).split(1, dim=1)
        rate = z[..., -4:].sigmoid().index_select(2, block)
        step = rate * torch.bmm(phi_q - phi_k, w)
        # The new shift comes from the old one, not from the matrix: that saves a pass, and the rounding of it.
        shift = torch.addcmul(
            shift, phi_k.reshape(batch, heads, width, 1), step.view(batch, heads, 1, columns)
        )
        outputs.append(z[..., :output].reshape(batch, heads, output))
    return torch.stack(outputs), shift
