"""A session: one or two policies that play the same games in step, as viewers ask for it.

It knows nothing of servers and browsers, and does nothing by itself: `advance` plays one step, `apply` does what a
viewer asks for. Not safe for threads: whoever uses it calls one method at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.errors import UserError, raise_problems
from envs import GAMES, environment_problems, expand_games, parse_levels
from envs.games import EXPLORATION_LEVELS
from envs.levels import MAX_LEVEL, SPLITS
from evaluation.level_order import LevelOrder
from evaluation.intervention import Modification, refusals
from evaluation.watch.controls import (
    ChooseActions,
    ChooseGames,
    ChooseLevels,
    Control,
    Look,
    Modify,
    Play,
    Restart,
    Speed,
    Step,
)
from evaluation.watch.history import History, Tick
from evaluation.watch.side import Contestant, Side, action_labels
from policies import name_of

MAX_GAMES = 16
DEFAULT_SPEED = 15.0
"""ProcGen's human speed."""
DEFAULT_HISTORY = 512 * 2**20


@dataclass(frozen=True)
class Program:
    """What is played.

    Attributes:
        games: one slot each, at each side.
        mode: of the games.
        split: from which levels are drawn: train, test1, test2, test3, all, or "A:B".
        level: the only level, instead of drawing.
        seed: of levels and actions.
    """

    games: tuple[str, ...]
    mode: str = "easy"
    split: str = "test1"
    level: int | None = None
    seed: int = 0

    def problems(self) -> list[str]:
        """Everything that is wrong with it, a line each."""
        found = environment_problems(self.games, max(1, len(self.games)), self.mode, self.split, self.seed)
        if len(self.games) > MAX_GAMES:
            found.append(f"{len(self.games)} games at once: choose at most {MAX_GAMES}")
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            found.append(f"level {self.level} does not exist: use 0 to {MAX_LEVEL}")
        if self.level is not None and self.mode == "exploration":
            found.append("exploration mode has one level per game: leave the level out")
        return found


