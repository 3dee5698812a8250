"""DeltaNet: a slow network programs a fast one (Schlag, Irie, Schmidhuber, ICML 2021, arXiv 2102.11174)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.cores.layered import Layer, LayeredCore, OperatorConfig, held
from policies.ops import requested
from policies.ops.deltanet import deltanet
from policies.resets import ResetRule, State

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
    weights = held(fast, reset)
    return (program.q.unsqueeze(-2) @ weights).squeeze(-2), weights[-1]


@dataclass(frozen=True)
class DeltaNetConfig(OperatorConfig):
    """Sizes of the DeltaNet core; the defaults are those of SRWM."""

    operators: ClassVar[tuple[str, ...]] = ("deltanet",)


class DeltaNetLayer(Layer):
    """x + out_linear(y): layer norm, slow linear map to queries, keys, values and rates, delta rule.

    The two linear maps have no bias, as published. The memory is "fast" (B, H, D, D), the fast weights, zero
    for a fresh stream.
    """

    def __init__(self, config: DeltaNetConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.head_width
        self.implementation = requested("deltanet", config.implementation)
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
        y, fast = self._run(self._program(x), memory["fast"], reset)
        return x + self.out_linear(y.flatten(-2)), {"fast": fast}

    def _run(self, program: Program, fast: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        return run_deltanet(program, fast, reset, self.writing, self.implementation)

    def diagnostics(self, x: Tensor, memory: State, reset: Tensor) -> dict[str, Tensor]:
        """The fast weights' Frobenius norm (all heads together) after the step, and the mean over heads of the
        writing rate in it."""
        program = self._program(x)
        _, fast = self._run(program, memory["fast"], reset)
        return {"shift_norm": fast.flatten(1).norm(dim=1), "rate": program.beta.mean(dim=(0, 2))}


class DeltaNetCore(LayeredCore):
    """Linear map to the width, then layers of (DeltaNet, feed-forward block)."""

    self_modifying = True

    def __init__(
        self,
        config: DeltaNetConfig,
        input_size: int,
        reset: ResetRule | None = None,
        bptt_span: int | None = None,
    ) -> None:
        super().__init__(config, partial(DeltaNetLayer, config), input_size, reset, bptt_span)
