"""What the published SRWM and DeltaNet networks share: a linear map to the width of the network, then layers,
each followed by a residual feed-forward block (Irie et al., arXiv 2202.05780; sizes of its RL experiments as
defaults)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from common.config import Range
from policies.cores.base import MAX_LAYERS, MAX_SIZE, Core, CoreConfig, Reading, Readings
from policies.ops.operator import AUTO
from policies.resets import State
from policies.tasks import Gate


@dataclass(frozen=True)
class LayeredConfig(CoreConfig):
    """Sizes of a layered core.

    Attributes:
        width: features of each layer, a multiple of `heads`.
        heads: independent matrices per layer; each is `width / heads` wide.
        feedforward: hidden units of the feed-forward block after each layer.
        layers: number of layers.
    """

    width: Annotated[int, Range(1, MAX_SIZE)] = 128
    heads: Annotated[int, Range(1, MAX_SIZE)] = 8
    feedforward: Annotated[int, Range(1, MAX_SIZE)] = 512
    layers: Annotated[int, Range(1, MAX_LAYERS)] = 2

    def contradictions(self) -> list[str]:
        """What is wrong with the sizes together."""
        if self.width % self.heads == 0:
            return []
        return [f"core width {self.width} is not a multiple of its {self.heads} heads: change one"]

    @property
    def head_width(self) -> int:
        """Features of one head."""
        return self.width // self.heads


@dataclass(frozen=True)
class OperatorConfig(LayeredConfig):
    """A layered core whose layers run operators of several versions (`policies.ops`). Subclasses say which versions.

    Attributes:
        implementation: version of the operators: "auto" for the fastest one by device and shape, or a name such as
            "naive", for each of the core's operators that has a version of this name. All compute the same.
    """

    implementation: str = AUTO


@dataclass(frozen=True)
class MatrixConfig(LayeredConfig):
    """A layered core that reads a trained matrix W_0 for each head; the defaults are those of the SRWM paper.

    Attributes:
        layer_norm: whether a layer norm comes before each matrix, as in DeltaNet.
        input_softmax: whether matrices are read with the softmax of a head's input, or with the input as it is.
        initial_scale: factor of W_0 at the start of training.
    """

    layer_norm: bool = False
    input_softmax: bool = True
    initial_scale: Annotated[float, Range(0, 1e3, open_low=True)] = 1.0


class Layer(nn.Module, ABC):
    """One layer with a memory: maps (T, B, width) to (T, B, width), its residual connection included.

    Attributes:
        out_linear: makes what the layer adds to its input of what its matrices have given.
        writing: whether a layer that writes its own weights does so; see `Core.set_writing`.
        memory_shapes: shapes of one environment's memory, by name. Fresh memory is zero.
    """

    writing: bool = True

    def __init__(self, config: LayeredConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.head_width
        self.out_linear: nn.Linear
        self.memory_shapes: dict[str, tuple[int, ...]] = {}

    @abstractmethod
    def forward(self, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
        """Outputs (T, B, width) and the new memory; readings are asked for of single steps only."""

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        return {}

    def step_factors(self) -> dict[str, Tensor]:
        """See `Core.step_factors`."""
        return {}

    def gradient_blocks(self) -> dict[str, Tensor]:
        """See `Core.gradient_blocks`."""
        return {}


def input_norm(config: MatrixConfig) -> nn.Module:
    """What comes before a layer's matrices: a layer norm, or nothing."""
    return nn.LayerNorm(config.width) if config.layer_norm else nn.Identity()


def initial_matrix(config: MatrixConfig, columns: int) -> nn.Parameter:
    """W_0 of each head (H, D, columns), normally distributed with a deviation of `initial_scale` / sqrt(D)."""
    scale = config.initial_scale * config.head_width**-0.5
    return nn.Parameter(torch.randn(config.heads, config.head_width, columns) * scale)


def frozen(weights: Tensor, reset: Tensor) -> Tensor:
    """Weights (B, ...) that nobody writes, before each of T steps (T, B, ...): zero from the first reset on."""
    cleared = reset.cummax(dim=0).values
    return torch.where(cleared.reshape(*reset.shape, *[1] * (weights.dim() - 1)), 0.0, weights)


class FeedForwardBlock(nn.Module):
    """x + linear(relu(linear(layer_norm(x)))), with a gate for the hidden units."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.gate = Gate(hidden)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.linear2(self.gate(self.linear1(self.layer_norm(x)).relu()))
        return result


class LayeredCore(Core):
    """Linear map to the width, then `config.layers` times (layer, feed-forward block)."""

    layer_class: ClassVar[type[Layer]]
    """Made as `layer_class(config)`."""

    def __init__(self, config: LayeredConfig, input_size: int) -> None:
        super().__init__(input_size, config.width)
        make: Any = self.layer_class
        self.input_linear = nn.Linear(input_size, config.width)
        self.layers = nn.ModuleList([make(config) for _ in range(config.layers)])
        self.blocks = nn.ModuleList(
            [FeedForwardBlock(config.width, config.feedforward) for _ in range(config.layers)]
        )

    @torch.no_grad()
    def quieten(self) -> None:
        """See `Core.quieten`: the core is then an orthogonal map of its input."""
        nn.init.orthogonal_(self.input_linear.weight)
        self.input_linear.bias.zero_()
        for _, layer, block in self._stack():
            layer.out_linear.weight.zero_()
            block.linear2.weight.zero_()
            block.linear2.bias.zero_()

    def set_writing(self, writing: bool) -> None:
        """See `Core.set_writing`."""
        super().set_writing(writing)
        for _, layer, _ in self._stack():
            layer.writing = writing

    def _stack(self) -> Iterator[tuple[int, Layer, FeedForwardBlock]]:
        for index, (layer, block) in enumerate(zip(self.layers, self.blocks, strict=True)):
            assert isinstance(layer, Layer)
            assert isinstance(block, FeedForwardBlock)
            yield index, layer, block

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        return next(layer.implementations(steps) for _, layer, _ in self._stack())

    def step_factors(self) -> dict[str, Tensor]:
        """See `Core.step_factors`."""
        return {
            f"layers.{index}.{name}": factor
            for index, layer, _ in self._stack()
            for name, factor in layer.step_factors().items()
        }

    def gradient_blocks(self) -> dict[str, Tensor]:
        """See `Core.gradient_blocks`."""
        return {
            f"layer{index}/{name}": gradient
            for index, layer, _ in self._stack()
            for name, gradient in layer.gradient_blocks().items()
        }

    def _initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        return {
            f"layer{index}/{name}": torch.zeros(batch_size, *shape, device=device, dtype=dtype)
            for index, layer, _ in self._stack()
            for name, shape in layer.memory_shapes.items()
        }

    def _sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        return self._examine(x, memory, reset, None)

    def _examine(self, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
        new_memory: State = {}
        h = self.input_linear(x)
        for index, layer, block in self._stack():
            found: list[Reading] = []
            own = {name: memory[f"layer{index}/{name}"] for name in layer.memory_shapes}
            h, own = layer(h, own, reset, None if readings is None else found)
            h = block(h)
            new_memory.update({f"layer{index}/{name}": tensor for name, tensor in own.items()})
            if readings is not None:
                readings += [replace(reading, layer=index) for reading in found]
        return h, new_memory
