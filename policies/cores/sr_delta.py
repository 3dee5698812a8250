"""SR-Delta: a self-referential weight matrix programs a DeltaNet (Irie et al., ICML 2022, arXiv 2202.05780)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from policies.cores.base import Readings
from policies.cores.deltanet import run_program
from policies.cores.layered import LayeredCore
from policies.cores.srwm import SrwmLayer, SrwmOptions
from policies.ops import implementations, requested
from policies.ops.deltanet import DELTANET
from policies.ops.operator import AUTO
from policies.ops.srwm import SRWM
from policies.resets import State


@dataclass(frozen=True)
class SrDeltaConfig(SrwmOptions):
    """Sizes of the SR-Delta core; sizes and options are those of SRWM."""

    implementation: Annotated[str, implementations(SRWM, DELTANET)] = AUTO


class SrDeltaLayer(SrwmLayer):
    """x + out_linear(y): DeltaNet's layer, where a matrix that rewrites itself takes the slow network's place.

    For each head, the output of an SRWM (3D + 1 wide) is the query, key, value and rate of a delta rule at the same
    step. SRWM's options are those of its own layer, `w0` is (H, D, 5D + 5), and the rest is DeltaNet's. The memory is
    SRWM's "shift" (B, H, D, 5D + 5) and DeltaNet's "fast" (B, H, D, D); resets clear both.
    """

    def __init__(self, config: SrwmOptions) -> None:
        super().__init__(config, output=3 * config.head_width + 1)
        self.deltanet_implementation = requested(DELTANET, config.implementation)
        self.memory_shapes["fast"] = (self.heads, self.head_width, self.head_width)

    def forward(self, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
        """See `Layer.forward`; the readings are those of SRWM's and of DeltaNet's layer."""
        program, shift = self.run_matrix(x, memory["shift"], reset, readings)
        y, fast = run_program(
            program, memory["fast"], reset, self.writing, self.deltanet_implementation, readings
        )
        return x + self.out_linear(y.flatten(-2)), {"shift": shift, "fast": fast}

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        sizes = self.head_width, self.head_width
        chosen = DELTANET.choose(self.w0.device, steps, *sizes, self.deltanet_implementation)
        return {**super().implementations(steps), "deltanet": chosen}


class SrDeltaCore(LayeredCore):
    """Linear map to the width, then layers of (SR-Delta, feed-forward block)."""

    config_class = SrDeltaConfig
    layer_class = SrDeltaLayer
    self_modifying = True
