"""A core of its own for each task, for a policy that is told which one it plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from policies.cores.base import Core, Reading, Readings
from policies.resets import State

Run = Callable[[Core, Tensor, State, Tensor, Readings], tuple[Tensor, State]]


class TaskCores(Core):
    """Equal cores, each with weights of its own, of which each stream uses that of its task.

    They share what is below and above them, and the form of their state: a stream has one memory, that of its task's
    core. A stream that goes over to another task must begin with a fresh one.

    Args:
        cores: one for each task, made alike.
    """

    def __init__(self, cores: Sequence[Core]) -> None:
        first = cores[0]
        super().__init__(first.input_size, first.output_size)
        self.cores = nn.ModuleList(cores)
        self.reset_rule, self.bptt_span = first.reset_rule, first.bptt_span
        self.is_recurrent, self.self_modifying = first.is_recurrent, first.self_modifying
        self._chosen: list[tuple[Core, Tensor | None]] = [(first, None)]

    def choose(self, task: Tensor) -> None:
        """From now on, streams play these tasks (B,)."""
        present = task.unique().tolist()
        self._chosen = [
            (self._core(number), None if len(present) == 1 else (task == number).nonzero().squeeze(1))
            for number in present
        ]

    def _core(self, task: int) -> Core:
        core = self.cores[task]
        assert isinstance(core, Core)
        return core

    def _each(self) -> Iterator[Core]:
        return (self._core(task) for task in range(len(self.cores)))

    def _initial_memory(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        return self._core(0)._initial_memory(batch_size, device, dtype)

    def _sequence(self, x: Tensor, memory: State, reset: Tensor) -> tuple[Tensor, State]:
        return self._examine(x, memory, reset, None)

    def _examine(self, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
        core, streams = self._chosen[0]
        if streams is None:
            return _run(core, x, memory, reset, readings)
        y = x.new_empty(*x.shape[:2], self.output_size)
        new_memory = {name: torch.empty_like(tensor) for name, tensor in memory.items()}
        parts: list[tuple[Tensor, list[Reading]]] = []
        for core, streams in self._chosen:
            assert streams is not None
            found: Readings = None if readings is None else []
            own = {name: tensor[streams] for name, tensor in memory.items()}
            said, own = _run(core, x[:, streams], own, reset[:, streams], found)
            y = y.index_copy(1, streams, said)
            new_memory = {
                name: tensor.index_copy(0, streams, own[name]) for name, tensor in new_memory.items()
            }
            parts.append((streams, found or []))
        if readings is not None:
            readings += _joined(parts, x.shape[1])
        return y, new_memory

    def quieten(self) -> None:
        """See `Core.quieten`."""
        for core in self._each():
            core.quieten()

    def set_writing(self, writing: bool) -> None:
        """See `Core.set_writing`."""
        for core in self._each():
            core.set_writing(writing)

    def implementations(self, steps: int) -> dict[str, str]:
        """See `Core.implementations`."""
        return self._core(0).implementations(steps)

    def step_factors(self) -> dict[str, Tensor]:
        """See `Core.step_factors`."""
        return {
            f"cores.{task}.{name}": factor
            for task, core in enumerate(self._each())
            for name, factor in core.step_factors().items()
        }

    def gradient_blocks(self) -> dict[str, Tensor]:
        """See `Core.gradient_blocks`: of the first core of those that were chosen last, in training the only one."""
        return self._chosen[0][0].gradient_blocks()


def _run(core: Core, x: Tensor, memory: State, reset: Tensor, readings: Readings) -> tuple[Tensor, State]:
    if readings is None:
        return core._sequence(x, memory, reset)
    return core._examine(x, memory, reset, readings)


def _joined(parts: Sequence[tuple[Tensor, list[Reading]]], batch: int) -> list[Reading]:
    """The readings of groups of streams as those of all `batch` streams."""
    order = torch.cat([streams for streams, _ in parts]).argsort()

    def all_of(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [value for value in values if value is not None]
        return torch.cat(known)[order] if known else None

    joined = []
    for same in zip(*(readings for _, readings in parts), strict=True):
        values = all_of([reading.values for reading in same])
        assert values is not None
        assert len(values) == batch
        joined.append(replace(same[0], values=values, heads=all_of([reading.heads for reading in same])))
    return joined
