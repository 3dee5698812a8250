"""What a session has shown so far, as far back as memory allows."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from evaluation.inspection import Moment

Numbers = dict[str, Any]

OVERHEAD = 1000
"""Bytes that a record takes beside its arrays, roughly."""


@dataclass(eq=False)
class FrameRecord:
    """One game of one side at one step.

    Attributes:
        numbers: What the page shows, plain JSON values.
        rgb: What the policy sees (64, 64, 3).
        native: The game's own state, from which its picture can be rendered.
        weights: W_t - W_0 after the step, by name (heads, rows, columns).
    """

    numbers: Numbers
    rgb: NDArray[np.uint8]
    native: NDArray[np.uint8]
    weights: Mapping[str, Tensor]

    def eye(self) -> bytes:
        """What the policy sees, as a PNG, without loss."""
        buffer = io.BytesIO()
        Image.fromarray(self.rgb).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return self.rgb.nbytes + self.native.nbytes + sum(w.nbytes for w in self.weights.values()) + OVERHEAD


@dataclass(frozen=True)
class Tally:
    """Returns of the episodes of one game so far."""

    episodes: int = 0
    total: float = 0.0
    last: float | None = None

    def and_one_of(self, score: float) -> Tally:
        """With one more episode."""
        return Tally(self.episodes + 1, self.total + score, score)

    @property
    def mean(self) -> float | None:
        """Mean return; None before the first episode has ended."""
        return self.total / self.episodes if self.episodes else None


@dataclass(frozen=True, eq=False)
class SideMoment:
    """Where a side stands between two steps.

    Attributes:
        player: Where its player stands.
        tallies: Of each game.
        records: What it showed last.
    """

    player: Moment
    tallies: tuple[Tally, ...]
    records: tuple[FrameRecord, ...]


@dataclass(frozen=True)
class Tick:
    """One step of all games.

    Attributes:
        number: Its number, counted from 1 on for as long as the session lives.
        sides: The records by side and game.
        fresh: Which of them are new; in the others the game waits for its other side, at its last record.
        moments: By side, where it stood before the step.
        episodes: By game, how many levels of its order had begun.
    """

    number: int
    sides: tuple[tuple[FrameRecord, ...], ...]
    fresh: tuple[tuple[bool, ...], ...]
    moments: tuple[SideMoment, ...]
    episodes: tuple[int, ...]

    def numbers(self) -> list[list[Numbers | None]]:
        """By side and game; None where nothing is new."""
        return [
            [record.numbers if fresh else None for record, fresh in zip(records, row, strict=True)]
            for records, row in zip(self.sides, self.fresh, strict=True)
        ]

    @property
    def records(self) -> list[FrameRecord]:
        """Those of all sides and games."""
        return [record for records in self.sides for record in records]


class History:
    """The latest ticks, oldest first; the oldest are forgotten when there is no room for them.

    Attributes:
        limit: How many bytes may be kept.
        bytes: How many are in use.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._ticks: deque[Tick] = deque()
        self._sizes: deque[int] = deque()

    def add(self, tick: Tick) -> None:
        """Append a tick."""
        before = self.last.records if self.last else []
        self._ticks.append(tick)
        self._sizes.append(sum(record.bytes for record in tick.records if record not in before))
        self.bytes += self._sizes[-1]
        while self.bytes > self.limit and len(self._ticks) > 1:
            self._ticks.popleft()
            self.bytes -= self._sizes.popleft()

    def get(self, number: int) -> Tick | None:
        """The tick of this number, if it is still there."""
        index = number - (self.first or 0)
        return self._ticks[index] if 0 <= index < len(self._ticks) else None

    @property
    def first(self) -> int | None:
        """Number of the oldest tick."""
        return self._ticks[0].number if self._ticks else None

    @property
    def last(self) -> Tick | None:
        """The latest tick."""
        return self._ticks[-1] if self._ticks else None

    def after(self, number: int) -> list[Tick]:
        """The ticks after the one of this number, oldest first."""
        latest_first = takewhile(lambda tick: tick.number > number, reversed(self._ticks))
        return list(latest_first)[::-1]
