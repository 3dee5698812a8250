"""The LSTM baseline: stacked LSTM layers on the encoder's features and the last reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import Range
from policies.cores.base import MAX_LAYERS, MAX_SIZE, Core, CoreConfig
from policies.ops.lstm import lstm
from policies.resets import State


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
        # Holders of the parameters; the recurrence itself is the operator's.
        self.cells = nn.ModuleList([nn.LSTMCell(size, config.hidden) for size in sizes])

    def _initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        zeros = torch.zeros(batch_size, self.output_size, device=device, dtype=dtype)
        names = [f"layer{index}/{part}" for index in range(len(self.cells)) for part in ("hidden", "cell")]
        return {name: zeros.clone() for name in names}

    def _sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        new_memory: State = {}
        for index, cell in enumerate(self.cells):
            hidden_name, cell_name = f"layer{index}/hidden", f"layer{index}/cell"
            assert isinstance(cell, nn.LSTMCell)
            gates = F.linear(x, cell.weight_ih, cell.bias_ih + cell.bias_hh)
            x, new_memory[hidden_name], new_memory[cell_name] = lstm(
                gates, cell.weight_hh, memory[hidden_name], memory[cell_name], reset
            )
        return x, new_memory
