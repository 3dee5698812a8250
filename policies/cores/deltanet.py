"""DeltaNet: a slow network programs a fast one (Schlag, Irie, Schmidhuber, ICML 2021, arXiv 2102.11174)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.cores.base import Readings
from policies.cores.layered import Layer, LayeredCore, OperatorConfig, frozen
from policies.cores.readings import norm_of, rate_of, share_of
from policies.ops import implementations, requested
from policies.ops.deltanet import DELTANET, deltanet
from policies.ops.operator import AUTO
from policies.resets import State


def elu_sum_norm(x: Tensor) -> Tensor:
    """elu(x) + 1, divided by its sum over the last dimension: positive features that add up to one."""
    features = F.elu(x) + 1.0
    # As published: elu + 1 is exactly 0 for inputs below about -17, and a whole head may be there.
    return features / (features.sum(dim=-1, keepdim=True) + 1e-5)


def run_program(
    program: Tensor, fast: Tensor, reset: Tensor, writing: bool, implementation: str, readings: Readings
) -> tuple[Tensor, Tensor]:
    """What fast weights make of a program, a slow network's outputs for each head (T, B, H, 3D + 1).

    Its columns are query, key, value and the rate of writing. If not `writing`, queries read the fast weights as they
    are. Returns the outputs (T, B, H, D) and the new fast weights (B, H, D, D).
    """
    width = program.shape[-1] // 3
    q, k, v, beta = program.split([width, width, width, 1], dim=-1)
    q, k, rate = elu_sum_norm(q), elu_sum_norm(k), beta.squeeze(-1).sigmoid()
    if writing:
        y, new_fast = deltanet(q, k, v, rate, fast, reset, implementation)
    else:
        weights = frozen(fast, reset)
        y, new_fast = (q.unsqueeze(-2) @ weights).squeeze(-2), weights[-1]
    if readings is not None:
        readings += [norm_of(new_fast, "fast_norm"), rate_of(rate[0], "rate")]
        # What a step reads that finds the fast weights empty: what it has just written, if it writes.
        own = (q * k).sum(dim=-1, keepdim=True) * rate.unsqueeze(-1) * v if writing else torch.zeros_like(y)
        readings.append(share_of((y - own)[0], y[0], "fast_share"))
    return y, new_fast


@dataclass(frozen=True)
class DeltaNetConfig(OperatorConfig):
    """Sizes of the DeltaNet core; the defaults are those of SRWM."""

    implementation: Annotated[str, implementations(DELTANET)] = AUTO


class DeltaNetLayer(Layer):
    """x + out_linear(y): layer norm, slow linear map to queries, keys, values and rates, delta rule.

    The two linear maps have no bias, as published. The memory is "fast" (B, H, D, D), the fast weights, zero
    for a fresh environment.
    """

    def __init__(self, config: DeltaNetConfig) -> None:
        super().__init__(config)
        self.implementation = requested(DELTANET, config.implementation)
        self.layer_norm = nn.LayerNorm(config.width)
        self.slow_net = nn.Linear(config.width, self.heads * (3 * self.head_width + 1), bias=False)
        self.out_linear = nn.Linear(config.width, config.width, bias=False)
        self.memory_shapes["fast"] = (self.heads, self.head_width, self.head_width)

    def forward(self, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
        """See `Layer.forward`; the readings are the norm of the fast weights, the rate, and the share of the output
        that earlier steps have written."""
        program = self.slow_net(self.layer_norm(x)).unflatten(-1, (self.heads, -1))
        y, fast = run_program(program, memory["fast"], reset, self.writing, self.implementation, readings)
        return x + self.out_linear(y.flatten(-2)), {"fast": fast}

    def gradient_blocks(self) -> dict[str, Tensor]:
        """Those of the slow net, by what its outputs are."""
        gradient = self.slow_net.weight.grad
        if gradient is None:
            return {}
        sizes = [self.head_width] * 3 + [1]
        blocks = gradient.unflatten(0, (self.heads, -1)).split(sizes, dim=1)
        return dict(zip(("q", "k", "v", "beta"), blocks, strict=True))

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        device, width = self.out_linear.weight.device, self.head_width
        return {"deltanet": DELTANET.choose(device, steps, width, width, self.implementation)}


class DeltaNetCore(LayeredCore):
    """Linear map to the width, then layers of (DeltaNet, feed-forward block)."""

    config_class = DeltaNetConfig
    layer_class = DeltaNetLayer
    self_modifying = True
