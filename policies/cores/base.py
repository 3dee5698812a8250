"""The contract of a recurrent core.

A core is called in the same way for one step and for a whole sequence. It knows nothing about images, games
or learning algorithms. To add one: a config dataclass and a `Core` in one file, and a line in
`policies/registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from common.errors import UserError
from policies.resets import AGE, EpisodeReset, ResetRule, State
from policies.sizes import require_positive


@dataclass(frozen=True)
class CoreConfig:
    """Sizes of a core. Subclasses add fields with defaults, and check them in `__post_init__`."""


class Core(nn.Module, ABC):
    """Maps inputs (T, B, input_size) to outputs (T, B, output_size), remembering in between.

    Subclasses build their parameters in `__init__` and implement `_initial_memory` and `_sequence`. Reset
    rule and gradient horizon are handled here, once for all cores.

    Args:
        input_size: features of the input.
        output_size: features of the output.
        reset: when the memory is cleared.
        bptt_span: gradient horizon. None: gradient flows through the whole sequence that a call is given. n:
            the state is detached every n steps, counted from the start of that sequence (its first step
            included), which leaves all values as they are.

    Raises:
        UserError: `bptt_span` is neither None nor a positive whole number.
    """

    is_recurrent: bool = True
    """False where outputs depend on nothing but the input of the same step; the state is then empty."""

    self_modifying: bool = False
    """Whether the memory is weights that the core itself writes at every step."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        reset: ResetRule | None = None,
        bptt_span: int | None = None,
    ) -> None:
        super().__init__()
        if bptt_span is not None:
            require_positive("bptt_span", bptt_span)
        self.input_size = input_size
        self.output_size = output_size
        self.reset_rule = reset if reset is not None else EpisodeReset()
        self.bptt_span = bptt_span

    @abstractmethod
    def _initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        """The memory of `batch_size` fresh streams."""

    @abstractmethod
    def _sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        """Outputs and new memory; `reset` (T, B) says before which steps the memory is cleared."""

    def _last_step_diagnostics(self, x: Tensor, memory: State, reset: Tensor) -> dict[str, Tensor]:
        """What there is to say about one step (x: (1, B, F)): by name, a number for each stream (B,)."""
        return {}

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
        """By operator (`policies.ops`), the version that runs in calls of so many steps, where the parameters are."""
        return {}

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """The state of `batch_size` fresh streams: a flat dict of tensors, batch first.

        Args:
            device: None for where the parameters are.
        """
        if not self.is_recurrent:
            return {}
        parameter = next(self.parameters())
        place = parameter.device if device is None else torch.device(device)
        memory = self._initial_memory(batch_size, place, parameter.dtype)
        return {**memory, **self.reset_rule.initial_state(batch_size, place)}

    def forward(self, x: Tensor, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        """Run over a sequence; `T` calls of one step and one call of `T` steps give the same numbers.

        Args:
            x: inputs (T, B, input_size), T at least 1.
            state: what the previous call returned, or `initial_state`. Not modified.
            episode_start: bool (T, B); true where step t is the first of an episode.

        Returns:
            outputs (T, B, output_size), and the state after the last step.

        Raises:
            TypeError: `episode_start` is not bool.
            ValueError: shapes do not fit together.
        """
        self._check(x, state, episode_start)
        # Memories add up small changes over whole episodes: they keep full precision where a caller lowers it.
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(next(self.parameters(), x).dtype)
            if not self.is_recurrent:
                return self._sequence(x, {}, episode_start)
            reset, rule_state = self.reset_rule.mask(state, episode_start)
            y, memory = self._truncated_sequence(x, self._memory_of(state), reset)
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

    @torch.no_grad()
    def diagnostics(self, x: Tensor, state: State, episode_start: Tensor) -> dict[str, Tensor]:
        """Scalars that describe the last step of a sequence, by name: means over streams of `stream_diagnostics`.

        Arguments and errors as for `forward`.
        """
        return {
            name: values.mean() for name, values in self.stream_diagnostics(x, state, episode_start).items()
        }

    @torch.no_grad()
    def stream_diagnostics(self, x: Tensor, state: State, episode_start: Tensor) -> dict[str, Tensor]:
        """What describes the last step of a sequence: by name, a number for each stream (B,).

        Empty for a core with nothing to say. Arguments and errors as for `forward`.
        """
        self._check(x, state, episode_start)
        if not self.is_recurrent:
            return {}
        reset, _ = self.reset_rule.mask(state, episode_start)
        memory = self._memory_of(state)
        if x.shape[0] > 1:
            _, memory = self._sequence(x[:-1], memory, reset[:-1])
        return self._last_step_diagnostics(x[-1:], memory, reset[-1:])

    def _memory_of(self, state: State) -> State:
        return {name: tensor for name, tensor in state.items() if name != AGE}

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
                    f"state {name!r} is for {tensor.shape[0]} streams, the inputs are for {x.shape[1]}"
                )
