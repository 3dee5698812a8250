"""One browser that looks at a session: what it wants to see, and what it has been sent."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from common.errors import UserError, unknown_name
from evaluation.watch.controls import View
from evaluation.watch.history import FrameRecord, Tick
from evaluation.watch.pictures import FULL, HALF
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


@dataclass(eq=False)
class Viewer:
    """A browser.

    Attributes:
        wanted: what it wants to see.
        in_flight: updates that it has been sent and not yet shown.
    """

    wanted: Wanted = field(default_factory=Wanted)
    in_flight: int = 0
    _sent: int = 0
    _shown: dict[tuple[int, int], tuple[FrameRecord, bytes]] = field(default_factory=dict)
    _weights_shown: dict[tuple[int, int], tuple[FrameRecord, str, int]] = field(default_factory=dict)

    def change_view(self, view: View, session: Session) -> None:
        """Want something else.

        Raises:
            UserError: there is no such game, matrix or head; nothing has changed then.
        """
        given = {name: value for name, value in asdict(view).items() if value is not None}
        wanted = replace(self.wanted, **given)
        if not -1 <= wanted.game < len(session.config.games):
            raise UserError(
                f"there is no game {wanted.game}: use 0 to {len(session.config.games) - 1}, or -1 for all"
            )
        heads = heads_of(session)
        if wanted.weights and wanted.weights not in heads:
            raise UserError(unknown_name("matrix", wanted.weights, heads))
        if wanted.weights and not 0 <= wanted.head < heads[wanted.weights]:
            raise UserError(
                f"{wanted.weights} has no head {wanted.head}: use 0 to {heads[wanted.weights] - 1}"
            )
        self.wanted = wanted

    def forget(self) -> None:
        """Other games are played: what was shown means nothing any more."""
        self._shown.clear()
        self._weights_shown.clear()
        self.wanted = replace(self.wanted, game=-1)

    def needs_full(self, game: int) -> bool:
        """Whether it shows a game larger than `HALF`."""
        return not self.wanted.eye and (
            self.wanted.game == game or (self.wanted.large and self.wanted.game < 0)
        )

    def update(self, session: Session) -> bytes | None:
        """What it has not been sent yet, as one binary message; None if there is nothing.

        A 32-bit little-endian length, a JSON header of this length, and then what the header's "pictures" (compressed
        images) and "weights" (float32, row by row) list, one after the other. "ticks" has the numbers of all
        steps since the last update, pictures and weights are those of the step that is to be shown.
        """
        last = session.history.last
        if last is None:
            return None
        shown = session.history.get(session.looking) if session.looking is not None else None
        tick = shown or last
        missed = (
            session.history.latest(min(BACKLOG, last.number - self._sent)) if last.number > self._sent else []
        )
        pictures: list[dict[str, Any]] = []
        weights: list[dict[str, Any]] = []
        images: list[bytes] = []
        matrices: list[bytes] = []
        name, head = self.wanted.weights, self.wanted.head
        for side, game, record in self._visible(tick):
            place = {"side": side, "game": game}
            if (picture := self._new_picture(side, game, record)) is not None:
                pictures.append({**place, "bytes": len(picture)})
                images.append(picture)
            if self._new_weights(side, game, record):
                matrix = record.weights[name][head]
                rows, columns = matrix.shape
                weights.append({**place, "name": name, "head": head, "rows": rows, "columns": columns})
                matrices.append(matrix.contiguous().numpy().astype("<f4").tobytes())
        self._sent = last.number
        header: dict[str, Any] = {
            "tick": tick.number,
            "first": session.history.first,
            "last": last.number,
            "ticks": [[past.number, past.numbers()] for past in missed],
            "pictures": pictures,
            "weights": weights,
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        return b"".join([struct.pack("<I", len(text)), text, *images, *matrices])

    def _visible(self, tick: Tick) -> list[tuple[int, int, FrameRecord]]:
        return [
            (side, game, record)
            for side, records in enumerate(tick.sides)
            for game, record in enumerate(records)
            if self.wanted.game in (-1, game)
        ]

    def _new_picture(self, side: int, game: int, record: FrameRecord) -> bytes | None:
        """The picture of a record, unless it is what was sent before."""
        if self.wanted.eye:
            known = self._shown.get((side, game))
            picture = known[1] if known and known[0] is record and known[1][:1] == b"\x89" else record.eye()
        else:
            picture = record.picture(FULL if self.needs_full(game) else HALF)
        if self._shown.get((side, game)) == (record, picture):
            return None
        self._shown[side, game] = (record, picture)
        return picture

    def _new_weights(self, side: int, game: int, record: FrameRecord) -> bool:
        name, head = self.wanted.weights, self.wanted.head
        if name not in record.weights or head >= len(record.weights[name]):
            return False
        known = self._weights_shown.get((side, game))
        if known is not None and known[0] is record and known[1:] == (name, head):
            return False
        self._weights_shown[side, game] = (record, name, head)
        return True


def heads_of(session: Session) -> dict[str, int]:
    """Number of heads of each matrix that some side writes, by name."""
    return {
        matrix["name"]: matrix["heads"] for side in session.sides for matrix in side.describe()["weights"]
    }
