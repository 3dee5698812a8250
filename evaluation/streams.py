"""Does a policy get better at a game while it plays it? Scores in a stream of games, by episodes since the switch.

The policy plays a stream (`envs.StreamVecEnv`) in several ways at once, which differ in when its memory is cleared:

carried     never: what it has learned about the last games is still there when the next one comes
switch      at each switch to another game, which only an evaluation can know
episode     at the start of each episode
a number    every so many steps
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents import Actor, Agent
from agents.acting import greedy
from common.errors import UserError, raise_problems
from envs import StreamVecEnv, game_problems, parse_levels, parse_task_duration
from envs.native import NO_OP
from evaluation.scoring.evaluate import Progress, action_seed, no_progress
from evaluation.play import sampler
from evaluation.agent_info import agent_problems, policy_with_reset
from policies.resets import SpanReset, parse_reset

WAYS = ("carried", "switch", "episode")
DEFAULT_SPAN = "50"


@dataclass(frozen=True)
class StreamProtocol:
    """What is played, and how.

    Attributes:
        games: of the streams.
        mode: of the games.
        split: levels that are played.
        stay: how long a stream stays with a game, as for `envs.parse_task_duration`.
        streams: how many are played side by side, by each way of clearing the memory.
        stays: scored stays of each stream; the first one, before any switch, is played besides and not scored.
        ways: when the memory is cleared: carried, switch, episode, or a number of steps.
        greedy: take the most likely action instead of drawing one.
        seed: of streams and actions.
    """

    games: tuple[str, ...]
    mode: str = "easy"
    split: str = "test1"
    stay: str = "4 episodes"
    streams: int = 8
    stays: int = 6
    ways: tuple[str, ...] = (*WAYS, DEFAULT_SPAN)
    greedy: bool = True
    seed: int = 0

    def problems(self) -> list[str]:
        """Everything that is wrong with it, a line each."""
        found = game_problems(self.games, self.mode)
        if len(self.games) < 2:
            found.append("a stream needs two games or more to switch between")
        for name in ("streams", "stays"):
            if getattr(self, name) < 1:
                found.append(f"{name} is {getattr(self, name)}: give 1 or more")
        for check in (lambda: parse_task_duration(self.stay), lambda: parse_levels(self.split, self.mode)):
            try:
                check()
            except UserError as error:
                found.append(str(error))
        for way in self.ways:
            try:
                _span(way)
            except UserError:
                found.append(f"unknown way of clearing {way!r}: use {', '.join(WAYS)} or a number of steps")
        if not self.ways:
            found.append("no way of clearing the memory: name at least one")
        return found


def _span(way: str) -> int | None:
    """The number of steps of a way of clearing, None for the others. Raises `UserError` for an unknown one."""
    if way in WAYS:
        return None
    rule = parse_reset(way)
    if not isinstance(rule, SpanReset):
        raise UserError(f"unknown way of clearing {way!r}")
    return rule.span


@dataclass(frozen=True)
class StreamEpisode:
    """One episode of a stream.

    Attributes:
        way: when the memory was cleared.
        stream: number of the stream.
        stay: number of its stay, 1 for the first after a switch.
        index: episodes of this stay that had ended before it.
        game: that was played.
        score: sum of the raw rewards.
        normalized: the same on ProcGen's scale.
        length: steps.
    """

    way: str
    stream: int
    stay: int
    index: int
    game: str
    score: float
    normalized: float
    length: int


def play_streams(
    agent: Agent, protocol: StreamProtocol, progress: Progress = no_progress
) -> list[StreamEpisode]:
    """Play streams in every way of `protocol`; each way meets the same streams. The agent is left as it was.

    Raises:
        UserError: the protocol cannot be played, or the agent is for other observations or actions.
    """
    raise_problems([*protocol.problems(), *agent_problems(agent)])
    envs = [
        StreamVecEnv(
            protocol.games, protocol.streams, protocol.stay, protocol.mode, protocol.split, protocol.seed
        )
        for _ in protocol.ways
    ]
    try:
        return _play(agent, protocol, envs, progress)
    finally:
        for env in envs:
            env.close()


def _play(
    agent: Agent, protocol: StreamProtocol, envs: Sequence[StreamVecEnv], progress: Progress
) -> list[StreamEpisode]:
    # Whatever clears the memory is told to this rule as the start of an episode.
    actor = Actor(
        policy_with_reset(agent, "episode"),
        len(envs) * protocol.streams,
        agent.device,
        torch.Generator(agent.device),
    )
    levels = parse_levels(protocol.split, protocol.mode)
    seeds = [action_seed(protocol.seed, protocol.games[0], levels)] * len(envs)
    choosers = [greedy if protocol.greedy else sampler(seed, agent.device) for seed in seeds]
    spans = [_span(way) for way in protocol.ways]
    observations: list[Any] = [env.reset() for env in envs]
    clear = np.ones((len(envs), protocol.streams), dtype=bool)
    since = np.zeros(clear.shape, dtype=np.int64)  # steps since the start of each stream
    episodes: list[StreamEpisode] = []
    total, done = len(envs) * protocol.streams * protocol.stays, 0
    playing = np.ones(clear.shape, dtype=bool)
    while playing.any():
        together = {key: np.concatenate([seen[key] for seen in observations]) for key in observations[0]}
        rows = np.flatnonzero(playing)
        seen = {key: value[rows] for key, value in together.items()}
        logits = actor.step(seen, clear.ravel()[rows], deterministic=True).logits
        actions = np.full(clear.size, NO_OP)
        border = np.cumsum(playing.sum(1))
        for choose, part, places in zip(
            choosers, logits.tensor_split(border[:-1].tolist()), np.split(rows, border[:-1]), strict=True
        ):
            if len(places):
                actions[places] = choose(part).cpu().numpy()
        since += 1
        for number, env in enumerate(envs):
            stays, indices, games = env.task_indices.copy(), env.episodes_in_task.copy(), env.current_games
            observations[number], _, dones, infos = env.step(actions.reshape(clear.shape)[number])
            for slot in np.flatnonzero(dones & playing[number] & (stays > 0)):
                info = infos[slot]
                episodes.append(
                    StreamEpisode(
                        protocol.ways[number],
                        int(slot),
                        int(stays[slot]),
                        int(indices[slot]),
                        games[slot],
                        float(info["episode"]["r"]),
                        float(info["normalized_return"]),
                        int(info["episode"]["l"]),
                    )
                )
            ended = env.switched & playing[number] & (stays > 0)
            done += int(ended.sum())
            if ended.any():
                progress(done, total, protocol.split)
            clear[number] = _cleared(protocol.ways[number], spans[number], env, dones, since[number])
            playing[number] &= env.task_indices <= protocol.stays
        going_on = torch.as_tensor(np.flatnonzero(playing.ravel()[rows]), device=agent.device)
        actor.state = {name: tensor.index_select(0, going_on) for name, tensor in actor.state.items()}
    return sorted(
        episodes,
        key=lambda episode: (protocol.ways.index(episode.way), episode.stream, episode.stay, episode.index),
    )


def _cleared(
    way: str, span: int | None, env: StreamVecEnv, dones: NDArray[np.bool_], since: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Where the memory is cleared before the next step, (streams,)."""
    if span is not None:
        due: NDArray[np.bool_] = since % span == 0
        return due
    if way == "switch":
        return env.switched.copy()
    return dones.copy() if way == "episode" else np.zeros(len(dones), dtype=bool)


def adaptation_curve(episodes: Sequence[StreamEpisode], way: str, games: Sequence[str]) -> list[float]:
    """Mean over `games` of the mean normalised score of the first, second, ... episode after a switch.

    It ends before the first place for which some game has no episode, so that every point stands for all games.
    """
    curve: list[float] = []
    while True:
        here = [
            [e.normalized for e in episodes if (e.way, e.game, e.index) == (way, game, len(curve))]
            for game in games
        ]
        if not all(here):
            return curve
        curve.append(float(np.mean([np.mean(scores) for scores in here])))


def to_json(protocol: StreamProtocol, episodes: Sequence[StreamEpisode]) -> dict[str, Any]:
    """Protocol and episodes as plain JSON values."""
    described = {**asdict(protocol), "games": list(protocol.games), "ways": list(protocol.ways)}
    return {"protocol": described, "episodes": [asdict(episode) for episode in episodes]}


def from_json(data: dict[str, Any]) -> list[StreamEpisode]:
    """The episodes that `to_json` wrote."""
    return [StreamEpisode(**episode) for episode in data["episodes"]]
