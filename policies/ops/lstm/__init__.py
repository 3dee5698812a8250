"""The LSTM recurrence (Hochreiter and Schmidhuber, 1997; with forget gates and resets)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from policies.ops.checks import check_implementation, check_reset, check_shape
from policies.ops.lstm.naive import lstm_naive

IMPLEMENTATIONS: dict[
    str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
] = {
    "naive": lstm_naive,
}
"""Versions of the operator by name."""


def choose(device: torch.device, steps: int, width: int = 1, output: int = 1) -> str:
    """The implementation that "auto" stands for."""
    return "naive"


def lstm(
    gates: Tensor,
    weight: Tensor,
    hidden: Tensor,
    cell: Tensor,
    reset: Tensor,
    implementation: str = "auto",
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
        implementation: a name in `IMPLEMENTATIONS`, or "auto" for the fastest one that can run these tensors.

    Returns:
        h of every step (T, B, N), and h and c after the last one (B, N).

    Raises:
        TypeError: `reset` is not bool.
        ValueError: shapes do not fit together.
        UserError: no such implementation.
    """
    check_implementation("lstm", implementation, IMPLEMENTATIONS)
    if gates.dim() != 3 or gates.shape[0] == 0:
        raise ValueError(f"gates must be (T, B, 4N) with T at least 1, got {tuple(gates.shape)}")
    steps, batch, width = gates.shape[0], gates.shape[1], weight.shape[-1]
    check_shape("gates", gates, (steps, batch, 4 * width))
    check_shape("weight", weight, (4 * width, width))
    check_shape("hidden", hidden, (batch, width))
    check_shape("cell", cell, (batch, width))
    check_reset(reset, steps, batch)
    name = choose(gates.device, steps) if implementation == "auto" else implementation
    return IMPLEMENTATIONS[name](gates, weight, hidden, cell, reset)
