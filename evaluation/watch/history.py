"""What a session has shown so far, as far back as memory allows."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Numbers = dict[str, Any]

HALF, FULL = 256, 512
"""Height and width of pictures in pixels: for a tile of a grid, and at full render resolution."""

_QUALITY = {HALF: 85, FULL: 88}


@dataclass(eq=False)
class FrameRecord:
    """One game of one side at one step.

    Attributes:
        numbers: What the page shows, plain JSON values.
        rgb: What the policy sees (64, 64, 3).
        frame: The same at full size (512, 512, 3); only of the latest step, and only where games are rendered.
        weights: W_t - W_0 after the step, by name (heads, rows, columns).
        pictures: Compressed frames, by their height and width in pixels.
    """

    numbers: Numbers
    rgb: NDArray[np.uint8]
    frame: NDArray[np.uint8] | None
    weights: Mapping[str, Tensor]
    pictures: dict[int, bytes] = field(default_factory=dict)

    def picture(self, size: int) -> bytes:
        """The frame at `size` pixels (`HALF` or `FULL`), or the nearest to it that was kept."""
        if size not in self.pictures:
            if self.frame is None:
                return next(iter(self.pictures.values()), None) or self.eye()
            image = Image.fromarray(self.frame)
            if size == HALF:
                image = image.reduce(FULL // HALF)
            self.pictures[size] = _compressed(image, "JPEG", quality=_QUALITY[size])
        return self.pictures[size]

    def eye(self) -> bytes:
        """What the policy sees, without loss."""
        return _compressed(Image.fromarray(self.rgb), "PNG", compress_level=1)

    @property
    def bytes(self) -> int:
        """Memory that it takes, the full frame aside."""
        pictures = sum(map(len, self.pictures.values()))
        return self.rgb.nbytes + pictures + sum(w.nbytes for w in self.weights.values()) + 1000


def _compressed(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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
    def records(self) -> list[FrameRecord]:
        """Those of all sides and games."""
        return [record for records in self.sides for record in records]


class History:
    """The latest ticks, oldest first; the oldest are forgotten when there is no room for them.

    Attributes:
        limit: How many bytes may be kept.
        bytes: How many are in use, the latest full frames aside.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._ticks: deque[Tick] = deque()
        self._sizes: deque[int] = deque()

    def add(self, tick: Tick) -> None:
        """Append a tick. Full frames of the one before are let go."""
        before, now = self.last.records if self.last else [], tick.records
        for record in before:
            if record not in now:
                record.frame = None
        self._ticks.append(tick)
        self._sizes.append(sum(record.bytes for record in now if record not in before))
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
