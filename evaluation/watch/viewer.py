"""One browser that looks at a session: what it wants to see, and what it has been sent."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from common.errors import UserError, unknown_name
from evaluation.watch.controls import View
from evaluation.watch.history import FULL, HALF, FrameRecord
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
    weights: str = ""
    head: int = 0


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
        # What was sent last of each side and game: the record and its picture, the record and which of its weights.
        self._pictures: dict[tuple[int, int], tuple[FrameRecord, bytes]] = {}
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
        if wanted.weights and not 0 <= wanted.head < heads[wanted.weights]:
            last = heads[wanted.weights] - 1
            raise UserError(f"{wanted.weights} has no head {wanted.head}: use 0 to {last}")
        self.wanted = wanted

    def forget(self) -> None:
        """Other games are played: what was shown means nothing any more."""
        self._pictures.clear()
        self._weights.clear()
        self.wanted = replace(self.wanted, game=-1)

    def needs_full(self, game: int) -> bool:
        """Whether it shows a game larger than `HALF`."""
        wanted = self.wanted
        return not wanted.eye and (wanted.game == game or (wanted.large and wanted.game < 0))

    def update(self, session: Session) -> bytes | None:
        """What it has not been sent yet, as one binary message; None if there is nothing.

        A 32-bit little-endian length, a JSON header of this length, and then what the header's "pictures" (compressed
        images) and "weights" (float32, row by row) list, one after the other. "ticks" has the numbers of all
        steps since the last update, pictures and weights are those of the step that is to be shown.
        """
        history = session.history
        last = history.last
        if last is None:
            return None
        tick = (session.looking and history.get(session.looking)) or last
        missed = history.after(max(self._last_sent, last.number - BACKLOG))
        self._last_sent = last.number
        pictures, weights = [], []
        images, matrices = [], []
        for side, records in enumerate(tick.sides):
            for game, record in enumerate(records):
                if self.wanted.game not in (-1, game):
                    continue
                place = {"side": side, "game": game}
                if (picture := self._new_picture(side, game, record)) is not None:
                    pictures.append({**place, "bytes": len(picture)})
                    images.append(picture)
                if (matrix := self._new_weights(side, game, record)) is not None:
                    rows, columns = matrix.shape
                    chosen = {"name": self.wanted.weights, "head": self.wanted.head}
                    weights.append({**place, **chosen, "rows": rows, "columns": columns})
                    matrices.append(matrix.contiguous().numpy().astype("<f4").tobytes())
        header = {
            "tick": tick.number,
            "first": history.first,
            "last": last.number,
            "ticks": [[past.number, past.numbers()] for past in missed],
            "pictures": pictures,
            "weights": weights,
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        return b"".join([struct.pack("<I", len(text)), text, *images, *matrices])

    def _new_picture(self, side: int, game: int, record: FrameRecord) -> bytes | None:
        """The picture of a record, unless it is what was sent before."""
        size = FULL if self.needs_full(game) else HALF
        picture = record.eye() if self.wanted.eye else record.picture(size)
        if self._pictures.get((side, game)) == (record, picture):
            return None
        self._pictures[side, game] = (record, picture)
        return picture

    def _new_weights(self, side: int, game: int, record: FrameRecord) -> Tensor | None:
        """The chosen head (rows, columns) of a record, unless it is what was sent before, or there is none."""
        name, head = self.wanted.weights, self.wanted.head
        if name not in record.weights or head >= len(record.weights[name]):
            return None
        if self._weights.get((side, game)) == (record, name, head):
            return None
        self._weights[side, game] = (record, name, head)
        return record.weights[name][head]


def heads_of(session: Session) -> dict[str, int]:
    """Number of heads of each matrix that some side writes, by name."""
    return {
        matrix["name"]: matrix["heads"] for side in session.sides for matrix in side.describe()["weights"]
    }
