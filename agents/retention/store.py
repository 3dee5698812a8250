"""Unrolls of the past, each that was ever offered kept with the same probability, on disk or in memory.

Rows go into an open segment; when it is full it is written to a file that never changes. A checkpoint holds which row
of which segment stands at each place, and the open segment, so it costs the same however much is stored, and every
checkpoint that is kept can be continued exactly: nothing that it names is overwritten.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.checkpoint import CheckpointError
from agents.retention.stored import Kind
from agents.retention.unrolls import BatchBuffer, Rows, Segment, check_row_kinds, rows_of, write_segment
from agents.schema import Array, Named, Table, Text, Whole
from common.errors import UserError, shown
from policies import State

SEGMENT_ROWS = 64
"""Unrolls of a segment."""
MAX_BYTES_IN_CHECKPOINT = 512 << 20
"""Of unrolls that have no directory."""

_ROWS = Named(Array(("uint8", "bool", "int64", "float16", "bfloat16", "float32", "float64")))
INDEX = Table(
    {
        "places": Array(("int64",), 2),
        "seen": Whole(),
        "number": Whole(),
        "filled": Whole(),
        "files": Named(Text()),
        "in_memory": Named(_ROWS),
        "open": _ROWS,
    }
)
"""What a checkpoint holds of a store."""

logger = logging.getLogger(__name__)


class UnrollStore:
    """A reservoir of unrolls (Vitter 1985, algorithm R).

    Attributes:
        seen: unrolls that were offered so far.
    """

    def __init__(self, capacity: Callable[[int], int], generator: torch.Generator) -> None:
        """`capacity` says how many unrolls of so many bytes are kept; `generator` draws, on the CPU."""
        self._capacity_for, self._capacity = capacity, 0
        self._generator = generator
        self._directory: Path | None = None
        self._places = np.zeros((0, 2), dtype=np.int64)  # segment and row of each
        self.seen = 0
        self._number, self._filled = 0, 0  # of the open segment
        self._open: Rows = {}
        self._files: dict[int, str] = {}
        self._in_memory: dict[int, Rows] = {}
        self._mapped: dict[int, Segment] = {}

    def __len__(self) -> int:
        return len(self._places)

    # Writing

    def use_directory(self, directory: Path) -> None:
        """Full segments go to `directory`, and those of a checkpoint are there.

        Raises:
            CheckpointError: some are not.
        """
        self._directory = directory
        self._mapped.clear()
        missing = [name for name in self._files.values() if not (directory / name).exists()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise CheckpointError(
                f"{directory / missing[0]}{more} is missing: the checkpoint's stored unrolls are there; "
                "put it back, or begin anew"
            )

    def offer(self, count: int, rows_at: Callable[[list[int]], Rows]) -> None:
        """Offer so many unrolls; `rows_at` gives the rows of those with certain numbers, and is asked for few."""
        if not self._open:
            self._begin(rows_at([0]))
        places = [self._place() for _ in range(count)]
        accepted = [(column, place) for column, place in enumerate(places) if place is not None]
        if not accepted:
            return
        rows = rows_at([column for column, _ in accepted])
        for index, (_, place) in enumerate(accepted):
            self._put(place, {name: tensor[index] for name, tensor in rows.items()})
        self._compact()

    def _begin(self, like: Rows) -> None:
        """An open segment for rows like these."""
        self._open = {name: _room(tensor) for name, tensor in like.items()}
        self._capacity = self._capacity_for(sum(tensor[0].nbytes for tensor in self._open.values()))

    def _place(self) -> int | None:
        """Where the next unroll goes, if anywhere."""
        self.seen += 1
        if self.seen <= self._capacity:
            return self.seen - 1
        place = int(torch.randint(self.seen, (1,), generator=self._generator))
        return place if place < self._capacity else None

    def _put(self, place: int, row: Mapping[str, Any]) -> None:
        """Write a row to the open segment, and make it that of `place`."""
        for name, tensor in self._open.items():
            tensor[self._filled].copy_(torch.as_tensor(row[name]))
        if place == len(self._places):
            self._places = np.append(self._places, [[0, 0]], axis=0)
        self._places[place] = self._number, self._filled
        self._filled += 1
        if self._filled == SEGMENT_ROWS:
            self._in_memory[self._number] = self._open
            self._open = {name: _room(tensor) for name, tensor in self._open.items()}
            self._number, self._filled = self._number + 1, 0
            self._write()

    def _write(self) -> None:
        """Write the full segments that are not on disk; what cannot be written stays in memory and is tried again."""
        if self._directory is None:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for number in sorted(self._in_memory):
                self._files[number] = write_segment(self._directory, number, self._in_memory[number]).name
                del self._in_memory[number]
        except OSError as error:
            logger.warning(
                "warning: stored unrolls cannot be written to %s (%s): they stay in memory, and are tried again",
                *(self._directory, error.strerror or error),
            )

    def _compact(self) -> None:
        """Where more than half of all rows are of no use any more, give up the segments with the fewest useful ones."""
        while True:
            closed = sorted({*self._files, *self._in_memory})
            useful = np.bincount(self._places[:, 0], minlength=self._number + 1)
            if len(closed) * SEGMENT_ROWS <= 2 * useful[closed].sum() + SEGMENT_ROWS:
                return
            emptiest = min(closed, key=lambda number: (useful[number], number))
            for place in np.flatnonzero(self._places[:, 0] == emptiest):
                row = self._row(emptiest, int(self._places[place, 1]))
                self._put(int(place), {name: np.array(value) for name, value in row.items()})
            self._files.pop(emptiest, None)
            self._in_memory.pop(emptiest, None)
            self._mapped.pop(emptiest, None)

    def prune(self, kept: Mapping[Path, Mapping[str, Any]]) -> None:
        """Delete the files that are named neither here nor in `kept`, states of checkpoints."""
        if self._directory is None or not self._directory.is_dir():
            return
        named = {*self._files.values(), *(n for state in kept.values() for n in state["files"].values())}
        for path in self._directory.glob("*.ckpt"):
            if path.name not in named:
                with contextlib.suppress(OSError):
                    path.unlink()

    # Reading

    def sample(self, count: int, device: torch.device) -> tuple[dict[str, Tensor], State]:
        """So many unrolls, drawn evenly; different ones, as long as there are enough.

        Returns:
            Sequences (T, B, ...) by name, and the states that they begin with (B, ...).
        """
        numbers: list[int] = []
        while len(numbers) < count:
            numbers += torch.randperm(len(self), generator=self._generator).tolist()[: count - len(numbers)]
        shapes = {name: (tensor.dtype, tensor.shape[1:]) for name, tensor in self._open.items()}
        buffer = BatchBuffer(shapes, count)
        for index, number in enumerate(numbers):
            segment, row = self._places[number]
            buffer.put(index, self._row(int(segment), int(row)))
        return buffer.tensors(device)

    def _row(self, segment: int, row: int) -> Mapping[str, Any]:
        if segment == self._number:
            return {name: tensor[row] for name, tensor in self._open.items()}
        if segment in self._in_memory:
            return {name: tensor[row] for name, tensor in self._in_memory[segment].items()}
        if segment not in self._mapped:
            if self._directory is None:
                raise UserError("the stored unrolls are in a directory: name it with retention.use_directory")
            found = Segment(self._directory / self._files[segment])
            if found.shapes != {
                name: (tensor.dtype, tensor.shape[1:]) for name, tensor in self._open.items()
            }:
                raise CheckpointError(
                    f"{found.path} holds unrolls of another kind: the checkpoint's are not there"
                )
            self._mapped[segment] = found
        return self._mapped[segment].row(row)

    # State

    def saving_problems(self) -> list[str]:
        """One line if, without a directory, more is stored than a checkpoint takes."""
        size = sum(t.nbytes for rows in self._in_memory.values() for t in rows.values())
        if size <= MAX_BYTES_IN_CHECKPOINT:
            return []
        return [
            f"{size / 2**20:,.0f} MiB of stored unrolls do not go into a checkpoint: store fewer "
            "(retain.replay_steps), or on disk (retention.use_directory)"
        ]

    def state(self) -> dict[str, Any]:
        """For a checkpoint; nothing is copied."""
        return {
            "places": self._places,
            "seen": self.seen,
            "number": self._number,
            "filled": self._filled,
            "files": {str(number): name for number, name in self._files.items()},
            "in_memory": {str(number): rows for number, rows in self._in_memory.items()},
            "open": {name: tensor[: self._filled] for name, tensor in self._open.items()},
        }

    def load_state(self, state: Mapping[str, Any], kinds: Mapping[str, Kind] | None = None) -> None:
        """Go on from what `state` returned, which may have come from a file.

        `kinds` are those of a row; None takes whatever it is.

        Raises:
            ValueError: it is of another form, or its parts do not fit together.
        """
        if self._is_at(state):
            return
        INDEX.check(state, "index of stored unrolls")
        _check_places(state)
        if kinds is not None:
            for rows in filter(None, (state["open"], *state["in_memory"].values())):
                check_row_kinds(rows, kinds)
        self._places = np.array(state["places"], dtype=np.int64).reshape(-1, 2)
        self.seen, self._number, self._filled = (int(state[name]) for name in ("seen", "number", "filled"))
        self._files = {int(number): str(name) for number, name in state["files"].items()}
        self._in_memory = {int(number): dict(rows) for number, rows in state["in_memory"].items()}
        self._mapped.clear()
        if state["open"]:
            self._begin(state["open"])
        for name, tensor in state["open"].items():
            self._open[name][: self._filled].copy_(tensor)

    def _is_at(self, state: Mapping[str, Any]) -> bool:
        """Whether `state` is that of this store, as it is: a phase that is undone has stored nothing."""
        return state["places"] is self._places and int(state["seen"]) == self.seen


def _check_places(state: Mapping[str, Any]) -> None:
    """Refuse an index that names rows which are not there, or files elsewhere."""
    if strange := [name for name in state["files"].values() if Path(name).name != name]:
        raise ValueError(f"its stored unrolls are in {shown(strange[0])}, which is not the name of a file")
    whole = {int(number): SEGMENT_ROWS for number in (*state["files"], *state["in_memory"])}
    rows = {**whole, int(state["number"]): int(state["filled"])}
    tables = [
        (state["filled"], state["open"]),
        *((SEGMENT_ROWS, table) for table in state["in_memory"].values()),
    ]
    places = np.array(state["places"]).reshape(-1, 2).tolist()
    if any(not 0 <= row < rows.get(segment, 0) for segment, row in places) or len(places) > state["seen"]:
        raise ValueError("its index of stored unrolls names some that are not there")
    if any(t.ndim == 0 or len(t) != size for size, table in tables for t in table.values()) or (
        places and not state["open"]
    ):
        raise ValueError("its stored unrolls are not as many as its index says")


def _room(like: Tensor) -> Tensor:
    """Zeros for a whole segment of rows like those of `like` (n, ...)."""
    return torch.zeros(SEGMENT_ROWS, *like.shape[1:], dtype=like.dtype)


def offer(store: UnrollStore, sequences: Mapping[str, Tensor], state: State) -> None:
    """Offer every unroll of sequences (T, B, ...) that begin with `state` (B, ...)."""
    count = next(iter(sequences.values())).shape[1]
    store.offer(count, lambda columns: rows_of(sequences, state, columns))
