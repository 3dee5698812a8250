"""The LSTM recurrence (Hochreiter and Schmidhuber, 1997; with forget gates and resets)."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.ops.support import check_reset, check_shape, steps_with_resets


def lstm(
    gates: Tensor,
    weight: Tensor,
    hidden: Tensor,
    cell: Tensor,
    reset: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM layer whose input projection is already done for all steps.

        [i, f, g, o] = gates_t + h_{t-1} weight^T
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    Gradient reaches every argument but `reset`, and never crosses a reset.

    Args:
        gates: input projection with its biases (T, B, 4N), T at least 1; order i, f, g, o as in
            `torch.nn.LSTM`.
        weight: recurrent weights (4N, N).
        hidden, cell: h and c before the first step (B, N). Not modified.
        reset: bool (T, B); where true, h and c are set to zero before step t.

    Returns:
        h of every step (T, B, N), and h and c after the last one (B, N).

    Raises:
        TypeError: `reset` is not bool.
        ValueError: shapes do not fit together.
    """
    if gates.dim() != 3 or gates.shape[0] == 0:
        raise ValueError(f"gates must be (T, B, 4N) with T at least 1, got {tuple(gates.shape)}")
    steps, batch, width = gates.shape[0], gates.shape[1], weight.shape[-1]
    check_shape("gates", gates, (steps, batch, 4 * width))
    check_shape("weight", weight, (4 * width, width))
    check_shape("hidden", hidden, (batch, width))
    check_shape("cell", cell, (batch, width))
    check_reset(reset, steps, batch)
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
