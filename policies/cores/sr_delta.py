"""SR-Delta: a self-referential weight matrix programs a DeltaNet (Irie et al., ICML 2022, arXiv 2202.05780)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from common.config import OneOf
from policies.cores.deltanet import Program, program_from, run_deltanet
from policies.cores.layered import Layer, LayeredCore, OperatorConfig, norm_of
from policies.cores.srwm import run_srwm, srwm_rates
from policies.diagnostics import Reading
from policies.ops import implementations, requested
from policies.ops.deltanet import DELTANET
from policies.ops.operator import AUTO
from policies.ops.srwm import SRWM
from policies.resets import State


@dataclass(frozen=True)
class SrDeltaConfig(OperatorConfig):
    """Sizes of the SR-Delta core; the defaults are those of SRWM."""

    implementation: Annotated[str, OneOf(implementations(SRWM, DELTANET), "operator implementation")] = AUTO


class SrDeltaLayer(Layer):
    """x + out_linear(y): DeltaNet's layer, where a matrix that rewrites itself takes the slow network's place.

    For each head, the output of an SRWM (3D + 1 wide) is the query, key, value and rate of a delta rule at the same
    step. As in SRWM's layer there is no layer norm before it, and `w0` (H, D, 5D + 5) is drawn from N(0, 1/D); the
    rest is DeltaNet's. The memory is SRWM's "shift" (B, H, D, 5D + 5) and DeltaNet's "fast" (B, H, D, D); resets
    clear both.
    """

    def __init__(self, config: SrDeltaConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.head_width
        self.srwm_implementation = requested(SRWM, config.implementation)
        self.deltanet_implementation = requested(DELTANET, config.implementation)
        columns = (3 * self.head_width + 1) + 2 * self.head_width + 4
        self.w0 = nn.Parameter(torch.randn(self.heads, self.head_width, columns) * self.head_width**-0.5)
        self.out_linear = nn.Linear(config.width, config.width, bias=False)

    def initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        """A shift and fast weights of zero."""
        fast = (batch_size, self.heads, self.head_width, self.head_width)
        return {
            "shift": torch.zeros(batch_size, *self.w0.shape, device=device, dtype=dtype),
            "fast": torch.zeros(fast, device=device, dtype=dtype),
        }

    def forward(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        """See `Layer.forward`."""
        y, new_memory, _ = self._run(x, memory, reset)
        return y, new_memory

    def examine(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State, list[Reading]]:
        """Norms of shift and fast weights after the step, SRWM's four rates and the delta rule's rate in it."""
        y, new_memory, program = self._run(x, memory, reset)
        rates = srwm_rates(self._heads(x), self.w0, memory["shift"], reset)
        shift, fast = new_memory["shift"], new_memory["fast"]
        readings = [norm_of(shift, "shift_norm"), *rates, norm_of(fast, "fast_norm"), program.rate]
        return y, new_memory, readings

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, self.head_width))
        return heads

    def _run(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State, Program]:
        columns, shift = run_srwm(
            self._heads(x), self.w0, memory["shift"], reset, self.writing, self.srwm_implementation
        )
        program = program_from(columns)
        y, fast = run_deltanet(program, memory["fast"], reset, self.writing, self.deltanet_implementation)
        return x + self.out_linear(y.flatten(-2)), {"shift": shift, "fast": fast}, program

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        device, width = self.w0.device, self.head_width
        return {
            "srwm": SRWM.choose(device, steps, width, 3 * width + 1, self.srwm_implementation),
            "deltanet": DELTANET.choose(device, steps, width, width, self.deltanet_implementation),
        }


class SrDeltaCore(LayeredCore):
    """Linear map to the width, then layers of (SR-Delta, feed-forward block)."""

    config_class = SrDeltaConfig
    layer_class = SrDeltaLayer
    self_modifying = True
