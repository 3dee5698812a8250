"""Episodes to be filmed: the best, the worst and the median of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents import Actor
from envs import ProcgenVecEnv, parse_levels
from envs.games import EXPLORATION_LEVELS
from evaluation.scoring.evaluate import Progress, no_progress
from evaluation.level_order import LevelOrder
from policies import Policy

PICKS = ("best", "worst", "median")


@dataclass(frozen=True)
class Take:
    """An episode that was played, and can be played again since a level and actions decide it.

    Attributes:
        game: its name.
        level: seed of the level.
        actions: chosen at each step (T,).
        score: return of the episode.
    """

    game: str
    level: int
    actions: NDArray[np.int64]
    score: float


def native_mode(mode: str) -> str:
    """Exploration mode is hard mode on fixed levels; only there can levels be chosen."""
    return "hard" if mode == "exploration" else mode


def play_takes(
    policy: Policy,
    game: str,
    count: int,
    *,
    mode: str = "easy",
    levels: str = "test1",
    greedy: bool = True,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[Take]:
    """Play `count` episodes of a game side by side, without rendering.

    Args:
        policy: plays.
        game: its name.
        count: episodes, on levels drawn with replacement.
        mode: of the game.
        levels: that are drawn.
        greedy: take the most likely action instead of drawing one.
        seed: of levels and actions.
        progress: called after each episode with numbers of episodes.
    """
    order = LevelOrder(
        game, parse_levels(levels, mode), EXPLORATION_LEVELS[game] if mode == "exploration" else None, seed
    )
    seeds = [order.next() for _ in range(count)]
    env = ProcgenVecEnv([game], count, native_mode(mode), "all", level_seeds=seeds)
    generator = torch.Generator(policy.device).manual_seed(seed)
    actor = Actor(policy, count, policy.device, generator)
    chosen: list[list[int]] = [[] for _ in seeds]
    scores: list[float | None] = [None] * count
    try:
        observation: Any = env.reset()
        starts = np.ones(count, dtype=bool)
        while None in scores:
            actions = actor.step(observation, starts, greedy).actions.cpu().numpy()
            playing = [slot for slot in range(count) if scores[slot] is None]
            for slot in playing:
                chosen[slot].append(int(actions[slot]))
            observation, _, starts, infos = env.step(actions)
            for slot in playing:
                if starts[slot]:
                    scores[slot] = float(infos[slot]["episode"]["r"])
                    progress(count - scores.count(None), count, game)
    finally:
        env.close()
    return [
        Take(game, level, np.array(actions), score)
        for level, actions, score in zip(seeds, chosen, scores, strict=True)
        if score is not None
    ]


def pick(takes: Sequence[Take], which: str) -> Take:
    """The best, worst or median take by its score; of equal ones, the first that was played."""
    ordered = sorted(takes, key=lambda take: take.score)
    if which == "best":
        return next(take for take in ordered if take.score == ordered[-1].score)
    return ordered[0] if which == "worst" else ordered[(len(ordered) - 1) // 2]
