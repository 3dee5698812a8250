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
from policies.cores.base import MAX_LAYERS, MAX_SIZE, Core, CoreConfig
from policies.diagnostics import Kind, Reading
from policies.ops.operator import AUTO
from policies.resets import State


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


class Layer(nn.Module, ABC):
    """One layer with a memory: maps (T, B, width) to (T, B, width), its residual connection included.

    Attributes:
        writing: whether a layer that writes its own weights does so; see `Core.set_writing`.
    """

    writing: bool = True

    @abstractmethod
    def initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        """The memory of fresh environments."""

    @abstractmethod
    def forward(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        """Outputs (T, B, width) and the new memory."""

    def examine(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State, list[Reading]]:
        """`forward` for one step (x: (1, B, width)), and what there is to say about it."""
        return *self(x, memory, reset), []

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        return {}


def norm_of(weights: Tensor, name: str) -> Reading:
    """The Frobenius norm of weights (B, H, rows, columns), all heads together."""
    return Reading(None, name, Kind.NORM, weights.flatten(1).norm(dim=1))


def frozen(weights: Tensor, reset: Tensor) -> Tensor:
    """Weights (B, ...) that nobody writes, before each of T steps (T, B, ...): zero from the first reset on."""
    cleared = reset.cummax(dim=0).values
    return torch.where(cleared.reshape(*reset.shape, *[1] * (weights.dim() - 1)), 0.0, weights)


class FeedForwardBlock(nn.Module):
    """x + linear(relu(linear(layer_norm(x))))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        result: Tensor = x + self.linear2(self.linear1(self.layer_norm(x)).relu())
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

    def _initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        memory: State = {}
        for index, layer, _ in self._stack():
            memory.update(_prefixed(index, layer.initial_memory(batch_size, device, dtype)))
        return memory

    def _sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        new_memory: State = {}
        h = self.input_linear(x)
        for index, layer, block in self._stack():
            h, layer_memory = layer(h, _part(index, memory), reset)
            new_memory.update(_prefixed(index, layer_memory))
            h = block(h)
        return h, new_memory

    def _examined_step(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State, list[Reading]]:
        new_memory: State = {}
        readings: list[Reading] = []
        h = self.input_linear(x)
        for index, layer, block in self._stack():
            h, layer_memory, found = layer.examine(h, _part(index, memory), reset)
            new_memory.update(_prefixed(index, layer_memory))
            readings += [replace(reading, layer=index) for reading in found]
            h = block(h)
        return h, new_memory, readings


def _prefixed(index: int, entries: State) -> State:
    return {f"layer{index}/{name}": tensor for name, tensor in entries.items()}


def _part(index: int, entries: State) -> State:
    prefix = f"layer{index}/"
    return {name[len(prefix) :]: tensor for name, tensor in entries.items() if name.startswith(prefix)}
