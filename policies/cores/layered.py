"""What the published SRWM and DeltaNet networks share: a linear map to the width of the network, then layers,
each followed by a residual feed-forward block (Irie et al., arXiv 2202.05780; sizes of its RL experiments as
defaults)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from common.errors import UserError
from policies.cores.base import Core, CoreConfig
from policies.ops import check_requested, chosen
from policies.resets import ResetRule, State
from policies.sizes import require_positive


@dataclass(frozen=True)
class LayeredConfig(CoreConfig):
    """Sizes of a layered core.

    Attributes:
        width: features of each layer, a multiple of `heads`.
        heads: independent matrices per layer; each is `width / heads` wide.
        feedforward: hidden units of the feed-forward block after each layer.
        layers: number of layers.

    Raises:
        UserError: a size is not a positive whole number, or `width` is not a multiple of `heads`.
    """

    width: int = 128
    heads: int = 8
    feedforward: int = 512
    layers: int = 2

    def __post_init__(self) -> None:
        for name in ("width", "heads", "feedforward", "layers"):
            require_positive(f"core {name}", getattr(self, name))
        if self.width % self.heads:
            raise UserError(
                f"core width {self.width} is not a multiple of its {self.heads} heads: change one"
            )

    @property
    def head_width(self) -> int:
        """Features of one head."""
        return self.width // self.heads


@dataclass(frozen=True)
class OperatorConfig(LayeredConfig):
    """A layered core whose layers run sequence operators (`policies.ops`).

    Attributes:
        implementation: version of the operators: "auto" for the fastest one by device and shape, or a name such as
            "naive", for each of the core's operators that has a version of this name. All compute the same.

    Raises:
        UserError: no operator of this core has such a version.
    """

    implementation: str = "auto"

    operators: ClassVar[tuple[str, ...]] = ()
    """The operators that the core runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_requested(self.implementation, self.operators)


class Layer(nn.Module, ABC):
    """One layer with a memory: maps (T, B, width) to (T, B, width), its residual connection included.

    Attributes:
        writing: whether a layer that writes its own weights does so; see `Core.set_writing`.
    """

    writing: bool = True

    @abstractmethod
    def initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        """The memory of fresh streams."""

    @abstractmethod
    def forward(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        """Outputs (T, B, width) and the new memory."""

    def diagnostics(self, x: Tensor, memory: State, reset: Tensor) -> dict[str, Tensor]:
        """What describes one step (x: (1, B, width)): by name, a number for each stream (B,)."""
        return {}


def held(weights: Tensor, reset: Tensor) -> Tensor:
    """Weights (B, ...) that nobody writes, before each of T steps (T, B, ...): zero once a stream was reset."""
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
    """Linear map to the width, then `config.layers` times (layer, feed-forward block).

    Args:
        config: sizes.
        make_layer: builds one layer.
        input_size, reset, bptt_span: as for `Core`.
    """

    def __init__(
        self,
        config: LayeredConfig,
        make_layer: Callable[[], Layer],
        input_size: int,
        reset: ResetRule | None,
        bptt_span: int | None,
    ) -> None:
        super().__init__(input_size, config.width, reset, bptt_span)
        self.config = config
        self.input_linear = nn.Linear(input_size, config.width)
        layers: list[Layer] = [make_layer() for _ in range(config.layers)]
        blocks = [FeedForwardBlock(config.width, config.feedforward) for _ in range(config.layers)]
        self.layers, self.blocks = nn.ModuleList(layers), nn.ModuleList(blocks)

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
        config = self.config
        if not isinstance(config, OperatorConfig):
            return {}
        device, width = self.input_linear.weight.device, config.head_width
        return {
            name: chosen(name, device, steps, width, width, config.implementation)
            for name in config.operators
        }

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

    def _last_step_diagnostics(self, x: Tensor, memory: State, reset: Tensor) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        h = self.input_linear(x)
        for index, layer, block in self._stack():
            layer_memory = _part(index, memory)
            values.update(_prefixed(index, layer.diagnostics(h, layer_memory, reset)))
            h = block(layer(h, layer_memory, reset)[0])
        return values


def _prefixed(index: int, entries: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"layer{index}/{name}": tensor for name, tensor in entries.items()}


def _part(index: int, entries: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"layer{index}/"
    return {name[len(prefix) :]: tensor for name, tensor in entries.items() if name.startswith(prefix)}
