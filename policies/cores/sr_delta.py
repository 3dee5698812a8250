"""SR-Delta: a self-referential weight matrix programs a DeltaNet (Irie et al., ICML 2022, arXiv 2202.05780)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from policies.cores.deltanet import Program, program_from, run_deltanet
from policies.cores.layered import Layer, LayeredCore, OperatorConfig
from policies.cores.srwm import run_srwm, srwm_rates
from policies.ops import requested
from policies.resets import ResetRule, State


@dataclass(frozen=True)
class SrDeltaConfig(OperatorConfig):
    """Sizes of the SR-Delta core; the defaults are those of SRWM."""

    operators: ClassVar[tuple[str, ...]] = ("srwm", "deltanet")


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
        self.srwm_implementation = requested("srwm", config.implementation)
        self.deltanet_implementation = requested("deltanet", config.implementation)
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
        y, _, new_memory = self._run(x, memory, reset)
        return x + self.out_linear(y.flatten(-2)), new_memory

    def _run(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, Program, State]:
        heads = x.unflatten(-1, (self.heads, self.head_width))
        columns, shift = run_srwm(
            heads, self.w0, memory["shift"], reset, self.writing, self.srwm_implementation
        )
        program = program_from(columns)
        y, fast = run_deltanet(program, memory["fast"], reset, self.writing, self.deltanet_implementation)
        return y, program, {"shift": shift, "fast": fast}

    def diagnostics(self, x: Tensor, memory: State, reset: Tensor) -> dict[str, Tensor]:
        """Frobenius norms of shift and fast weights (all heads together) after the step; the means over heads of
        SRWM's four rates and of the delta rule's rate in it."""
        _, program, after = self._run(x, memory, reset)
        heads = x.unflatten(-1, (self.heads, self.head_width))
        return {
            "shift_norm": after["shift"].flatten(1).norm(dim=1),
            **srwm_rates(heads, self.w0, memory["shift"], reset),
            "fast_norm": after["fast"].flatten(1).norm(dim=1),
            "rate": program.beta.mean(dim=(0, 2)),
        }


class SrDeltaCore(LayeredCore):
    """Linear map to the width, then layers of (SR-Delta, feed-forward block)."""

    self_modifying = True

    def __init__(
        self,
        config: SrDeltaConfig,
        input_size: int,
        reset: ResetRule | None = None,
        bptt_span: int | None = None,
    ) -> None:
        super().__init__(config, partial(SrDeltaLayer, config), input_size, reset, bptt_span)
