"""The ablation of self-modification: SRWM's layers without the update (Irie et al., arXiv 2202.05780)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policies.cores.base import Readings
from policies.cores.layered import Layer, LayeredCore, MatrixConfig, initial_matrix, input_norm
from policies.ops.srwm import read_with
from policies.resets import State


@dataclass(frozen=True)
class FakeSrwmConfig(MatrixConfig):
    """Sizes of the fake SRWM core, and the options of SRWM that are not about the update; its defaults."""


class FakeSrwmLayer(Layer):
    """x + out_linear(phi(x) w_y) per head: SRWM's output for a matrix that always stays at its initial value.

    Of SRWM's matrix only the output's columns, `w_y` (H, D, D), are left, since the others serve the update
    alone. phi is the softmax of the head's input (or what SRWM's options put in its place), exactly as in SRWM, so
    that the update is the only difference. The published code leaves the softmax out of its fake SRWM.
    """

    def __init__(self, config: FakeSrwmConfig) -> None:
        super().__init__(config)
        self.input_softmax = config.input_softmax
        self.layer_norm = input_norm(config)
        self.w_y = initial_matrix(config, self.head_width)
        self.out_linear = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
        """See `Layer.forward`."""
        heads = self.layer_norm(x).unflatten(-1, (self.heads, self.head_width))
        y = torch.einsum("tbhd,hde->tbhe", read_with(heads, self.input_softmax), self.w_y)
        return x + self.out_linear(y.flatten(-2)), {}


class FakeSrwmCore(LayeredCore):
    """Linear map to the width, then layers of (fake SRWM, feed-forward block); no memory."""

    config_class = FakeSrwmConfig
    layer_class = FakeSrwmLayer
    is_recurrent = False
