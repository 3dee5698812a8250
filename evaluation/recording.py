"""Record an agent at play as a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from agents import Actor, Agent
from common.errors import UserError
from envs import BUTTON_COMBOS, ProcgenVecEnv, environment_problems
from envs.checks import raise_problems
from envs.native import FRAMES_PER_SECOND
from evaluation.evaluator import Progress, no_progress
from evaluation.overlay import Caption, Grid, TilePainter, frame_size_for
from evaluation.subject import agent_problems, policy_with_reset
from evaluation.video import VideoWriter

DEFAULT_FRAMES = 450
"""Half a minute at ProcGen's human speed."""


@dataclass(frozen=True)
class Trace:
    """What happened in the T frames of a recording of N games; all arrays (T, N).

    Attributes:
        returns: sum of raw rewards of the episode before the frame.
        values: the policy's estimate at the frame.
        actions: chosen at the frame.
        steps: of the episode before the frame.
        levels: seed of the level.
    """

    returns: NDArray[np.float64]
    values: NDArray[np.float32]
    actions: NDArray[np.int64]
    steps: NDArray[np.int64]
    levels: NDArray[np.int64]


def record(
    agent: Agent,
    games: Sequence[str],
    path: str | os.PathLike[str],
    *,
    mode: str = "easy",
    levels: str = "test1",
    frames: int = DEFAULT_FRAMES,
    greedy: bool = True,
    seed: int = 0,
    reset: str | None = None,
    progress: Progress = no_progress,
) -> Trace:
    """Play `games` side by side and write an mp4 to `path`: a grid with return, value and action of each.

    Args:
        agent: as for `evaluate`; it is left as it was.
        games: what to play, one tile each.
        path: whose directory must exist; a file there is replaced once the new one is whole.
        mode: of the games.
        levels: that are drawn: train, test1, test2, test3, all or "A:B".
        frames: length; ProcGen is meant to be watched at 15 frames a second.
        greedy: take the most likely action instead of drawing one.
        seed: of levels and actions.
        reset: reset rule in place of the agent's own.
        progress: called after each frame with numbers of frames.

    Raises:
        UserError: games, mode, levels or reset rule do not exist, or the agent is not for ProcGen.
        OSError: the file cannot be written.
    """
    problems = [*environment_problems(games, len(games), mode, levels, seed), *agent_problems(agent)]
    raise_problems(problems)
    if frames < 1:
        raise UserError(f"a video of {frames} frames cannot be made: record 1 or more")
    policy = policy_with_reset(agent, reset)
    env = ProcgenVecEnv(games, len(games), mode, levels, seed, render_mode="rgb_array")
    try:
        generator = torch.Generator(agent.device).manual_seed(seed)
        player = _Player(env, Actor(policy, env.num_envs, agent.device, generator), greedy)
        painter = TilePainter(frame_size_for(len(games)))
        grid = Grid(len(games), painter.size)
        with VideoWriter(path, *grid.size, FRAMES_PER_SECOND) as video:
            for frame in range(frames):
                pictures, captions = player.step()
                tiles = [painter.paint(*shown) for shown in zip(pictures, captions, strict=True)]
                video.write(grid.compose(tiles))
                progress(frame + 1, frames, ", ".join(games))
    finally:
        env.close()
    return player.trace()


class _Player:
    """Plays on, and says of each frame what there is to show.

    A frame belongs to the observation that the policy sees, to the value it gives to it and to the action it
    answers with; return and step are those before this action. The last frame of an episode is never seen, so
    its final return is shown as that of the episode before.
    """

    def __init__(self, env: ProcgenVecEnv, actor: Actor, greedy: bool) -> None:
        self._env, self._actor, self._greedy = env, actor, greedy
        self._games = env.get_attr("game")
        self._observation = env.reset()
        self._starts = np.ones(env.num_envs, dtype=bool)
        self._returns = np.zeros(env.num_envs)
        self._last_returns: list[float | None] = [None] * env.num_envs
        self._steps = np.zeros(env.num_envs, dtype=np.int64)
        self._trace: dict[str, list[NDArray[Any]]] = {field.name: [] for field in fields(Trace)}

    def step(self) -> tuple[Sequence[NDArray[np.uint8]], list[Caption]]:
        """The present frame of each game and its caption; then the games move on."""
        pictures, levels = self._env.get_images(), self._env.current_levels
        chosen = self._actor.step(self._observation, self._starts, self._greedy)
        values, actions = chosen.values.cpu().numpy(), chosen.actions.cpu().numpy()
        captions = [
            Caption(
                game=self._games[slot],
                place=f"{self._env.levels}, level {levels[slot]}",
                episode_return=self._returns[slot],
                last_return=self._last_returns[slot],
                just_ended=self._last_returns[slot] is not None and self._steps[slot] < FRAMES_PER_SECOND,
                step=int(self._steps[slot]),
                value=float(values[slot]),
                keys=BUTTON_COMBOS[actions[slot]],
            )
            for slot in range(self._env.num_envs)
        ]
        self._remember(
            returns=self._returns, values=values, actions=actions, steps=self._steps, levels=levels
        )
        self._move(actions)
        return [picture for picture in pictures if picture is not None], captions

    def _move(self, actions: NDArray[np.int64]) -> None:
        observation, rewards, self._starts, infos = self._env.step(actions)
        assert isinstance(observation, dict)
        self._observation = observation
        self._returns += rewards
        self._steps += 1
        for slot in np.flatnonzero(self._starts):
            self._last_returns[slot] = infos[slot]["episode"]["r"]
        self._returns[self._starts] = 0
        self._steps[self._starts] = 0

    def _remember(self, **facts: ArrayLike) -> None:
        for name, values in facts.items():
            self._trace[name].append(np.array(values))

    def trace(self) -> Trace:
        """What happened so far."""
        return Trace(**{name: np.stack(values) for name, values in self._trace.items()})
