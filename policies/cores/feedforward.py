"""No memory at all: the heads read the encoder's features and the last reward directly."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from policies.cores.base import Core, CoreConfig
from policies.resets import State


@dataclass(frozen=True)
class FeedForwardConfig(CoreConfig):
    """Nothing to choose."""


class FeedForwardCore(Core):
    """Returns its input; the state is empty, so that users of cores need no special case."""

    config_class = FeedForwardConfig
    is_recurrent = False
    transparent = True

    def __init__(self, config: FeedForwardConfig, input_size: int) -> None:
        super().__init__(input_size, input_size)

    def _sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        return x, {}
