"""Single unrolls in memory and on disk: named tensors with one row for each unroll."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.checkpoint import CheckpointError, Place, check_digest, read_layout, write_checkpoint
from agents.retention.stored import Kind, state_kinds
from policies import Policy, State

Rows = dict[str, Tensor]
"""Tensors (n, ...) of n unrolls: sequences (n, T, ...), and parts of the state that they begin with."""

STATE = "state/"
"""What the names of the parts of the initial state begin with."""


def rows_of(sequences: Mapping[str, Tensor], state: State, columns: Sequence[int]) -> Rows:
    """The unrolls of some environments, on the CPU, of sequences (T, B, ...) and states (B, ...)."""
    device = next(iter(sequences.values())).device
    chosen = torch.tensor(columns, dtype=torch.int64, device=device)
    rows = {name: tensor.index_select(1, chosen).transpose(0, 1) for name, tensor in sequences.items()}
    parts = {f"{STATE}{name}": tensor.index_select(0, chosen) for name, tensor in state.items()}
    return {name: tensor.detach().cpu() for name, tensor in {**rows, **parts}.items()}


def row_kinds(sequences: Mapping[str, Kind], policy: Policy) -> dict[str, Kind]:
    """Of one unroll of `sequences` that begins with a state of `policy`."""
    return {**sequences, **{f"{STATE}{name}": kind for name, kind in state_kinds(policy).items()}}


def check_row_kinds(rows: Mapping[str, Tensor], kinds: Mapping[str, Kind]) -> None:
    """Raise ValueError unless each of `rows` (n, ...) is of these kinds."""
    found = {name: (tuple(tensor.shape[1:]), tensor.is_floating_point()) for name, tensor in rows.items()}
    if found != dict(kinds):
        raise ValueError("its stored unrolls are of another network, or of another length")


class BatchBuffer:
    """Sequences side by side, filled unroll by unroll."""

    def __init__(self, shapes: Mapping[str, tuple[torch.dtype, Sequence[int]]], size: int) -> None:
        """`shapes` are types and shapes of one row; `size` is the number of unrolls."""
        self._sequences = {
            name: torch.empty((shape[0], size, *shape[1:]), dtype=dtype)
            for name, (dtype, shape) in shapes.items()
            if not name.startswith(STATE)
        }
        self._state = {
            name: torch.empty((size, *shape), dtype=dtype)
            for name, (dtype, shape) in shapes.items()
            if name.startswith(STATE)
        }

    def put(self, index: int, row: Mapping[str, Tensor | NDArray[Any]]) -> None:
        """Make `row` the unroll of this index."""
        for name, tensor in self._sequences.items():
            _copy(tensor[:, index], row[name])
        for name, tensor in self._state.items():
            _copy(tensor[index], row[name])

    def tensors(self, device: torch.device) -> tuple[dict[str, Tensor], State]:
        """The sequences (T, B, ...) and the states that they begin with (B, ...)."""
        sequences = {name: tensor.to(device) for name, tensor in self._sequences.items()}
        return sequences, {n.removeprefix(STATE): tensor.to(device) for n, tensor in self._state.items()}


def _copy(target: Tensor, source: Tensor | NDArray[Any]) -> None:
    if isinstance(source, Tensor):
        target.copy_(source)
    else:  # numpy copies from where a file is mapped, wherever a number begins there
        target.numpy()[...] = source


class Segment:
    """A file of unrolls that never changes, mapped into memory.

    Its name holds the beginning of its checksum: another content has another name.
    """

    def __init__(self, path: Path) -> None:
        """Map the file and check it.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        self.path = path
        try:
            layout = read_layout(path)["rows"]
            self._data = np.memmap(path, mode="r")
        except (KeyError, OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        check_digest(path, memoryview(self._data))  # type: ignore[arg-type]  # a memmap is a buffer
        self._places: dict[str, Place] = layout
        self.shapes = {name: (place.dtype, place.shape[1:]) for name, place in self._places.items()}

    def row(self, index: int) -> dict[str, NDArray[Any]]:
        """One unroll, not copied."""
        found = {}
        for name, (offset, dtype, (_, *shape)) in self._places.items():
            kind = torch.empty(0, dtype=dtype).numpy().dtype
            length = math.prod(shape) * kind.itemsize
            begin = offset + index * length
            found[name] = self._data[begin : begin + length].view(kind).reshape(shape)
        return found


def write_segment(directory: Path, number: int, rows: Rows) -> Path:
    """Write a segment; its name begins with `number`."""
    partial = directory / f".{number:08d}.partial.ckpt"
    write_checkpoint(partial, {"rows": rows})
    with partial.open("rb") as file:
        file.seek(-32, os.SEEK_END)
        digest = file.read().hex()
    path = directory / f"{number:08d}-{digest[:16]}.ckpt"
    os.replace(partial, path)
    return path
