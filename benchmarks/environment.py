"""Steps a second of `ProcgenVecEnv` against those of the bare native environment beneath it.

python -m benchmarks.environment [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.figures import Figure, Part, best_seconds, main
from envs import TASK_SETS, ProcgenVecEnv
from envs.levels import parse_levels
from envs.native import NUM_ACTIONS, NativeEnv

STEPS = 100
THREADS = 4


def parts(quick: bool = False) -> list[Part]:
    """One for each number of games and environments."""
    cases: list[tuple[Sequence[str], int]] = [(TASK_SETS["easy6"], 66)]
    if not quick:
        cases += [(("starpilot",), 64), (TASK_SETS["all16"], 64), (TASK_SETS["easy6"], 510)]
    return [
        Part(
            f"environment: {_label(games, num_envs)}",
            partial(_measure, tuple(games), num_envs, repetitions=10 if quick else 30),
        )
        for games, num_envs in cases
    ]


def _label(games: Sequence[str], num_envs: int) -> str:
    return f"{len(games)} game{'s' * (len(games) > 1)}, {num_envs} environments"


def _measure(games: tuple[str, ...], num_envs: int, repetitions: int) -> list[Figure]:
    ours = ProcgenVecEnv(games, num_envs, num_threads=THREADS)
    bare = NativeEnv(games, num_envs, "easy", parse_levels("train", "easy"), seed=0, num_threads=THREADS)
    actions = np.random.default_rng(0).integers(NUM_ACTIONS, size=(STEPS, num_envs)).astype(np.int32)
    ours.reset()

    def step_ours() -> None:
        for action in actions:
            ours.step_async(action)
            ours.step_wait()

    def step_bare() -> None:
        for action in actions:
            bare.act(action)
            bare.observe()

    seconds = best_seconds({"ours": step_ours, "bare": step_bare}, repetitions)
    ours.close()
    bare.close()
    return [
        Figure(
            f"environment, {_label(games, num_envs)}",
            "bare native environment, steps/s",
            seconds["bare"] / seconds["ours"],
            aim=0.9,
            facts={f"{name} steps/s": STEPS * num_envs / spent for name, spent in seconds.items()},
        )
    ]


if __name__ == "__main__":
    sys.exit(main("Environment", parts))
