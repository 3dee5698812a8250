"""The self-referential weight matrix (SRWM; Irie et al., ICML 2022, arXiv 2202.05780)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from common.config import OneOf
from policies.cores.layered import Layer, LayeredCore, OperatorConfig, frozen, norm_of
from policies.diagnostics import Kind, Reading
from policies.ops import implementations, requested
from policies.ops.operator import AUTO
from policies.ops.srwm import SRWM, srwm
from policies.resets import State


@dataclass(frozen=True)
class SrwmConfig(OperatorConfig):
    """Sizes of the SRWM core; the defaults are the paper's for ProcGen."""

    implementation: Annotated[str, OneOf(implementations(SRWM), "operator implementation")] = AUTO


def run_srwm(
    heads: Tensor, w0: Tensor, shift: Tensor, reset: Tensor, writing: bool, implementation: str
) -> tuple[Tensor, Tensor]:
    """The operator `srwm`; or, if not `writing`, what the matrices as they are make of the heads (T, B, H, D)."""
    if writing:
        return srwm(heads, w0, shift, reset, implementation)
    shifts = frozen(shift, reset)
    output_columns = (w0 + shifts)[..., : w0.shape[-1] - 2 * heads.shape[-1] - 4]
    return (heads.softmax(dim=-1).unsqueeze(-2) @ output_columns).squeeze(-2), shifts[-1]


def srwm_rates(heads: Tensor, w0: Tensor, shift: Tensor, reset: Tensor) -> list[Reading]:
    """The mean over heads of each of the four rates at a single step."""
    before = torch.where(reset[0, :, None, None, None], 0.0, shift)
    beta = heads[0].softmax(dim=-1).unsqueeze(-2) @ (w0 + before)[..., -4:]  # (B, H, 1, 4)
    rates = beta.sigmoid().mean(dim=(1, 2)).unbind(-1)
    names = ("rate_y", "rate_q", "rate_k", "rate_beta")
    return [Reading(None, name, Kind.RATE, rate) for name, rate in zip(names, rates, strict=True)]


class SrwmLayer(Layer):
    """x + out_linear(y), where y is what a matrix that rewrites itself makes of x, head by head.

    As published: no layer norm before it, `out_linear` without bias, and one trained matrix per head,
    `w0` (H, D, 3D + 4), drawn from N(0, 1/D). The memory is "shift" (B, H, D, 3D + 4), how far the matrix of
    each environment has moved away from `w0`: when an optimiser step changes `w0`, running environments move with it.
    """

    def __init__(self, config: SrwmConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.head_width
        self.implementation = requested(SRWM, config.implementation)
        columns = 3 * self.head_width + 4
        self.w0 = nn.Parameter(torch.randn(self.heads, self.head_width, columns) * self.head_width**-0.5)
        self.out_linear = nn.Linear(config.width, config.width, bias=False)

    def initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        """A shift of zero."""
        return {"shift": torch.zeros(batch_size, *self.w0.shape, device=device, dtype=dtype)}

    def forward(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        """See `Layer.forward`."""
        heads = x.unflatten(-1, (self.heads, self.head_width))
        y, shift = run_srwm(heads, self.w0, memory["shift"], reset, self.writing, self.implementation)
        return x + self.out_linear(y.flatten(-2)), {"shift": shift}

    def examine(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State, list[Reading]]:
        """The shift's norm after the step, and the rates in it."""
        y, new_memory = self(x, memory, reset)
        heads = x.unflatten(-1, (self.heads, self.head_width))
        rates = srwm_rates(heads, self.w0, memory["shift"], reset)
        return y, new_memory, [norm_of(new_memory["shift"], "shift_norm"), *rates]

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        width, asked = self.head_width, self.implementation
        return {"srwm": SRWM.choose(self.w0.device, steps, width, width, asked)}


class SrwmCore(LayeredCore):
    """Linear map to the width, then layers of (SRWM, feed-forward block)."""

    config_class = SrwmConfig
    layer_class = SrwmLayer
    self_modifying = True
