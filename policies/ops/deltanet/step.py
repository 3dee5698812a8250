"""The delta rule for calls of a single step, as in acting: few operations, and few passes over the memory, which are
all that a step costs. Longer sequences take one step after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.ops.support import cleared


def deltanet_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """See `policies.ops.deltanet.deltanet`."""
    (steps, batch, heads, values), width = v.shape, k.shape[3]
    n = batch * heads
    q, k = q.reshape(steps, n, 1, width), k.reshape(steps, n, 1, width)
    v, beta = v.reshape(steps, n, 1, values), beta.reshape(steps, n, 1, 1)
    outputs = []
    for t in range(steps):
        w = cleared(memory, reset[t]).reshape(n, width, values)
        step = beta[t] * (v[t] - torch.bmm(k[t], w))
        w = torch.addcmul(w, k[t].transpose(1, 2), step)
        outputs.append(torch.bmm(q[t], w).view(batch, heads, values))
        memory = w.view(batch, heads, width, values)
    return torch.stack(outputs), memory
