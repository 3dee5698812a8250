"""The LSTM recurrence as a plain loop."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.ops.checks import steps_with_resets


def lstm_naive(
    gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See `policies.ops.lstm.lstm`."""
    resets = steps_with_resets(reset)
    weight_t = weight.t()
    outputs = []
    for t in range(gates.shape[0]):
        if resets[t]:
            clear = reset[t, :, None]
            hidden, cell = torch.where(clear, 0.0, hidden), torch.where(clear, 0.0, cell)
        i, f, g, o = torch.addmm(gates[t], hidden, weight_t).chunk(4, dim=-1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return torch.stack(outputs), hidden, cell