class Session:
    """Games in progress.

    Args:
        contestants: one, or two that play the same levels in step.
        program: what they play.
        history_bytes: memory for looking back.
        render: whether games are rendered at full size, which takes most of the time.

    Raises:
        UserError: it cannot be played.

    Attributes:
        playing: whether steps should follow one another; looking back and single steps pause.
        speed: steps per second that viewers want; None for as fast as possible.
        looking: the tick that viewers look back at; None for the present.
        full: by game, whether some viewer needs pictures at full size.
        history: what was played.
    """

    def __init__(
        self,
        contestants: Sequence[Contestant],
        program: Program,
        history_bytes: int = DEFAULT_HISTORY,
        render: bool = True,
    ) -> None:
        if not 1 <= len(contestants) <= 2:
            raise ValueError(f"{len(contestants)} contestants: a session has one or two")
        raise_problems([*program.problems(), *_modification_problems(contestants)])
        self._contestants, self._render = list(contestants), render
        self.playing = True
        self.speed: float | None = DEFAULT_SPEED
        self.looking: int | None = None
        self.history = History(history_bytes)
        self._ticks = 0
        self.sides: list[Side] = []
        self._begin(program)

    @property
    def tick(self) -> int:
        """Steps that were played so far."""
        return self._ticks

    def _begin(self, program: Program) -> None:
        """Play `program` from its start, with the sides' present settings."""
        orders = _level_orders(program)
        self._levels = [order.next() for order in orders]
        contestants = self._present_contestants()
        for side in self.sides:
            side.close()
        self.program, self._orders = program, orders
        self.sides = [
            Side(contestant, program.games, program.mode, self._levels, program.seed, self._render)
            for contestant in contestants
        ]
        self.full = [False] * len(program.games)
        self.history.clear()
        self.looking = None

    def _present_contestants(self) -> list[Contestant]:
        """The contestants with the settings that their sides have now."""
        if not self.sides:
            return self._contestants
        return [
            replace(contestant, greedy=side.greedy, modification=side.modification)
            for contestant, side in zip(self._contestants, self.sides, strict=True)
        ]

    def advance(self) -> Tick:
        """Play one step of all games."""
        for side in self.sides:
            side.decide()
        fresh = tuple(tuple(bool(slot) for slot in ~side.finished) for side in self.sides)
        moments = tuple(tuple(side.moments(self.full)) for side in self.sides)
        for side in self.sides:
            side.collect()
        self._ticks += 1
        tick = Tick(self._ticks, moments, fresh)
        self.history.add(tick)
        # A game goes on to its next level once it has ended on all sides.
        ended = np.flatnonzero(np.all([side.finished for side in self.sides], axis=0))
        if len(ended):
            for slot in ended:
                self._levels[slot] = self._orders[slot].next()
            for side in self.sides:
                levels = [self._levels[slot] for slot in ended]
                side.play_levels([int(slot) for slot in ended], levels, after_episode=True)
        return tick

    def apply(self, control: Control) -> bool:
        """Do what a viewer asks for.

        Returns:
            Whether `advance` should be called even if nothing is playing, since there is something new to be seen.

        Raises:
            UserError: it cannot be done; nothing has changed then.
        """
        match control:
            case Play(playing):
                self.playing = playing
                if playing:
                    self.looking = None
            case Step():
                self.playing, self.looking = False, None
            case Speed(steps_per_second):
                self.speed = steps_per_second
            case Look(tick):
                self._look(tick)
            case Restart(next_levels):
                self._restart(next_levels)
            case ChooseGames(games):
                self._change_program(replace(self.program, games=expand_games(games)))
            case ChooseLevels(split, level):
                self._change_program(replace(self.program, split=split, level=level))
            case ChooseActions(greedy, side):
                for chosen in self._sides(side):
                    chosen.greedy = greedy
            case Modify(kind, span, side):
                self._modify(Modification(kind, span), side)
            case _:
                raise UserError(f"{type(control).__name__} concerns one viewer, not the session")
        return isinstance(control, (Step, Restart, ChooseGames, ChooseLevels))

    def _look(self, tick: int | None) -> None:
        if tick is not None:
            if self.history.get(tick) is None:
                raise UserError(f"step {tick} is not remembered: look at {self.history.first} or later")
            self.playing = False
        self.looking = tick

    def _restart(self, next_levels: bool) -> None:
        if next_levels:
            self._levels = [order.next() for order in self._orders]
        slots = range(len(self.program.games))
        for side in self.sides:
            side.play_levels(slots, self._levels, after_episode=False)
        self.looking = None

    def _change_program(self, program: Program) -> None:
        raise_problems(program.problems())
        if program.games != self.program.games:
            self._begin(program)
            return
        self.program = program
        self._orders = _level_orders(program)
        self._restart(next_levels=True)

    def _modify(self, modification: Modification, side: int | None) -> None:
        chosen = self._sides(side)
        if side is None:
            # Asked of both, it is done where it can be: SRWM beside an LSTM.
            able = [one for one in chosen if refusals(one.player.policy, one.core)[modification.kind] is None]
            chosen = able or chosen
        for one in chosen:
            one.modify(modification)

    def _sides(self, index: int | None) -> list[Side]:
        if index is None:
            return self.sides
        if not 0 <= index < len(self.sides):
            raise UserError(f"there is no side {index}: use 0 to {len(self.sides) - 1}")
        return [self.sides[index]]

    def describe(self) -> dict[str, Any]:
        """The whole state but the games' own, as plain JSON values."""
        program = self.program
        return {
            "playing": self.playing,
            "speed": self.speed,
            "looking": self.looking,
            "tick": self._ticks,
            "first": self.history.first,
            "games": list(program.games),
            "available": [name for name, game in GAMES.items() if program.mode in game.modes],
            "mode": program.mode,
            "split": program.split,
            "splits": list(SPLITS),
            "level": program.level,
            "seed": program.seed,
            "actions": action_labels(),
            "sides": [side.describe() for side in self.sides],
        }

    def close(self) -> None:
        """Free the environments."""
        for side in self.sides:
            side.close()


def _level_orders(program: Program) -> list[LevelOrder]:
    levels = parse_levels(program.split, program.mode)
    fixed = EXPLORATION_LEVELS if program.mode == "exploration" else {}
    return [LevelOrder(game, levels, fixed.get(game, program.level), program.seed) for game in program.games]


def _modification_problems(contestants: Sequence[Contestant]) -> list[str]:
    found = []
    for contestant in contestants:
        policy = contestant.agent.policy
        reason = refusals(policy, name_of(policy.config.core))[contestant.modification.kind]
        if reason is not None:
            found.append(f"self-modification {contestant.modification} of {contestant.name}: {reason}")
    return found
