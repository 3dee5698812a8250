"""The contract of a recurrent core.

A core is called in the same way for one step and for a whole sequence. It knows nothing about images, games
or learning algorithms. To add one: a config dataclass and a `Core` in one file, and a line in
`policies/registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from common.errors import UserError
from policies.resets import EpisodeReset, ResetRule, State

MAX_SIZE = 65_536
"""Largest width of anything in a network; beyond it a number is a typing error."""

MAX_LAYERS = 1_000


@dataclass(frozen=True)
class CoreConfig:
    """Sizes of a core. Subclasses add fields with defaults; `common.config` says how to state what they may be."""


class Kind(Enum):
    """What the numbers of a reading are, which decides how they are shown."""

    NORM = "norm"
    """Frobenius norms, from 0 upwards."""
    RATE = "rate"
    """Learning rates that the core generates for itself, from 0 to 1."""
    WRITTEN = "written"
    """Frobenius norms of what a single step has written."""
    SHARE = "share"
    """Shares, from 0 upwards; all but a few are below 1."""


@dataclass(frozen=True)
class Reading:
    """One number for each environment, read off a core at one step.

    Attributes:
        name: Name of the quantity, such as "shift_norm".
        values: The numbers (B,).
        layer: Index of the layer that it is about; None for the whole core.
        heads: The numbers head by head (B, H), where `values` are their means; None where there is no such thing.
    """

    name: str
    kind: Kind
    values: Tensor
    layer: int | None = None
    heads: Tensor | None = None

    @property
    def tag(self) -> str:
        """Its name in logs: "layer0/shift_norm"."""
        return self.name if self.layer is None else f"layer{self.layer}/{self.name}"


Readings = list[Reading] | None
"""Gets what there is to say about a step; None where nobody asks."""


class Core(nn.Module, ABC):
    """Maps inputs (T, B, input_size) to outputs (T, B, output_size), remembering in between.

    Subclasses are made as `core(config, input_size)`. They build their parameters in `__init__` and implement
    `_initial_memory` and `_sequence`. Reset rule and gradient horizon are handled here, once for all cores.

    Attributes:
        reset_rule: When the memory is cleared.
        bptt_span: Gradient horizon. None: gradient flows through the whole sequence that a call is given. n: the
            state is detached every n steps, counted from the start of that sequence (its first step included),
            which leaves all values as they are.
    """

    config_class: ClassVar[type[CoreConfig]]
    """The class of this core's configuration."""

    is_recurrent: bool = True
    """False where outputs depend on nothing but the input of the same step; such a core needs no reset rule."""

    transparent: bool = False
    """Whether the core returns its input as it is: there is nothing to bypass then."""

    self_modifying: bool = False
    """Whether the memory is weights (B, H, rows, columns) that the core itself writes at every step."""

    reset_rule: ResetRule = EpisodeReset()
    bptt_span: int | None = None

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.output_size = output_size

    def _initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        """The memory of `batch_size` fresh environments; none unless a core says otherwise."""
        return {}

    @abstractmethod
    def _sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        """Outputs and new memory; `reset` (T, B) says before which steps the memory is cleared."""

    def _examine(self, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
        """`_sequence` for one step (x: (1, B, F)); `readings` gets what there is to say about it."""
        return self._sequence(x, memory, reset)

    def quieten(self) -> None:
        """Let a fresh core's layers begin by adding nothing to what they are given, where it has such layers."""

    def set_writing(self, writing: bool) -> None:
        """Whether the core goes on writing its own weights. While it does not, it reads them as they are.

        What it keeps from then on is the memory that the state holds; resets still clear it. Other memory than
        weights (an LSTM's cells) is not affected.

        Raises:
            UserError: `writing` is false and the core does not modify itself.
        """
        if not (writing or self.self_modifying):
            raise UserError(f"a {type(self).__name__} does not modify its weights: there is nothing to stop")

    def implementations(self, steps: int) -> dict[str, str]:
        """By operator (`policies.ops`), the version that runs for a sequence of so many steps."""
        return {}

    def step_factors(self) -> dict[str, Tensor]:
        """By name of a parameter, what its learning rate is multiplied by, element by element (a tensor that can be
        spread to the parameter's shape); 1 for those that are not named. `policies.step_factors` does it."""
        return {}

    def gradient_blocks(self) -> dict[str, Tensor]:
        """Gradients, as they are now, of parts of the weights that are worth a look each, by name such as "layer0/q";
        those that there are none of are left out."""
        return {}

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """The state of `batch_size` fresh environments: a flat dict of tensors, batch first. `device` None is for
        where the parameters are."""
        parameter = next(self.parameters(), torch.empty(0))
        place = parameter.device if device is None else torch.device(device)
        memory = self._initial_memory(batch_size, place, parameter.dtype)
        return {**memory, **self.reset_rule.initial_state(batch_size, place)}

    def memory(self, state: State) -> State:
        """The part of a state, under whatever reset rule, that the core itself remembers."""
        return {name: state[name] for name in self._memory_names}

    def written_weights(self, state: State) -> dict[str, Tensor]:
        """The weights that the core has written (B, H, rows, columns), W_t - W_0, by name such as "layer0/shift";
        none for a core that does not modify itself."""
        return self.memory(state) if self.self_modifying else {}

    def forward(self, x: Tensor, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        """Run over a sequence; `T` calls of one step and one call of `T` steps give the same numbers.

        Args:
            x: Inputs (T, B, input_size), T at least 1.
            state: What the previous call returned, or `initial_state`. Not modified.
            episode_start: bool (T, B); true where step t is the first of an episode.

        Returns:
            outputs (T, B, output_size), and the state after the last step.

        Raises:
            TypeError: `episode_start` is not bool.
            ValueError: Shapes do not fit together.
        """
        return self._run(x, state, episode_start, None)

    @torch.no_grad()
    def examine(self, x: Tensor, state: State, episode_start: Tensor) -> tuple[Tensor, State, list[Reading]]:
        """As `forward`, and what there is to say about the last step: nothing for many cores."""
        if len(x) > 1:
            earlier, state = self(x[:-1], state, episode_start[:-1])
            last, state, found = self.examine(x[-1:], state, episode_start[-1:])
            return torch.cat([earlier, last]), state, found
        readings: list[Reading] = []
        return *self._run(x, state, episode_start, readings), readings

    def _run(
        self, x: Tensor, state: State, episode_start: Tensor, readings: Readings
    ) -> tuple[Tensor, State]:
        self._check(x, state, episode_start)
        # Memories add up small changes over whole episodes: they keep full precision where a caller lowers it.
        with torch.autocast(x.device.type, enabled=False):
            x, memory = x.to(next(self.parameters(), x).dtype), self.memory(state)
            reset, rule_state = self.reset_rule.mask(state, episode_start)
            if readings is None:
                y, memory = self._truncated_sequence(x, memory, reset)
            else:
                y, memory = self._examine(x, memory, reset, readings)
            return y, {**memory, **rule_state}

    def _truncated_sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        """`_sequence`, with gradient cut every `bptt_span` steps."""
        if self.bptt_span is None:
            return self._sequence(x, memory, reset)
        outputs = []
        for piece, piece_reset in zip(x.split(self.bptt_span), reset.split(self.bptt_span), strict=True):
            memory = {name: tensor.detach() for name, tensor in memory.items()}
            y, memory = self._sequence(piece, memory, piece_reset)
            outputs.append(y)
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)), memory

    @cached_property
    def _memory_names(self) -> tuple[str, ...]:
        return tuple(self._initial_memory(1, torch.device("meta"), torch.float32))

    @cached_property
    def _state_names(self) -> frozenset[str]:
        return frozenset(self.initial_state(1))

    def _check(self, x: Tensor, state: State, episode_start: Tensor) -> None:
        if episode_start.dtype is not torch.bool:
            raise TypeError(f"episode_start must be bool, got {episode_start.dtype}")
        if x.dim() != 3 or x.shape[0] == 0 or x.shape[2] != self.input_size:
            raise ValueError(f"x must be (T, B, {self.input_size}) with T at least 1, got {tuple(x.shape)}")
        if episode_start.shape != x.shape[:2]:
            raise ValueError(
                f"episode_start must be (T, B) = {tuple(x.shape[:2])}, got {tuple(episode_start.shape)}"
            )
        if state.keys() != self._state_names:
            names = [", ".join(sorted(keys)) or "nothing" for keys in (self._state_names, state.keys())]
            raise ValueError(f"the state of this core holds {names[0]}; got {names[1]}")
        for name, tensor in state.items():
            if tensor.shape[0] != x.shape[1]:
                raise ValueError(
                    f"state {name!r} is for {tensor.shape[0]} environments, the inputs are for {x.shape[1]}"
                )
