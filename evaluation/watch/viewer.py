"""One browser that looks at a session: what it wants to see, and what it has been sent."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from common.errors import UserError, unknown_name
from evaluation.watch.camera import FULL, HALF, Camera
from evaluation.watch.controls import ALL_HEADS, View
from evaluation.watch.history import FrameRecord
from evaluation.watch.session import Session

BACKLOG = 600
"""Steps of the past whose numbers a new viewer is sent."""

MAX_IN_FLIGHT = 2
"""Updates that a viewer may be sent before it has shown the first of them."""


@dataclass(frozen=True)
class Wanted:
    """What one viewer wants to see; see `controls.View`."""

    game: int = -1
    eye: bool = False
    large: bool = False
    seen: tuple[int, ...] | None = None
    weights: str = ""
    head: int = 0


@dataclass(frozen=True)
class Update:
    """What a viewer has not been sent yet.

    Attributes:
        games: That are played.
        header: Plain JSON values, see `message`.
        pictures: Of each picture its side, game, record, and height and width; None for what the policy sees.
        matrices: Of each matrix its place and the weights of one head, or of all heads.
    """

    games: tuple[str, ...]
    header: dict[str, Any]
    pictures: list[tuple[int, int, FrameRecord, int | None]]
    matrices: list[tuple[dict[str, Any], Tensor]]

    def message(self, camera: Camera) -> bytes:
        """One binary message, with pictures that `camera` takes.

        A 32-bit little-endian length, a JSON header of this length, and then what the header's "pictures" (compressed
        images) and "weights" (float32, head by head and row by row) list, one after the other. "ticks" has the
        numbers of all steps since the last update, pictures and weights are those of the step that is to be shown.
        """
        images = [
            record.eye() if size is None else camera.picture(game, record, size)
            for _, game, record, size in self.pictures
        ]
        places = zip(self.pictures, images, strict=True)
        pictures = [{"side": side, "game": game, "bytes": len(image)} for (side, game, _, _), image in places]
        matrices = [matrix.contiguous().numpy().astype("<f4").tobytes() for _, matrix in self.matrices]
        header = {**self.header, "pictures": pictures, "weights": [place for place, _ in self.matrices]}
        text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
        return b"".join([struct.pack("<I", len(text)), text, *images, *matrices])


class Viewer:
    """A browser.

    Attributes:
        wanted: what it wants to see.
        in_flight: updates that it has been sent and not yet shown.
    """

    def __init__(self, wanted: Wanted | None = None) -> None:
        self.wanted = wanted or Wanted()
        self.in_flight = 0
        self._last_sent = 0
        # What was sent last of each side and game: the record and the size of its picture, the record and which of its
        # weights.
        self._pictures: dict[tuple[int, int], tuple[FrameRecord, int | None]] = {}
        self._weights: dict[tuple[int, int], tuple[FrameRecord, str, int]] = {}

    def change_view(self, view: View, session: Session) -> None:
        """Want something else.

        Raises:
            UserError: there is no such game, matrix or head; nothing has changed then.
        """
        given = {name: value for name, value in asdict(view).items() if value is not None}
        wanted, games, heads = replace(self.wanted, **given), len(session.config.games), heads_of(session)
        if not -1 <= wanted.game < games:
            raise UserError(f"there is no game {wanted.game}: use 0 to {games - 1}, or -1 for all")
        if wanted.weights and wanted.weights not in heads:
            raise UserError(unknown_name("matrix", wanted.weights, heads))
        if wanted.weights and not ALL_HEADS <= wanted.head < heads[wanted.weights]:
            last = heads[wanted.weights] - 1
            raise UserError(
                f"{wanted.weights} has no head {wanted.head}: use 0 to {last}, or {ALL_HEADS} for all"
            )
        self.wanted = wanted

    def forget(self) -> None:
        """Other games are played: what was shown means nothing any more."""
        self._pictures.clear()
        self._weights.clear()
        self.wanted = replace(self.wanted, game=-1, seen=None)

    def _sees(self, game: int) -> bool:
        """Whether it shows this game now."""
        wanted = self.wanted
        if wanted.game >= 0:
            return game == wanted.game
        return wanted.seen is None or game in wanted.seen

    def _size(self) -> int | None:
        """Height and width of the pictures that it shows; None for what the policy sees."""
        wanted = self.wanted
        if wanted.eye:
            return None
        return FULL if wanted.large or wanted.game >= 0 else HALF

    def update(self, session: Session, rate: float | None = None) -> Update | None:
        """What it has not been sent yet; None if there is nothing.

        Args:
            session: what it looks at.
            rate: steps per second that are played, for it to know.
        """
        history = session.history
        last = history.last
        if last is None:
            return None
        tick = session.remembered(session.looking) or last
        missed = history.after(max(self._last_sent, last.number - BACKLOG))
        self._last_sent = last.number
        shown = [
            (side, game, record)
            for side, records in enumerate(tick.sides)
            for game, record in enumerate(records)
            if self._sees(game)
        ]
        size = self._size()
        pictures = [(*place, size) for place in shown if self._picture_is_new(*place, size)]
        matrices = [
            ({"side": side, "game": game, **self._chosen(matrix)}, matrix)
            for side, game, record in shown
            if (matrix := self._new_weights(side, game, record)) is not None
        ]
        header = {
            "tick": tick.number,
            "first": history.first,
            "last": last.number,
            "rate": rate,
            "ticks": [[past.number, past.numbers()] for past in missed],
        }
        return Update(session.config.games, header, pictures, matrices)

    def _picture_is_new(self, side: int, game: int, record: FrameRecord, size: int | None) -> bool:
        """Whether a picture is not what was sent before; it is taken to be sent now."""
        new = self._pictures.get((side, game)) != (record, size)
        self._pictures[side, game] = (record, size)
        return new

    def _chosen(self, matrix: Tensor) -> dict[str, Any]:
        """Which weights these are, and of what shape."""
        *heads, rows, columns = matrix.shape
        wanted = self.wanted
        return {
            "name": wanted.weights,
            "head": wanted.head,
            "heads": heads[0] if heads else 1,
            "rows": rows,
            "columns": columns,
        }

    def _new_weights(self, side: int, game: int, record: FrameRecord) -> Tensor | None:
        """The chosen head (rows, columns) of a record, or all (heads, rows, columns); None if that is what was sent
        before, or if there is none."""
        name, head = self.wanted.weights, self.wanted.head
        if name not in record.weights or head >= len(record.weights[name]):
            return None
        if self._weights.get((side, game)) == (record, name, head):
            return None
        self._weights[side, game] = (record, name, head)
        return record.weights[name] if head == ALL_HEADS else record.weights[name][head]


def heads_of(session: Session) -> dict[str, int]:
    """Number of heads of each matrix that some side writes, by name."""
    return {
        matrix["name"]: matrix["heads"] for side in session.sides for matrix in side.describe()["weights"]
    }
