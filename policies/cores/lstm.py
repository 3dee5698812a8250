"""The LSTM baseline: stacked LSTM layers on the encoder's features and the last reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import Range
from policies.cores.base import MAX_LAYERS, MAX_SIZE, Core, CoreConfig
from policies.ops.operator import check_reset, check_shape, steps_with_resets
from policies.resets import State
from policies.tasks import Gate


def lstm(
    gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM layer (Hochreiter and Schmidhuber, 1997; with forget gates and resets) whose input projection is
    already done for all steps.

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


@dataclass(frozen=True)
class LstmConfig(CoreConfig):
    """Sizes of the LSTM core; the defaults are the paper's.

    Attributes:
        hidden: units of each layer.
        layers: number of layers.
    """

    hidden: Annotated[int, Range(1, MAX_SIZE)] = 256
    layers: Annotated[int, Range(1, MAX_LAYERS)] = 1


class LstmCore(Core):
    """The same function, parameters and initial weights as `torch.nn.LSTM`, with resets in a sequence."""

    config_class = LstmConfig

    def __init__(self, config: LstmConfig, input_size: int) -> None:
        super().__init__(input_size, config.hidden)
        sizes = [input_size] + [config.hidden] * (config.layers - 1)
        self.gate = Gate(config.hidden)  # for the last layer's output; what it remembers is not silenced
        # Holders of the parameters; the recurrence itself is the operator's.
        self.cells = nn.ModuleList([nn.LSTMCell(size, config.hidden) for size in sizes])

    def _initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        zeros = torch.zeros(batch_size, self.output_size, device=device, dtype=dtype)
        layers = range(len(self.cells))
        return {f"layer{layer}/{part}": zeros.clone() for layer in layers for part in ("hidden", "cell")}

    def _sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        new_memory: State = {}
        for index, cell in enumerate(self.cells):
            hidden_name, cell_name = f"layer{index}/hidden", f"layer{index}/cell"
            assert isinstance(cell, nn.LSTMCell)
            gates = F.linear(x, cell.weight_ih, cell.bias_ih + cell.bias_hh)
            x, new_memory[hidden_name], new_memory[cell_name] = lstm(
                gates, cell.weight_hh, memory[hidden_name], memory[cell_name], reset
            )
        return self.gate(x), new_memory
