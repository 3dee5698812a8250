"""Does a policy get better at a game while it plays it? Scores in a stream of games, by episodes since the switch.

The policy plays a stream (`envs.StreamVecEnv`) under several reset conditions at once, which differ in when its memory
is cleared:

carried     never: what it has learned about the last games is still there when the next one comes
switch      at each switch to another game, which only an evaluation can know
episode     at the start of each episode
a number    every so many steps
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from agents import Agent
from agents.acting import greedy
from common import config
from common.config import Range
from common.errors import UserError, raise_problems
from envs import StreamVecEnv, game_problems, parse_levels, parse_task_duration
from envs.checks import MAX_ENVS
from evaluation.agent_info import policy_with_reset
from evaluation.loading import agent_problems
from evaluation.play import Player, action_seed, sampler
from evaluation.progress import Progress, Report, no_report
from policies.resets import SpanReset, parse_reset

RESET_CONDITIONS = ("carried", "switch", "episode")
DEFAULT_SPAN = "50"


@dataclass(frozen=True)
class StreamProtocol:
    """What is played, and how.

    Attributes:
        task_duration: How long a stream stays with a game, as for `envs.parse_task_duration`.
        streams: How many streams are played side by side under each reset condition.
        tasks: Scored tasks of each stream; the first one, before any switch, is played besides and not scored.
        reset_conditions: When the memory is cleared: carried, switch, episode, or a number of steps.
        greedy: Whether the most likely action is taken instead of drawing one.
        twist: What is withheld or asked, as for `envs.ProcgenVecEnv`.
    """

    games: tuple[str, ...]
    mode: str = "easy"
    split: str = "test1"
    task_duration: str = "4 episodes"
    streams: Annotated[int, Range(1, MAX_ENVS)] = 8
    tasks: Annotated[int, Range(1, 10**6)] = 6
    reset_conditions: tuple[str, ...] = (*RESET_CONDITIONS, DEFAULT_SPAN)
    greedy: bool = True
    seed: int = 0
    twist: str | None = None

    def problems(self) -> list[str]:
        """Everything that is wrong with it, a line each."""
        found = [*game_problems(self.games, self.mode), *config.problems(self)]
        if len(self.games) < 2:
            found.append("a stream needs two games or more to switch between")
        checks: list[Callable[[], object]] = [
            lambda: parse_task_duration(self.task_duration),
            lambda: parse_levels(self.split, self.mode),
            *(lambda condition=condition: _span(condition) for condition in self.reset_conditions),
        ]
        for check in checks:
            try:
                check()
            except UserError as error:
                found.append(str(error))
        if not self.reset_conditions:
            found.append("no reset condition: name at least one")
        return found


def _span(condition: str) -> int | None:
    """The number of steps of a reset condition, None for the others. Raises `UserError` for an unknown one."""
    if condition in RESET_CONDITIONS:
        return None
    with suppress(UserError):
        rule = parse_reset(condition)
        if isinstance(rule, SpanReset):
            return rule.span
    names = ", ".join(RESET_CONDITIONS)
    raise UserError(f"unknown reset condition {condition!r}: use {names} or a number of steps")


@dataclass(frozen=True)
class StreamEpisode:
    """One episode of a stream.

    Attributes:
        task: The number of its task, 1 for the first after a switch.
        index: How many episodes of this task had ended before it.
        score: The sum of the raw rewards; `normalized` is the same on ProcGen's scale.
    """

    reset_condition: str
    stream: int
    task: int
    index: int
    game: str
    score: float
    normalized: float
    length: int


def play_streams(agent: Agent, protocol: StreamProtocol, report: Report = no_report) -> list[StreamEpisode]:
    """Play streams under each reset condition of `protocol`; all meet the same streams. The agent is left as it was.

    Raises:
        UserError: the protocol cannot be played, or the agent is for other observations or actions.
    """
    raise_problems([*protocol.problems(), *agent_problems(agent)])
    levels = parse_levels(protocol.split, protocol.mode)
    seed = action_seed(protocol.seed, protocol.games[0], levels)
    with ExitStack() as stack:
        trials = []
        for condition in protocol.reset_conditions:
            env = StreamVecEnv(
                protocol.games,
                protocol.streams,
                protocol.task_duration,
                protocol.mode,
                protocol.split,
                protocol.seed,
                protocol.twist,
            )
            stack.callback(env.close)
            trials.append(_Trial(condition, env))
        # Whatever clears the memory is announced to this rule as the start of an episode.
        policy = policy_with_reset(agent, "episode")
        choosers = [greedy if protocol.greedy else sampler(seed, policy.device) for _ in trials]
        player = Player(policy, [trial.env for trial in trials], choosers)
        total, done = len(trials) * protocol.streams * protocol.tasks, 0
        for step in player.play():
            for number, trial in enumerate(trials):
                active, starts, ended = (
                    player.split(values)[number] for values in (player.active, player.starts, step.ended)
                )
                infos = step.infos[number * protocol.streams :]
                done += trial.count(active, ended, infos)
                starts[:] = trial.clears(ended)
                active &= trial.env.task_indices <= protocol.tasks
            report(Progress(done, total, protocol.split))
    place = attrgetter("stream", "task", "index")
    return [episode for trial in trials for episode in sorted(trial.episodes, key=place)]


class _Trial:
    """Streams under one reset condition, and the episodes that they have played."""

    def __init__(self, reset_condition: str, env: StreamVecEnv) -> None:
        self.env = env
        self._condition, self._span = reset_condition, _span(reset_condition)
        self._steps = 0  # since the start of the streams
        self._tasks, self._indices = env.task_indices.copy(), env.episodes_in_task.copy()  # before a step
        self.episodes: list[StreamEpisode] = []

    def count(
        self, active: NDArray[np.bool_], ended: NDArray[np.bool_], infos: Sequence[dict[str, Any]]
    ) -> int:
        """Keep the scored episodes that have just ended; returns how many scored tasks have ended."""
        scored = active & (self._tasks > 0)
        for stream in np.flatnonzero(ended & scored):
            info = infos[stream]
            self.episodes.append(
                StreamEpisode(
                    self._condition,
                    int(stream),
                    int(self._tasks[stream]),
                    int(self._indices[stream]),
                    info["game"],
                    float(info["episode"]["r"]),
                    float(info["normalized_return"]),
                    int(info["episode"]["l"]),
                )
            )
        self._steps += 1
        self._tasks, self._indices = self.env.task_indices.copy(), self.env.episodes_in_task.copy()
        return int((self.env.switched & scored).sum())

    def clears(self, ended: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where the memory is cleared before the next step (streams,)."""
        if self._span is not None:
            return np.full(len(ended), self._steps % self._span == 0)
        if self._condition == "switch":
            return self.env.switched.copy()
        return ended if self._condition == "episode" else np.zeros(len(ended), dtype=bool)


def adaptation_curve(
    episodes: Sequence[StreamEpisode], reset_condition: str, games: Sequence[str]
) -> list[float]:
    """Mean over `games` of the mean normalised score of the first, second, ... episode after a switch.

    It ends before the first place for which some game has no episode, so that every point stands for all games.
    """
    scores: dict[tuple[str, int], list[float]] = {}
    for episode in episodes:
        if episode.reset_condition == reset_condition:
            scores.setdefault((episode.game, episode.index), []).append(episode.normalized)
    curve: list[float] = []
    while all((game, len(curve)) in scores for game in games):
        curve.append(float(np.mean([np.mean(scores[game, len(curve)]) for game in games])))
    return curve


def to_json(protocol: StreamProtocol, episodes: Sequence[StreamEpisode]) -> dict[str, Any]:
    """Protocol and episodes as plain JSON values."""
    return {"protocol": config.plain(protocol), "episodes": config.plain(episodes)}


def from_json(data: dict[str, Any]) -> list[StreamEpisode]:
    """The episodes that `to_json` wrote."""
    return [StreamEpisode(**episode) for episode in data["episodes"]]
