"""A session: one or two policies that play the same games in step, as viewers ask for it.

It knows nothing of servers and browsers, and does nothing by itself: `advance` plays one step, `apply` does what a
viewer asks for. Not safe for threads: whoever uses it calls one method at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.config import check, plain, problems
from common.errors import UserError, raise_problems
from envs import GAMES, expand_games, parse_levels
from envs.levels import SPLITS
from evaluation.intervention import Intervention, unsupported
from evaluation.play import level_order
from evaluation.watch import controls
from evaluation.watch.history import History, Tick
from evaluation.watch.side import SessionConfig, Side, WatchedAgent, action_labels

DEFAULT_SPEED = 15.0
"""ProcGen's human speed."""
DEFAULT_HISTORY = 512 * 2**20


class Session:
    """Games in progress.

    Args:
        watched: one agent, or two that play the same levels in step.
        config: what they play.
        history_bytes: memory for looking back.
        render: whether games are rendered at full size, which takes most of the time.

    Raises:
        UserError: it cannot be played.

    Attributes:
        tick: steps that were played so far.
        playing: whether steps should follow one another; looking back and single steps pause.
        speed: steps per second that viewers want; None for as fast as possible.
        looking: the tick that viewers look back at; None for the present.
        full: by game, whether some viewer needs pictures at full size.
        history: what was played.
    """

    def __init__(
        self,
        watched: Sequence[WatchedAgent],
        config: SessionConfig,
        history_bytes: int = DEFAULT_HISTORY,
        render: bool = True,
    ) -> None:
        if not 1 <= len(watched) <= 2:
            raise ValueError(f"{len(watched)} agents: a session has one or two")
        raise_problems([*config.problems(), *_intervention_problems(watched)])
        self._history_bytes, self._render = history_bytes, render
        self.playing = True
        self.speed: float | None = DEFAULT_SPEED
        self.tick = 0
        self.sides: list[Side] = []
        self._begin(config, watched)

    def _begin(self, config: SessionConfig, watched: Sequence[WatchedAgent]) -> None:
        """Play `config` from its start."""
        self.close()
        self.config, self._orders = config, _level_orders(config)
        self._levels = [next(order) for order in self._orders]
        self.sides = [Side(one, config, self._levels, self._render) for one in watched]
        self.full = [False] * len(config.games)
        self.history = History(self._history_bytes)
        self.looking: int | None = None

    def advance(self) -> Tick:
        """Play one step of all games."""
        views = [side.player.view() for side in self.sides]
        fresh = tuple(tuple(side.player.active.tolist()) for side in self.sides)
        records = tuple(side.records(view, self.full) for side, view in zip(self.sides, views, strict=True))
        for side in self.sides:
            side.collect()
        self.tick += 1
        tick = Tick(self.tick, records, fresh)
        self.history.add(tick)
        # A game goes on to its next level once it has ended on all sides.
        ended = np.flatnonzero(~np.any([side.player.active for side in self.sides], axis=0)).tolist()
        for game in ended:
            self._levels[game] = next(self._orders[game])
        if ended:
            for side in self.sides:
                side.player.play_levels(ended, [self._levels[game] for game in ended], after_episode=True)
        return tick

    def apply(self, control: controls.Control) -> bool:
        """Do what a viewer asks for.

        Returns:
            Whether `advance` should be called even if nothing is playing, since there is something new to be seen.

        Raises:
            UserError: it cannot be done; nothing has changed then.
        """
        match control:
            case controls.Play(playing):
                self.playing = playing
                if playing:
                    self.looking = None
            case controls.Step():
                self.playing, self.looking = False, None
            case controls.Speed(steps_per_second):
                self.speed = steps_per_second
            case controls.Look(tick):
                if tick is not None and self.history.get(tick) is None:
                    raise UserError(f"step {tick} is not remembered: look at {self.history.first} or later")
                self.playing, self.looking = self.playing and tick is None, tick
            case controls.Restart(next_levels):
                self._restart(next_levels)
            case controls.ChooseGames(games):
                self._change_config(replace(self.config, games=expand_games(games)))
            case controls.ChooseLevels(split, level):
                self._change_config(replace(self.config, split=split, level=level))
            case controls.ChooseActions(greedy, side):
                for chosen in self._sides(side):
                    chosen.choose_actions(greedy)
            case controls.Intervene(kind, span, side):
                self._intervene(Intervention(kind, span), side)
            case _:
                raise UserError(f"{type(control).__name__} concerns one viewer, not the session")
        return isinstance(
            control, (controls.Step, controls.Restart, controls.ChooseGames, controls.ChooseLevels)
        )

    def _restart(self, next_levels: bool) -> None:
        if next_levels:
            self._levels = [next(order) for order in self._orders]
        games = range(len(self.config.games))
        for side in self.sides:
            side.player.play_levels(games, self._levels, after_episode=False)
        self.looking = None

    def _change_config(self, config: SessionConfig) -> None:
        raise_problems(config.problems())
        if config.games != self.config.games:
            self._begin(config, [side.watched for side in self.sides])
            return
        self.config = config
        self._orders = _level_orders(config)
        self._restart(next_levels=True)

    def _intervene(self, intervention: Intervention, side: int | None) -> None:
        check(intervention)
        chosen = self._sides(side)
        if side is None:
            # Asked of both, it is done where it can be: SRWM beside an LSTM.
            chosen = [
                one for one in chosen if not unsupported(one.player.policy)[intervention.kind]
            ] or chosen
        for one in chosen:
            one.intervene(intervention)

    def _sides(self, index: int | None) -> list[Side]:
        if index is None:
            return self.sides
        if not 0 <= index < len(self.sides):
            raise UserError(f"there is no side {index}: use 0 to {len(self.sides) - 1}")
        return [self.sides[index]]

    def describe(self) -> dict[str, Any]:
        """The whole state but the games' own, as plain JSON values."""
        return {
            "playing": self.playing,
            "speed": self.speed,
            "looking": self.looking,
            "tick": self.tick,
            "first": self.history.first,
            **plain(self.config),
            "available": [name for name, game in GAMES.items() if self.config.mode in game.modes],
            "splits": list(SPLITS),
            "actions": action_labels(),
            "sides": [side.describe() for side in self.sides],
        }

    def close(self) -> None:
        """Free the environments."""
        for side in self.sides:
            side.player.env.close()


def _level_orders(config: SessionConfig) -> list[Iterator[int]]:
    levels = parse_levels(config.split, config.mode)
    return [level_order(game, config.mode, levels, config.seed, config.level) for game in config.games]


def _intervention_problems(watched: Sequence[WatchedAgent]) -> list[str]:
    found = []
    for one in watched:
        found += problems(one.intervention)
        reason = unsupported(one.agent.policy).get(one.intervention.kind)
        if reason is not None:
            found.append(f"self-modification {one.intervention} of {one.name}: {reason}")
    return found
