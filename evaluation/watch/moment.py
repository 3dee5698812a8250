"""A moment of one game to take away: a picture with all that the policy thinks, and the numbers behind it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import UserError
from envs import BUTTON_COMBOS
from evaluation.inspection import layer_of
from evaluation.recording.overlay import HISTORY, Caption, PolicyPanel, TilePainter
from evaluation.watch.camera import FULL, Camera, compressed
from evaluation.watch.controls import ALL_HEADS
from evaluation.watch.history import FrameRecord, Numbers
from evaluation.watch.session import Session
from evaluation.watch.viewer import Wanted

FORMAT = "procgen-srwm moment"
VERSION = 1


@dataclass(frozen=True, eq=False)
class TakenMoment:
    """One game of one side at one step.

    Attributes:
        games: Names of all that are played.
        game: Index of this one.
        past: What was shown of it at the latest steps, oldest first; the last is this one.
        about: Facts about the session and the agent, plain JSON values.
        weights: Name of the matrix that the picture shows, and which head.
    """

    games: tuple[str, ...]
    game: int
    record: FrameRecord
    past: Sequence[Numbers]
    about: dict[str, Any]
    weights: tuple[str, int]

    @property
    def name(self) -> str:
        """For a file."""
        numbers = self.record.numbers
        return f"{self.games[self.game]}-level{numbers['level']}-step{numbers['step']}"

    def picture(self, camera: Camera) -> bytes:
        """A PNG: the game at full size and the policy's panel, as in a film with the full overlay."""
        numbers = self.record.numbers
        caption = Caption(
            game=self.games[self.game],
            place=f"level {numbers['level']}",
            episode_return=numbers["return"],
            last_return=numbers["last"],
            just_ended=False,
            step=numbers["step"],
            value=numbers["value"] or 0.0,
            keys=BUTTON_COMBOS[numbers["action"]],
        )
        painter = TilePainter(FULL, "full")
        tile = painter.paint(camera.frame(self.game, self.record), caption, self._panel())
        return compressed(tile, "PNG")

    def _panel(self) -> PolicyPanel:
        now, names = self.record.numbers, list(self.record.numbers["readings"]["norm"])
        rates: dict[str, list[float]] = {}
        for name, rate in now["readings"]["rate"].items():
            rates.setdefault(layer_of(name), []).append(rate or 0.0)
        matrix, head = self.weights
        tensor = self.record.weights.get(matrix)
        return PolicyPanel(
            values=[past["value"] or 0.0 for past in self.past],
            rewards=[past["reward"] for past in self.past],
            starts=[past["start"] for past in self.past],
            probabilities=[p or 0.0 for p in now["probabilities"]],
            action=now["action"],
            norms=[[past["readings"]["norm"].get(name) or 0.0 for past in self.past] for name in names],
            rates=list(rates.values()),
            weights=None if tensor is None else tensor[max(0, head)].numpy(),
            weights_name=f"W - W0, {layer_of(matrix)}, head {max(0, head)}",
        )

    def archive(self, camera: Camera) -> bytes:
        """An archive that `numpy.load` reads (without pickle); docs/watching.md says what is in it."""
        numbers = self.record.numbers
        readings = {
            f"readings/{name}": np.float32(np.nan if value is None else value)
            for named in numbers["readings"].values()
            for name, value in named.items()
        }
        alone = {name: value for name, value in numbers.items() if name != "heads"}
        meta = {"format": FORMAT, "version": VERSION, **self.about, "game": self.games[self.game], **alone}
        arrays: dict[str, Any] = {
            "meta": np.array(json.dumps(meta)),
            "seen": self.record.rgb,
            "frame": camera.frame(self.game, self.record),
            "native": self.record.native,
            "probabilities": np.array(numbers["probabilities"], np.float32),
            **readings,
            **{f"heads/{name}": np.array(values, np.float32) for name, values in numbers["heads"].items()},
            **{f"weights/{name}": tensor.numpy() for name, tensor in self.record.weights.items()},
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()


def take(session: Session, tick: int | None, side: int, game: int, wanted: Wanted) -> TakenMoment:
    """A moment of a session.

    Args:
        session: which played it.
        tick: number of the step; None for the one that is shown.
        side, game: whose.
        wanted: says which matrix the picture shows.

    Raises:
        UserError: there is none, or it is not remembered.
    """
    number = session.tick if tick is None else tick
    found = session.remembered(number)
    if found is None:
        raise UserError(f"step {number} is not remembered")
    if not (0 <= side < len(found.sides) and 0 <= game < len(found.sides[side])):
        raise UserError(f"there is no side {side} with a game {game}")
    record = found.sides[side][game]
    past = [
        one.sides[side][game].numbers
        for one in session.history.after(number - HISTORY)
        if one.number <= number and side < len(one.sides) and one.fresh[side][game]
    ]
    watched = session.sides[side].watched
    about = {
        "checkpoint": watched.name,
        "trained_steps": watched.agent.num_timesteps,
        "mode": session.config.mode,
        "side": side,
        "intervention": str(watched.intervention),
        "greedy": watched.greedy,
    }
    name = wanted.weights or next(iter(record.weights), "")
    head = wanted.head if wanted.head != ALL_HEADS else 0
    return TakenMoment(session.config.games, game, record, past or [record.numbers], about, (name, head))
