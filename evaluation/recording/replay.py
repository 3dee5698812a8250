"""Whole episodes to be filmed: played without rendering, chosen by their returns, and played again for the film."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from agents.acting import greedy
from envs import ProcgenVecEnv
from evaluation.play import Player, level_order, native_mode, sampler
from evaluation.scoring.protocol import Protocol
from policies import Policy

CHOICES = ("best", "worst", "median")


@dataclass(frozen=True)
class Replay:
    """An episode that was played, and can be played again since its level and its actions decide it.

    Attributes:
        actions: The action of each step (T,).
        score: The return of the episode.
    """

    game: str
    level: int
    actions: NDArray[np.int64]
    score: float


def play_candidates(policy: Policy, game: str, count: int, protocol: Protocol, task: int = 0) -> list[Replay]:
    """Play `count` episodes of a game side by side, on levels of the first split of `protocol`.

    `task` is its number, for a policy that is told.
    """
    levels = list(islice(level_order(game, protocol.mode, protocol.levels[0], protocol.seed), count))
    env = ProcgenVecEnv(
        [game], count, native_mode(protocol.mode), "all", level_seeds=levels, twist=protocol.twist
    )
    choose = greedy if protocol.greedy else sampler(protocol.seed, policy.device)
    chosen: list[list[int]] = [[] for _ in levels]
    scores = [0.0] * count
    with closing(env):
        player = Player(policy, [env], [choose], [task] * count)
        for step in player.play():
            for index in np.flatnonzero(player.active):
                chosen[index].append(int(step.actions[index]))
            for index in np.flatnonzero(step.ended):
                scores[index] = float(step.infos[index]["episode"]["r"])
            player.active &= ~step.ended
    return [
        Replay(game, level, np.array(actions), score)
        for level, actions, score in zip(levels, chosen, scores, strict=True)
    ]


def choose_replay(candidates: Sequence[Replay], which: str) -> Replay:
    """The best, worst or median candidate by its score; of equal ones, the first that was played."""
    ordered = sorted(candidates, key=lambda replay: replay.score)
    if which == "best":
        return next(replay for replay in ordered if replay.score == ordered[-1].score)
    return ordered[0] if which == "worst" else ordered[(len(ordered) - 1) // 2]
