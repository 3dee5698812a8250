"""A moment of a whole session as a file, with which another session begins."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from agents import CheckpointError, read_checkpoint, write_checkpoint
from agents.checkpoint import PathOrFile
from agents.schema import Anything, Array, Items, Named, Number, Optional, Schema, Table, Text, Whole
from common.config import plain, read
from common.errors import UserError, raise_problems, shown
from evaluation.inspection import Moment
from evaluation.intervention import Intervention
from evaluation.watch.history import FrameRecord, SideMoment, Tally
from evaluation.watch.session import Session
from evaluation.watch.side import MAX_GAMES, SessionConfig, WatchedAgent
from policies import Policy

FORMAT = "procgen-srwm session"
VERSION = 1
SUFFIX = ".moment"
MAX_EPISODES = 10**6
"""Of a game, before a moment."""

_FLOATS = ("float32", "float64", "float16", "bfloat16")
_PLAYER: Mapping[str, Schema] = {
    "env": Named(Anything()),  # environments examine their states, as far as the native library lets them
    "state": Named(Array((*_FLOATS, "int64"))),
    "rewards": Array(("float32",), 2),
    "active": Array(("bool",), 1),
    "starts": Array(("bool",), 1),
    "returns": Array(("float64", "float32"), 1),
    "steps": Array(("int64",), 1),
    "draws": Array(("uint8",), 1),
}
_RECORD = Table(
    {
        "numbers": Named(Anything()),
        "rgb": Array(("uint8",), 3),
        "native": Array(("uint8",), 1),
        "weights": Named(Array(_FLOATS, 3)),
    }
)
_SIDE = Table(
    {
        "name": Text(),
        "weights": Text(),
        "greedy": Whole(0, 1),
        "intervention": Named(Anything()),  # its fields have ranges of their own
        "player": Table(_PLAYER),
        "tallies": Items(Items(Optional(Number()), most=3, least=3), MAX_GAMES),
        "waiting": Items(Optional(_RECORD), MAX_GAMES),
    }
)
SCHEMA = Table(
    {
        "format": Text(),
        "version": Whole(),
        "config": Named(Anything()),  # as for interventions
        "episodes": Items(Whole(1, MAX_EPISODES), MAX_GAMES, least=1),
        "sides": Items(_SIDE, most=2, least=1),
    }
)
"""What such a file holds: checked when it is written, and before anything in it is used."""


@dataclass(frozen=True)
class SavedSide:
    """One side of a session.

    Attributes:
        name: of its agent, for people.
        weights: what tells the agent from others, see `fingerprint`.
        greedy, intervention: how it plays.
        moment: where it stands.
    """

    name: str
    weights: str
    greedy: bool
    intervention: Intervention
    moment: SideMoment


@dataclass(frozen=True)
class Savepoint:
    """Where a session stands between two steps.

    Attributes:
        config: what is played.
        episodes: by game, how many levels of its order had begun.
        sides: the agents, of which the file holds no weights.
    """

    config: SessionConfig
    episodes: tuple[int, ...]
    sides: tuple[SavedSide, ...]

    def begin(self, watched: Sequence[WatchedAgent], history_bytes: int) -> Session:
        """A session of these agents that goes on from here; they play as they did.

        Raises:
            UserError: other agents played, or what the file says does not fit them.
        """
        if len(watched) != len(self.sides):
            raise UserError(f"the moment is one of {len(self.sides)} agents, not of {len(watched)}")
        for saved, one in zip(self.sides, watched, strict=True):
            if saved.weights != fingerprint(one.agent.policy):
                raise UserError(
                    f"the moment was played by other weights than those of {one.name}: name {saved.name}"
                )
        agents = [
            replace(one, greedy=saved.greedy, intervention=saved.intervention)
            for saved, one in zip(self.sides, watched, strict=True)
        ]
        session = Session(agents, self.config, history_bytes)
        try:
            for saved, side in zip(self.sides, session.sides, strict=True):
                _check_shapes(saved.moment.player, side.player.policy, len(self.config.games))
            session.go_on_from([saved.moment for saved in self.sides], self.episodes)
        except (ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
            session.close()
            raise UserError(f"the moment does not fit: {shown(str(error), quoted=False)}") from error
        return session


def fingerprint(policy: Policy) -> str:
    """What tells the weights of a policy from others."""
    digest = hashlib.sha256()
    for name, tensor in policy.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def savepoint(session: Session, tick: int | None) -> bytes:
    """The file of a moment: where `session` stood before a step.

    Raises:
        UserError: it is not remembered, or a person plays.
    """
    number = session.tick if tick is None else tick
    found = session.remembered(number)
    if found is None:
        raise UserError(f"step {number} is not remembered")
    if session.by_hand is not None:
        raise UserError("a game that a person plays does not go on without them: stop playing first")
    sides = zip(session.sides, found.moments, strict=True)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": plain(session.config),
        "episodes": list(found.episodes),
        "sides": [
            {
                "name": side.watched.name,
                "weights": fingerprint(side.watched.agent.policy),
                "greedy": int(side.watched.greedy),
                "intervention": plain(side.watched.intervention),
                "player": vars(moment.player),
                "tallies": [list(asdict(tally).values()) for tally in moment.tallies],
                "waiting": [
                    None if active else vars(record)
                    for active, record in zip(
                        moment.player.active, moment.records or [None] * len(moment.tallies), strict=True
                    )
                ],
            }
            for side, moment in sides
        ],
    }
    SCHEMA.check(content, "")
    file = io.BytesIO()
    write_checkpoint(file, content)
    return file.getvalue()


def read_savepoint(path: PathOrFile) -> Savepoint:
    """What a file says, checked as far as it can be without the agents.

    Raises:
        UserError: it is missing, damaged, or something else.
    """
    content = read_checkpoint(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no moment of a session: save one in the viewer")
    if content.get("version") != VERSION:
        raise CheckpointError(f"{path} has version {shown(content.get('version'))}, not {VERSION}")
    try:
        SCHEMA.check(content, "")
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    problems: list[str] = []
    config = read(SessionConfig(()), content["config"], problems)
    interventions = [read(Intervention(), side["intervention"], problems) for side in content["sides"]]
    raise_problems([f"{path}: {problem}" for problem in problems])
    sides = zip(content["sides"], interventions, strict=True)
    return Savepoint(config, tuple(content["episodes"]), tuple(_side(*side) for side in sides))


def _side(side: Mapping[str, Any], intervention: Intervention) -> SavedSide:
    player = Moment(**{field.name: side["player"][field.name] for field in fields(Moment)})
    tallies = [
        Tally(int(episodes or 0), float(total or 0), last) for episodes, total, last in side["tallies"]
    ]
    nothing = FrameRecord({}, np.zeros((0, 0, 3), np.uint8), np.zeros(0, np.uint8), {})
    records = [
        nothing if record is None else FrameRecord(**{name: record[name] for name in vars(nothing)})
        for record in side["waiting"]
    ]
    moment = SideMoment(player, tuple(tallies), tuple(records))
    return SavedSide(side["name"], side["weights"], bool(side["greedy"]), intervention, moment)


def _check_shapes(moment: Moment, policy: Policy, games: int) -> None:
    """Raise ValueError if something is not of so many games, or the memory not one of this policy."""
    for name in ("rewards", "active", "starts", "returns", "steps"):
        if len(getattr(moment, name)) != games:
            raise ValueError(f"its {name} are not those of {games} games")
    fresh = policy.initial_state(games)
    needed = policy.core.memory(fresh)
    for name, tensor in fresh.items():
        stored = moment.state.get(name)
        if stored is None and name in needed:
            raise ValueError(f"its memory has no {shown(name)}")
        if stored is not None and (stored.shape, stored.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"its memory's {shown(name)} has another shape or type")
