"""What a session has shown so far, as far back as memory allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evaluation.watch.pictures import jpeg, png

Numbers = dict[str, Any]


@dataclass(eq=False)
class FrameRecord:
    """One game of one side at one step.

    Attributes:
        numbers: What the page shows, plain JSON values.
        rgb: What the policy sees (64, 64, 3).
        frame: The same at full size (512, 512, 3); only of the latest step, and only where games are rendered.
        pictures: Compressed frames, by their height and width in pixels.
        weights: W_t - W_0 after the step, by name (heads, rows, columns).
    """

    numbers: Numbers
    rgb: NDArray[np.uint8]
    frame: NDArray[np.uint8] | None
    pictures: dict[int, bytes]
    weights: Mapping[str, Tensor]

    def picture(self, size: int) -> bytes:
        """The frame at `size` pixels, or the nearest to it that was kept."""
        if size not in self.pictures:
            if self.frame is None:
                return next(iter(self.pictures.values()), None) or self.eye()
            self.pictures[size] = jpeg(self.frame, size)
        return self.pictures[size]

    def eye(self) -> bytes:
        """What the policy sees, without loss."""
        return png(self.rgb)

    @property
    def bytes(self) -> int:
        """Memory that it takes, the full frame aside."""
        pictures = sum(map(len, self.pictures.values()))
        return self.rgb.nbytes + pictures + sum(w.nbytes for w in self.weights.values()) + 1000


@dataclass(frozen=True)
class Tick:
    """One step of all games.

    Attributes:
        number: Its number, counted from 1 on for as long as the session lives.
        sides: The records by side and game.
        fresh: Which of them are new; in the others the game waits for its other side, at its last record.
    """

    number: int
    sides: tuple[tuple[FrameRecord, ...], ...]
    fresh: tuple[tuple[bool, ...], ...]

    def numbers(self) -> list[list[Numbers | None]]:
        """By side and game; None where nothing is new."""
        return [
            [record.numbers if fresh else None for record, fresh in zip(records, row, strict=True)]
            for records, row in zip(self.sides, self.fresh, strict=True)
        ]

    @property
    def bytes(self) -> int:
        """Memory that its new records take."""
        return sum(
            record.bytes
            for records, row in zip(self.sides, self.fresh, strict=True)
            for record, fresh in zip(records, row, strict=True)
            if fresh
        )


@dataclass
class History:
    """The latest ticks, oldest first; the oldest are forgotten when there is no room for them.

    Attributes:
        limit: How many bytes may be kept.
    """

    limit: int
    _ticks: deque[Tick] = field(default_factory=deque)
    _sizes: deque[int] = field(default_factory=deque)
    _total: int = 0

    def add(self, tick: Tick) -> None:
        """Append a tick. Full frames of the one before are let go."""
        if self._ticks:
            kept = {id(record) for records in tick.sides for record in records}
            for records in self._ticks[-1].sides:
                for record in records:
                    if id(record) not in kept:
                        record.frame = None
        self._ticks.append(tick)
        self._sizes.append(tick.bytes)
        self._total += self._sizes[-1]
        while self._total > self.limit and len(self._ticks) > 1:
            self._ticks.popleft()
            self._total -= self._sizes.popleft()

    def clear(self) -> None:
        """Forget everything."""
        self._ticks.clear()
        self._sizes.clear()
        self._total = 0

    def get(self, number: int) -> Tick | None:
        """The tick of this number, if it is still there."""
        if not self._ticks:
            return None
        index = number - self._ticks[0].number
        return self._ticks[index] if 0 <= index < len(self._ticks) else None

    @property
    def first(self) -> int | None:
        """Number of the oldest tick."""
        return self._ticks[0].number if self._ticks else None

    @property
    def last(self) -> Tick | None:
        """The latest tick."""
        return self._ticks[-1] if self._ticks else None

    @property
    def bytes(self) -> int:
        """Memory that is in use, the latest full frames aside."""
        return self._total

    def latest(self, count: int) -> list[Tick]:
        """The latest ticks, at most `count`, oldest first."""
        return list(self._ticks)[-count:]
