"""The self-referential weight matrix (SRWM; Irie et al., ICML 2022, arXiv 2202.05780)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from policies.cores.base import Kind, Reading, Readings
from policies.cores.layered import Layer, LayeredCore, OperatorConfig, frozen, norm_of
from policies.ops import implementations, requested
from policies.ops.operator import AUTO
from policies.ops.srwm import SRWM, srwm
from policies.resets import State

RATES = ("rate_y", "rate_q", "rate_k", "rate_beta")


@dataclass(frozen=True)
class SrwmConfig(OperatorConfig):
    """Sizes of the SRWM core; the defaults are the paper's for ProcGen."""

    implementation: Annotated[str, implementations(SRWM)] = AUTO


class SrwmLayer(Layer):
    """x + out_linear(y), where y is what a matrix that rewrites itself makes of x, head by head.

    As published: no layer norm before it, `out_linear` without bias, and one trained matrix per head,
    `w0` (H, D, E + 2D + 4), drawn from N(0, 1/D). The memory is "shift" (B, H, D, E + 2D + 4), how far the matrix of
    each environment has moved away from `w0`: when an optimiser step changes `w0`, running environments move with it.
    `output` is E, the outputs of each head; None for D.
    """

    def __init__(self, config: OperatorConfig, output: int | None = None) -> None:
        super().__init__(config)
        self.srwm_implementation = requested(SRWM, config.implementation)
        self.output = output or self.head_width
        columns = self.output + 2 * self.head_width + 4
        self.w0 = nn.Parameter(torch.randn(self.heads, self.head_width, columns) * self.head_width**-0.5)
        self.out_linear = nn.Linear(config.width, config.width, bias=False)
        self.memory_shapes["shift"] = self.w0.shape

    def run_matrix(
        self, x: Tensor, shift: Tensor, reset: Tensor, readings: Readings
    ) -> tuple[Tensor, Tensor]:
        """What the matrices make of x, head by head (T, B, H, E), and the new shift."""
        heads = x.unflatten(-1, (self.heads, self.head_width))
        if self.writing:
            y, new_shift = srwm(heads, self.w0, shift, reset, self.srwm_implementation)
        else:
            shifts = frozen(shift, reset)
            y, new_shift = self._columns(heads, shifts, slice(self.output)), shifts[-1]
        if readings is not None:
            # The mean over heads of each of the four rates.
            rates = self._columns(heads, frozen(shift, reset), slice(-4, None)).sigmoid().mean(dim=(0, 2))
            readings.append(norm_of(new_shift, "shift_norm"))
            for name, rate in zip(RATES, rates.unbind(-1), strict=True):
                readings.append(Reading(name, Kind.RATE, rate))
        return y, new_shift

    def _columns(self, heads: Tensor, shifts: Tensor, columns: slice) -> Tensor:
        """Some columns of what the matrices make of the heads (T, B, H, D) if each step has the shift given for it."""
        phi_x = heads.softmax(dim=-1).unsqueeze(-2)
        return (phi_x @ (self.w0 + shifts)[..., columns]).squeeze(-2)

    def forward(self, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
        """See `Layer.forward`; the readings are the shift's norm and the rates."""
        y, shift = self.run_matrix(x, memory["shift"], reset, readings)
        return x + self.out_linear(y.flatten(-2)), {"shift": shift}

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        sizes = self.head_width, self.output
        return {"srwm": SRWM.choose(self.w0.device, steps, *sizes, self.srwm_implementation)}


class SrwmCore(LayeredCore):
    """Linear map to the width, then layers of (SRWM, feed-forward block)."""

    config_class = SrwmConfig
    layer_class = SrwmLayer
    self_modifying = True
