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
from evaluation.loading import load_agent
from evaluation.play import level_order
from evaluation.readings import WORDS
from evaluation.watch import controls
from evaluation.watch.history import History, SideMoment, Tick
from evaluation.watch.side import SessionConfig, Side, WatchedAgent, action_labels

DEFAULT_SPEED = 15.0
"""ProcGen's human speed."""
DEFAULT_HISTORY = 512 * 2**20

_SHOW_SOMETHING_NEW = (
    *(controls.Step, controls.Restart, controls.ChooseGames, controls.ChooseLevels),
    *(controls.GoBack, controls.PlayMyself, controls.ChooseCheckpoint),
)


class Session:
    """Games in progress.

    Args:
        watched: one agent, or two that play the same levels in step.
        config: what they play.
        history_bytes: memory for looking back.

    Raises:
        UserError: it cannot be played.

    Attributes:
        tick: steps that were played so far.
        playing: whether steps should follow one another; looking back and single steps pause.
        speed: steps per second that viewers want; None for as fast as possible.
        looking: the tick that viewers look back at; None for the present.
        history: what was played.
        kept: moments that were saved, by the number of their step; they are remembered for as long as their games.
    """

    def __init__(
        self,
        watched: Sequence[WatchedAgent],
        config: SessionConfig,
        history_bytes: int = DEFAULT_HISTORY,
    ) -> None:
        if not 1 <= len(watched) <= 2:
            raise ValueError(f"{len(watched)} agents: a session has one or two")
        raise_problems([*config.problems(), *_intervention_problems(watched)])
        self._history_bytes = history_bytes
        self.playing = True
        self.speed: float | None = DEFAULT_SPEED
        self.tick = 0
        self.sides: list[Side] = []
        self._replaced: list[WatchedAgent] = []  # who played where a person plays now
        self._begin(config, watched)

    def _begin(
        self, config: SessionConfig, watched: Sequence[WatchedAgent], by_hand: int | None = None
    ) -> None:
        """Play `config` from its start; by hand in this game of the last side."""
        self.close()
        self.config, self._orders = config, _level_orders(config)
        hands = [None] * (len(watched) - 1) + [by_hand]
        self.sides = [Side(one, config, self._levels, hand) for one, hand in zip(watched, hands, strict=True)]
        self.history = History(self._history_bytes)
        self.kept: dict[int, Tick] = {}
        self.looking: int | None = None

    @property
    def _levels(self) -> list[int]:
        """The level that each game plays."""
        return [order.level for order in self._orders]

    @property
    def by_hand(self) -> int | None:
        """The game that a person plays on the last side."""
        return self.sides[-1].by_hand

    def remembered(self, number: int | None) -> Tick | None:
        """The step of this number, if it can still be looked at."""
        if number is None:
            return None
        return self.kept.get(number) or self.history.get(number)

    def advance(self) -> Tick:
        """Play one step of all games."""
        moments = tuple(side.moment() for side in self.sides)
        views = [side.view() for side in self.sides]
        fresh = tuple(tuple(side.player.active.tolist()) for side in self.sides)
        steps = zip(self.sides, views, moments, strict=True)
        records = tuple(side.records(view, moment) for side, view, moment in steps)
        for side in self.sides:
            side.collect()
        self.tick += 1
        tick = Tick(self.tick, records, fresh, moments, tuple(order.begun for order in self._orders))
        self.history.add(tick)
        self._go_on_to_next_levels()
        return tick

    def _go_on_to_next_levels(self) -> None:
        """A game goes on to its next level once it has ended on all sides."""
        ended = np.flatnonzero(~np.any([side.player.active for side in self.sides], axis=0)).tolist()
        for game in ended:
            self._orders[game].begin_next()
        if ended:
            levels = [self._orders[game].level for game in ended]
            for side in self.sides:
                side.player.play_levels(ended, levels, after_episode=True)

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
                if tick is not None:
                    self._recall(tick)
                self.playing, self.looking = self.playing and tick is None, tick
            case controls.Keep(tick):
                self.kept[tick] = self._recall(tick)
            case controls.GoBack(tick):
                self._go_back(self._recall(tick))
            case controls.PlayMyself(game):
                self._play_by_hand(game)
            case controls.Keys(keys):
                self.sides[-1].hold(keys)
            case controls.ChooseCheckpoint(steps, side):
                self._choose_checkpoint(steps, side)
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
        return isinstance(control, _SHOW_SOMETHING_NEW)

    def _recall(self, number: int) -> Tick:
        tick = self.remembered(number)
        if tick is None:
            raise UserError(f"step {number} is not remembered: look at {self.history.first} or later")
        return tick

    def _go_back(self, tick: Tick) -> None:
        """Play on from before a step; numbers of steps go on, so that the way that was left can still be seen."""
        for side, moment in zip(self.sides, tick.moments, strict=True):
            side.go_back(moment)
        for order, begun in zip(self._orders, tick.episodes, strict=True):
            order.begun = begun
        self.looking = None

    def go_on_from(self, moments: Sequence[SideMoment], episodes: Sequence[int]) -> None:
        """Begin where another session stood.

        Args:
            moments: by side.
            episodes: by game, how many levels of its order had begun.

        Raises:
            ValueError, TypeError, KeyError, RuntimeError: they are not of such a session.
        """
        for side, moment in zip(self.sides, moments, strict=True):
            side.begin_at(moment)
        for order, begun in zip(self._orders, episodes, strict=True):
            while order.begun < begun:
                order.begin_next()

    def _play_by_hand(self, game: int | None) -> None:
        if game is not None and not 0 <= game < len(self.config.games):
            raise UserError(f"there is no game {game}: use 0 to {len(self.config.games) - 1}")
        agents = self._agents
        if game is None:
            self._replaced = []
            self._begin(self.config, agents)
        else:
            self._replaced = agents[1:]
            # The agent looks over the person's shoulder.
            self._begin(self.config, [agents[0], agents[0]], game)

    @property
    def _agents(self) -> list[WatchedAgent]:
        """Those that play, or would play if no person did."""
        return [side.watched for side in self.sides if side.by_hand is None] + self._replaced

    def _choose_checkpoint(self, steps: int, side: int) -> None:
        (chosen,) = self._sides(side)
        known = chosen.watched.checkpoints
        if steps not in known:
            raise UserError(
                f"there is no checkpoint of {steps} steps: there are {', '.join(map(str, known)) or 'none'}"
            )
        found: list[str] = []
        loaded = load_agent(str(known[steps]), str(chosen.watched.agent.device), found)
        raise_problems(found)
        assert loaded is not None
        other = replace(chosen.watched, agent=loaded.agent, name=str(loaded.checkpoint))
        raise_problems(_intervention_problems([other]))
        chosen.exchange(other)
        # Agents are compared from the same start on.
        self._restart(next_levels=False)

    def _restart(self, next_levels: bool) -> None:
        if next_levels:
            for order in self._orders:
                order.begin_next()
        games = range(len(self.config.games))
        for side in self.sides:
            side.player.play_levels(games, self._levels, after_episode=False)
        self.looking = None

    def _change_config(self, config: SessionConfig) -> None:
        raise_problems(config.problems())
        if config.games != self.config.games:
            agents, self._replaced = self._agents, []
            self._begin(config, agents)
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
            "kept": sorted(self.kept),
            "by_hand": self.by_hand,
            **plain(self.config),
            "available": [name for name, game in GAMES.items() if self.config.mode in game.modes],
            "splits": list(SPLITS),
            "actions": action_labels(),
            "words": WORDS,
            "sides": [side.describe() for side in self.sides],
        }

    def close(self) -> None:
        """Free the environments."""
        for side in self.sides:
            side.player.env.close()


class _LevelOrder:
    """The levels that a game plays, one after the other, in an order that can be gone back in.

    Attributes:
        begun: how many of them have begun; the last of these is played.
    """

    def __init__(self, levels: Iterator[int]) -> None:
        self._to_come, self._known = levels, [next(levels)]
        self.begun = 1

    @property
    def level(self) -> int:
        """The level that is played."""
        return self._known[self.begun - 1]

    def begin_next(self) -> None:
        """Go on to the next one."""
        self.begun += 1
        if self.begun > len(self._known):
            self._known.append(next(self._to_come))


def _level_orders(config: SessionConfig) -> list[_LevelOrder]:
    levels = parse_levels(config.split, config.mode)
    return [
        _LevelOrder(level_order(game, config.mode, levels, config.seed, config.level))
        for game in config.games
    ]


def _intervention_problems(watched: Sequence[WatchedAgent]) -> list[str]:
    found = []
    for one in watched:
        found += problems(one.intervention)
        reason = unsupported(one.agent.policy).get(one.intervention.kind)
        if reason is not None:
            found.append(f"self-modification {one.intervention} of {one.name}: {reason}")
    return found
