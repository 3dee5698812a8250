"""Record an agent at play: a film, a trace of everything that happened, or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from agents import Agent
from common.errors import raise_problems
from envs import ProcgenVecEnv
from evaluation.agent_info import policy_with_reset
from evaluation.inspection import InspectedPlayer
from evaluation.loading import agent_problems, task_numbers
from evaluation.play import native_mode
from evaluation.progress import Progress, Report, no_report
from evaluation.recording.film import film_writer
from evaluation.recording.options import Recording
from evaluation.recording.replay import Replay, choose_replay, play_candidates
from evaluation.recording.trace import Frame, trace_writer
from evaluation.scoring.protocol import Protocol
from policies import Policy


def record(
    agent: Agent,
    protocol: Protocol,
    recording: Recording,
    *,
    meta: Mapping[str, Any] | None = None,
    report: Report = no_report,
) -> None:
    """Play the games of `protocol` side by side in environments of their own, and write a film of it.

    Args:
        agent: as for `evaluate`; it is left as it was.
        protocol: games, mode, actions, seed and reset rule; levels are drawn from the first of its splits.
        recording: what is written. The directories must exist; a file there is replaced once the new one is whole.
            Without a film, nothing is rendered.
        meta: facts to be kept in the trace.
        report: called after each frame with numbers of frames.

    Raises:
        UserError: the protocol cannot be played, the recording is impossible, or the agent is not for ProcGen.
        OSError: a file cannot be written.
    """
    raise_problems([*protocol.problems(), *agent_problems(agent), *recording.problems()])
    policy = policy_with_reset(agent, protocol.reset)
    tasks = dict(zip(protocol.games, task_numbers(agent, protocol.games, protocol.mode), strict=True))
    replays = _chosen_replays(policy, protocol, recording, tasks)
    length = max(len(replay.actions) for replay in replays) if replays else recording.frames
    with ExitStack() as stack:
        env = _make_env(protocol, replays, "rgb_array" if recording.video is not None else None)
        stack.callback(env.close)
        games = env.get_attr("game")
        player = InspectedPlayer(policy, env, protocol.seed, protocol.greedy, [tasks[game] for game in games])
        writers = []
        if recording.video is not None:
            writers.append(stack.enter_context(film_writer(recording, protocol, games)))
        if recording.trace is not None:
            about = {**_meta(protocol, recording, games, policy), **(meta or {})}
            trace = trace_writer(
                recording.trace, length, about, recording.trace_frames, recording.trace_weights_every
            )
            writers.append(stack.enter_context(trace))
        for done, frame in enumerate(_frames(player, length, replays), 1):
            for write in writers:
                write(frame)
            report(Progress(done, length, ", ".join(protocol.games)))


def _meta(protocol: Protocol, recording: Recording, games: Sequence[str], policy: Policy) -> dict[str, Any]:
    return {
        "games": list(games),
        "mode": protocol.mode,
        "levels": protocol.splits[0],
        "greedy": protocol.greedy,
        "twist": protocol.twist,
        "seed": protocol.seed,
        "reset": policy.config.reset,
        "episodes": list(recording.video_episodes),
    }


def _chosen_replays(
    policy: Policy, protocol: Protocol, recording: Recording, tasks: Mapping[str, int]
) -> list[Replay]:
    """The episodes that are shown, all games for each choice; none where a stretch of time is."""
    if not recording.video_episodes:
        return []
    candidates = [
        play_candidates(policy, game, recording.video_candidates, protocol, tasks[game])
        for game in protocol.games
    ]
    return [choose_replay(played, which) for which in recording.video_episodes for played in candidates]


def _make_env(protocol: Protocol, replays: Sequence[Replay], render: str | None) -> ProcgenVecEnv:
    twist = protocol.twist
    if not replays:
        games, levels, seed = protocol.games, protocol.splits[0], protocol.seed
        return ProcgenVecEnv(games, len(games), protocol.mode, levels, seed, render_mode=render, twist=twist)
    seeds = [replay.level for replay in replays]
    mode = native_mode(protocol.mode)
    return ProcgenVecEnv(
        protocol.games, len(replays), mode, "all", render_mode=render, level_seeds=seeds, twist=twist
    )


def _frames(player: InspectedPlayer, length: int, replays: Sequence[Replay]) -> Iterator[Frame]:
    """Play for so many frames; replays from their first to their last step, where short ones wait for the longest."""
    for time in range(length):
        forced = None
        if replays:
            player.active = np.array([time < len(replay.actions) for replay in replays])
            forced = np.array([replay.actions[min(time, len(replay.actions) - 1)] for replay in replays])
        view = player.view(forced)
        step = player.collect()
        for index, replay in enumerate(replays):
            if time == len(replay.actions) - 1 and (
                not step.ended[index] or step.infos[index]["episode"]["r"] != replay.score
            ):
                raise RuntimeError(f"level {replay.level} of {replay.game} did not go as it went before")
        yield Frame(view, step, player.active)
