"""Steps a second of `ProcgenVecEnv` against those of the bare native environment beneath it.

python -m benchmarks.environment [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.figures import Figure, best_seconds, main
from envs import TASK_SETS, ProcgenVecEnv
from envs.levels import parse_levels
from envs.native import NUM_ACTIONS, NativeEnv

STEPS = 100
THREADS = 4


def measure(quick: bool = False) -> list[Figure]:
    """One figure for each number of games and slots."""
    cases: list[tuple[Sequence[str], int]] = [(TASK_SETS["easy6"], 66)]
    if not quick:
        cases += [(("starpilot",), 64), (TASK_SETS["all16"], 64), (TASK_SETS["easy6"], 510)]
    return [_figure(tuple(games), slots, repetitions=10 if quick else 30) for games, slots in cases]


def _figure(games: tuple[str, ...], slots: int, repetitions: int) -> Figure:
    ours = ProcgenVecEnv(games, slots, num_threads=THREADS)
    bare = NativeEnv(games, slots, "easy", parse_levels("train", "easy"), seed=0, num_threads=THREADS)
    actions = np.random.default_rng(0).integers(NUM_ACTIONS, size=(STEPS, slots)).astype(np.int32)
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
    return Figure(
        f"environment, {len(games)} games, {slots} slots",
        "bare native environment, steps/s",
        seconds["bare"] / seconds["ours"],
        aim=0.9,
        facts={f"{name} steps/s": STEPS * slots / spent for name, spent in seconds.items()},
    )


if __name__ == "__main__":
    sys.exit(main("Environment", measure))
