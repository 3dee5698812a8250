"""The self-referential weight matrix (SRWM; Irie et al., ICML 2022, arXiv 2202.05780)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from common.config import Range
from policies.cores.base import Reading, Readings
from policies.cores.layered import (
    Layer,
    LayeredCore,
    MatrixConfig,
    OperatorConfig,
    frozen,
    initial_matrix,
    input_norm,
)
from policies.cores.readings import entropy_of, norm_of, rate_of, share_of
from policies.ops import implementations, requested
from policies.ops.operator import AUTO
from policies.ops.srwm import SRWM, read_with, sharpened, srwm
from policies.resets import State

BLOCKS = ("y", "q", "k", "beta")


@dataclass(frozen=True)
class SrwmOptions(OperatorConfig, MatrixConfig):
    """What can be chosen of a matrix that rewrites itself; the defaults are as published.

    Attributes:
        sharpness: s of softmax(s q) and softmax(s k), which address the rows that an update reads and writes.
        learn_sharpness: whether each head learns its own two, beginning there.
        unit_key: whether keys are roots of softmax(s k), which have length 1 and keep the matrix bounded.
        rate_offset: added to beta before the sigmoid; below 0, the matrix begins by writing little.
        w0_learning_rate: factor of the learning rate of W_0; or four, for its columns y, q, k and beta.
    """

    sharpness: Annotated[float, Range(0, 1e3, open_low=True)] = 1.0
    learn_sharpness: bool = False
    unit_key: bool = False
    rate_offset: Annotated[float, Range(-100, 100)] = 0.0
    w0_learning_rate: tuple[Annotated[float, Range(0, 1e3)], ...] = (1.0,)

    def contradictions(self) -> list[str]:
        """What is wrong with the sizes, and with the number of learning rates."""
        found = super().contradictions()
        if len(self.w0_learning_rate) not in (1, 4):
            found.append(
                f"core w0_learning_rate has {len(self.w0_learning_rate)} factors: give one, or four for the "
                "columns y, q, k, beta"
            )
        return found


@dataclass(frozen=True)
class SrwmConfig(SrwmOptions):
    """Sizes and options of the SRWM core; the defaults are the paper's for ProcGen."""

    implementation: Annotated[str, implementations(SRWM)] = AUTO


class SrwmLayer(Layer):
    """x + out_linear(y), where y is what a matrix that rewrites itself makes of x, head by head.

    As published: no layer norm before it, `out_linear` without bias, and one trained matrix per head,
    `w0` (H, D, E + 2D + 4), drawn from N(0, 1/D). The memory is "shift" (B, H, D, E + 2D + 4), how far the matrix of
    each environment has moved away from W_0: when an optimiser step changes `w0`, running environments move with it.
    W_0 is `w0` itself, or `w0` sharpened. `output` is E, the outputs of each head; None for D.
    """

    def __init__(self, config: SrwmOptions, output: int | None = None) -> None:
        super().__init__(config)
        self.srwm_implementation = requested(SRWM, config.implementation)
        self.input_softmax, self.rate_offset = config.input_softmax, config.rate_offset
        self.unit_key = config.unit_key
        self.output = output or self.head_width
        self.block_sizes = (self.output, self.head_width, self.head_width, 4)
        self.layer_norm = input_norm(config)
        self.w0 = initial_matrix(config, sum(self.block_sizes))
        self.out_linear = nn.Linear(config.width, config.width, bias=False)
        self.memory_shapes["shift"] = self.w0.shape
        self._add_sharpness(config)
        self._add_step_factor(config)

    def _add_sharpness(self, config: SrwmOptions) -> None:
        """`log_sharpness` of q and of k (2, H), if it is learned; `sharpening`, a factor of `w0`, if it is not."""
        self.log_sharpness: nn.Parameter | None = None
        self.sharpening: Tensor | None
        self.register_buffer("sharpening", None, persistent=False)
        if config.learn_sharpness:
            self.log_sharpness = nn.Parameter(torch.full((2, self.heads), math.log(config.sharpness)))
        elif config.sharpness != 1.0:
            self.sharpening = sharpened(torch.ones_like(self.w0), torch.full((2, 1), config.sharpness))

    def _add_step_factor(self, config: SrwmOptions) -> None:
        self.step_factor: Tensor | None
        self.register_buffer("step_factor", None, persistent=False)
        if any(factor != 1.0 for factor in config.w0_learning_rate):
            each = (
                config.w0_learning_rate if len(config.w0_learning_rate) > 1 else config.w0_learning_rate * 4
            )
            sized = zip(self.block_sizes, each, strict=True)
            self.step_factor = torch.cat([torch.full((size,), factor) for size, factor in sized])

    def step_factors(self) -> dict[str, Tensor]:
        """See `Core.step_factors`."""
        return {} if self.step_factor is None else {"w0": self.step_factor}

    def gradient_blocks(self) -> dict[str, Tensor]:
        """Those of W_0's columns, by what they are for."""
        gradient = self.w0.grad
        return (
            {} if gradient is None else dict(zip(BLOCKS, gradient.split(self.block_sizes, -1), strict=True))
        )

    def matrix(self) -> Tensor:
        """W_0 (H, D, E + 2D + 4), with which fresh environments begin."""
        if self.log_sharpness is not None:
            return sharpened(self.w0, self.log_sharpness.exp())
        return self.w0 if self.sharpening is None else self.w0 * self.sharpening

    def run_matrix(
        self, x: Tensor, shift: Tensor, reset: Tensor, readings: Readings
    ) -> tuple[Tensor, Tensor]:
        """What the matrices make of x, head by head (T, B, H, E), and the new shift."""
        heads = self.layer_norm(x).unflatten(-1, (self.heads, self.head_width))
        w0 = self.matrix()
        if self.writing:
            options = self.input_softmax, self.rate_offset, self.unit_key
            y, new_shift = srwm(heads, w0, shift, reset, self.srwm_implementation, *options)
        else:
            shifts = frozen(shift, reset)
            y, new_shift = self._times(heads, (w0 + shifts)[..., : self.output]), shifts[-1]
        if readings is not None:
            readings.append(norm_of(new_shift, "shift_norm"))
            self._read(heads, w0, frozen(shift, reset), readings)
        return y, new_shift

    def _read(self, heads: Tensor, w0: Tensor, shifts: Tensor, readings: list[Reading]) -> None:
        """What there is to say about one step, apart from what it wrote; shifts (1, B, H, D, E + 2D + 4) are those that
        the step reads."""
        z = self._times(heads, w0 + shifts)[0]  # (B, H, E + 2D + 4)
        y, _, k, beta = z.split(self.block_sizes, dim=-1)
        rates = (beta + self.rate_offset).sigmoid()
        readings += [
            rate_of(rate, f"rate_{name}") for name, rate in zip(BLOCKS, rates.unbind(-1), strict=True)
        ]
        moved = self._times(heads, shifts[..., : self.output])[0]
        readings += [
            entropy_of(read_with(heads, self.input_softmax)[0], "input_entropy"),
            entropy_of(k.softmax(dim=-1), "key_entropy"),
            share_of(moved, y, "shift_share"),
        ]

    def _times(self, heads: Tensor, matrices: Tensor) -> Tensor:
        """What matrices (T, B, H, D, N) make of the heads (T, B, H, D)."""
        return (read_with(heads, self.input_softmax).unsqueeze(-2) @ matrices).squeeze(-2)

    def forward(self, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
        """See `Layer.forward`; `_read` says what the readings are, and the shift's norm is one more."""
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
