"""What viewers can ask for: each message is a small dataclass, read from JSON and checked here.

A message is an object with the name of the control under "type" and its fields beside it, such as
``{"type": "speed", "steps_per_second": 15}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated

from common.config import Range, check, check_value, field_types
from common.errors import UserError, unknown_name

ALL_HEADS = -1

MAX_SPEED = 1000.0
MIN_SPEED = 0.1


@dataclass(frozen=True)
class Control:
    """Something that viewers can ask for."""


@dataclass(frozen=True)
class Play(Control):
    """Go on playing, or pause."""

    playing: bool


@dataclass(frozen=True)
class Step(Control):
    """Pause, and play a single step."""


@dataclass(frozen=True)
class Speed(Control):
    """Steps per second; None for as fast as possible."""

    steps_per_second: Annotated[float | None, Range(MIN_SPEED, MAX_SPEED)]


@dataclass(frozen=True)
class Restart(Control):
    """Start all games again, on the levels that they play now, or on the next ones."""

    next_levels: bool = False


@dataclass(frozen=True)
class ChooseGames(Control):
    """Play other games."""

    games: tuple[str, ...]


@dataclass(frozen=True)
class ChooseLevels(Control):
    """Play levels of a split (train, test1, ..., "A:B"), or a single level again and again."""

    split: str
    level: int | None = None


@dataclass(frozen=True)
class ChooseActions(Control):
    """Take the most likely actions, or draw them; on one side, or on both."""

    greedy: bool
    side: int | None = None


@dataclass(frozen=True)
class Intervene(Control):
    """Self-modification: "on", "frozen", or "reset" every `span` steps; on one side, or on both."""

    kind: str
    span: int | None = None
    side: int | None = None


@dataclass(frozen=True)
class Look(Control):
    """Pause and look back at a step that was played; None to return to the present."""

    tick: int | None


@dataclass(frozen=True)
class Keep(Control):
    """Do not forget a step, however long the session goes on."""

    tick: int


@dataclass(frozen=True)
class GoBack(Control):
    """Play on from before a step that is remembered, with the settings of now."""

    tick: int


@dataclass(frozen=True)
class PlayMyself(Control):
    """Let a person play a game on a second side, on the levels that the first side plays; None to end that."""

    game: int | None


@dataclass(frozen=True)
class Keys(Control):
    """The keys that the person holds down, as `envs.BUTTON_COMBOS` names them, in the order of their pressing."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class ChooseCheckpoint(Control):
    """Let another checkpoint of the same run play on a side, from the starts of the levels that are played."""

    steps: int
    side: int = 0


@dataclass(frozen=True)
class View(Control):
    """How this viewer wants to see it; nobody else is concerned. Fields that are left out stay as they are.

    Attributes:
        game: the index of the one game that is enlarged; -1 for all of them.
        eye: whether to show the 64 x 64 pixels that the policy sees instead of the full rendering.
        large: whether tiles of the grid are large enough to need pictures at full size.
        seen: indices of the games that are on its screen; of others it is sent numbers alone.
        weights: name of the matrix in the heat maps, such as "layer0/shift"; "" for none.
        head: of that matrix; `ALL_HEADS` for all of them.
    """

    game: int | None = None
    eye: bool | None = None
    large: bool | None = None
    seen: tuple[int, ...] | None = None
    weights: str | None = None
    head: int | None = None


@dataclass(frozen=True)
class Seen(Control):
    """The viewer has shown an update and is ready for the next one."""


CONTROLS: dict[str, type[Control]] = {
    "play": Play,
    "step": Step,
    "speed": Speed,
    "restart": Restart,
    "games": ChooseGames,
    "levels": ChooseLevels,
    "actions": ChooseActions,
    "intervene": Intervene,
    "look": Look,
    "keep": Keep,
    "go_back": GoBack,
    "play_myself": PlayMyself,
    "keys": Keys,
    "checkpoint": ChooseCheckpoint,
    "view": View,
    "seen": Seen,
}
"""Controls by the "type" of their messages."""


def parse_control(message: object) -> Control:
    """The control that a message (plain JSON values) stands for.

    Raises:
        UserError: it is none, or has fields that do not exist, are missing or are of a wrong type.
    """
    if not isinstance(message, Mapping):
        raise UserError('a message must be an object such as {"type": "step"}')
    values = dict(message)
    name = values.pop("type", None)
    if not isinstance(name, str) or name not in CONTROLS:
        raise UserError(unknown_name("message type", str(name)[:40], CONTROLS))
    kind = CONTROLS[name]
    types = field_types(kind)
    for key, value in values.items():
        if key not in types:
            raise UserError(unknown_name(f"field of {name!r}", str(key)[:40], types))
        try:
            values[key] = check_value(types[key], value)
        except ValueError as error:
            raise UserError(f"{name}.{key} must be {error}") from None
    missing = [item.name for item in fields(kind) if item.default is MISSING and item.name not in values]
    if missing:
        raise UserError(f"message {name!r} lacks {', '.join(missing)}")
    control = kind(**values)
    check(control, f"{name}.")
    return control
