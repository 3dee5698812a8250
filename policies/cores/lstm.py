"""The LSTM baseline: stacked LSTM layers on the encoder's features and the last reward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.cores.base import Core, CoreConfig
from policies.ops import chosen, requested
from policies.ops.lstm import lstm
from policies.resets import ResetRule, State
from policies.sizes import require_positive


@dataclass(frozen=True)
class LstmConfig(CoreConfig):
    """Sizes of the LSTM core; the defaults are the paper's.

    Attributes:
        hidden: units of each layer.
        layers: number of layers.

    Raises:
        UserError: a size is not a positive whole number.
    """

    hidden: int = 256
    layers: int = 1

    def __post_init__(self) -> None:
        require_positive("core hidden", self.hidden)
        require_positive("core layers", self.layers)


class LstmCore(Core):
    """The same function, parameters and initial weights as `torch.nn.LSTM`, with resets in a sequence."""

    def __init__(
        self,
        config: LstmConfig,
        input_size: int,
        reset: ResetRule | None = None,
        bptt_span: int | None = None,
    ) -> None:
        super().__init__(input_size, config.hidden, reset, bptt_span)
        self.config = config
        sizes = [input_size] + [config.hidden] * (config.layers - 1)
        # Holders of the parameters; the recurrence itself is the operator's.
        cells = [nn.LSTMCell(size, config.hidden) for size in sizes]
        self.cells = nn.ModuleList(cells)
        self.implementation = requested("lstm")

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        return {"lstm": chosen("lstm", next(self.parameters()).device, steps)}

    def _initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        zeros = torch.zeros(batch_size, self.config.hidden, device=device, dtype=dtype)
        names = [f"layer{index}/{part}" for index in range(self.config.layers) for part in ("hidden", "cell")]
        return {name: zeros.clone() for name in names}

    def _sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        new_memory: State = {}
        for index, cell in enumerate(self.cells):
            hidden_name, cell_name = f"layer{index}/hidden", f"layer{index}/cell"
            assert isinstance(cell, nn.LSTMCell)
            gates = F.linear(x, cell.weight_ih, cell.bias_ih + cell.bias_hh)
            x, new_memory[hidden_name], new_memory[cell_name] = lstm(
                gates, cell.weight_hh, memory[hidden_name], memory[cell_name], reset, self.implementation
            )
        return x, new_memory
