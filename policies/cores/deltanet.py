"""DeltaNet: a slow network programs a fast one (Schlag, Irie, Schmidhuber, ICML 2021, arXiv 2102.11174)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import OneOf
from policies.cores.layered import Layer, LayeredCore, OperatorConfig, frozen, norm_of
from policies.diagnostics import Kind, Reading
from policies.ops import implementations, requested
from policies.ops.deltanet import DELTANET, deltanet
from policies.ops.operator import AUTO
from policies.resets import State

# As published: elu + 1 is exactly 0 for inputs below about -17, and a whole head may be there.
_SUM_EPSILON = 1e-5


def elu_sum_norm(x: Tensor) -> Tensor:
    """elu(x) + 1, divided by its sum over the last dimension: positive features that add up to one."""
    features = F.elu(x) + 1.0
    return features / (features.sum(dim=-1, keepdim=True) + _SUM_EPSILON)


class Program(NamedTuple):
    """What programs fast weights: queries, keys, values (T, B, H, D) and rates (T, B, H)."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor

    @property
    def rate(self) -> Reading:
        """The mean over heads of the rates of a single step."""
        return Reading(None, "rate", Kind.RATE, self.beta.mean(dim=(0, 2)))


def program_from(columns: Tensor) -> Program:
    """The program that a slow network's outputs (T, B, H, 3D + 1) stand for."""
    width = columns.shape[-1] // 3
    q, k, v, beta = columns.split([width, width, width, 1], dim=-1)
    return Program(elu_sum_norm(q), elu_sum_norm(k), v, beta.squeeze(-1).sigmoid())


def run_deltanet(
    program: Program, fast: Tensor, reset: Tensor, writing: bool, implementation: str
) -> tuple[Tensor, Tensor]:
    """The operator `deltanet`; or, if not `writing`, what the queries read from the fast weights as they are."""
    if writing:
        return deltanet(*program, fast, reset, implementation)
    weights = frozen(fast, reset)
    return (program.q.unsqueeze(-2) @ weights).squeeze(-2), weights[-1]


@dataclass(frozen=True)
class DeltaNetConfig(OperatorConfig):
    """Sizes of the DeltaNet core; the defaults are those of SRWM."""

    implementation: Annotated[str, OneOf(implementations(DELTANET), "operator implementation")] = AUTO


class DeltaNetLayer(Layer):
    """x + out_linear(y): layer norm, slow linear map to queries, keys, values and rates, delta rule.

    The two linear maps have no bias, as published. The memory is "fast" (B, H, D, D), the fast weights, zero
    for a fresh environment.
    """

    def __init__(self, config: DeltaNetConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.head_width
        self.implementation = requested(DELTANET, config.implementation)
        self.layer_norm = nn.LayerNorm(config.width)
        self.slow_net = nn.Linear(config.width, self.heads * (3 * self.head_width + 1), bias=False)
        self.out_linear = nn.Linear(config.width, config.width, bias=False)

    def initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        """Fast weights of zero."""
        shape = (batch_size, self.heads, self.head_width, self.head_width)
        return {"fast": torch.zeros(shape, device=device, dtype=dtype)}

    def _program(self, x: Tensor) -> Program:
        columns = 3 * self.head_width + 1
        return program_from(self.slow_net(self.layer_norm(x)).unflatten(-1, (self.heads, columns)))

    def forward(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        """See `Layer.forward`."""
        return self._follow(self._program(x), x, memory, reset)

    def examine(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State, list[Reading]]:
        """The norm of the fast weights after the step, and the rate of writing in it."""
        program = self._program(x)
        y, new_memory = self._follow(program, x, memory, reset)
        return y, new_memory, [norm_of(new_memory["fast"], "fast_norm"), program.rate]

    def _follow(self, program: Program, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        y, fast = run_deltanet(program, memory["fast"], reset, self.writing, self.implementation)
        return x + self.out_linear(y.flatten(-2)), {"fast": fast}

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        device, width = self.out_linear.weight.device, self.head_width
        return {"deltanet": DELTANET.choose(device, steps, width, width, self.implementation)}


class DeltaNetCore(LayeredCore):
    """Linear map to the width, then layers of (DeltaNet, feed-forward block)."""

    config_class = DeltaNetConfig
    layer_class = DeltaNetLayer
    self_modifying = True
