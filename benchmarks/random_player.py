"""Mean returns of a player that draws its actions uniformly, for each game: the zero of "how much of a game is known".

python -m benchmarks.random_player --out evaluation/report/reference/random_player.json
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from benchmarks.machine import describe_machine
from common.cli import Shown, run_with_options
from common.config import Range
from common.errors import raise_problems
from common.files import write_json
from envs import GAMES, NUM_ACTIONS, Levels, ProcgenVecEnv, game_problems, parse_levels
from evaluation.play import action_seed
from evaluation.scoring.evaluate import episode_quotas
from evaluation.scoring.results import estimate

PROGRAM = "python -m benchmarks.random_player"


@dataclass(frozen=True)
class Options:
    """Measure the returns of uniformly drawn actions.

    Attributes:
        out: where the table goes; it is written anew after each row.
        games: that are measured.
        modes: of the games; those that lack one are left out.
        splits: levels that are played.
        episodes: of each game and split.
        num_envs: stepped together.
        seed: of levels and actions.
    """

    out: Annotated[str, Shown("FILE")]
    games: tuple[str, ...] = tuple(GAMES)
    modes: tuple[str, ...] = ("easy",)
    splits: tuple[str, ...] = ("train", "test1")
    episodes: Annotated[int, Range(2)] = 200
    num_envs: Annotated[int, Range(1)] = 100
    seed: int = 0


def random_returns(game: str, mode: str, levels: Levels, options: Options) -> list[float]:
    """Returns of so many whole episodes of one game; each environment plays a number known beforehand."""
    generator = np.random.default_rng(action_seed(options.seed, game, levels))
    left = np.array(episode_quotas(options.episodes, options.num_envs))
    env = ProcgenVecEnv([game], options.num_envs, mode, levels, options.seed, num_threads=0)
    returns: list[float] = []
    try:
        env.reset()
        while left.any():
            _, _, ended, infos = env.step(generator.integers(NUM_ACTIONS, size=options.num_envs))
            returns += [float(infos[index]["episode"]["r"]) for index in np.flatnonzero(ended & (left > 0))]
            left -= ended & (left > 0)
    finally:
        env.close()
    return returns


def rows(options: Options) -> Iterator[dict[str, Any]]:
    """A row for each mode, game and split."""
    for mode in options.modes:
        for game in (name for name in options.games if mode in GAMES[name].modes):
            for levels in (parse_levels(split, mode) for split in options.splits):
                found = estimate(random_returns(game, mode, levels, options))
                yield {
                    "game": game,
                    "mode": mode,
                    "split": levels.name,
                    "mean": round(found.mean, 4),
                    "standard_error": round(found.standard_error, 4),
                }


def main(options: Options) -> None:
    """Measure and write the table."""
    raise_problems([problem for mode in options.modes for problem in _problems(options, mode)])
    table = []
    facts = {"episodes": options.episodes, "seed": options.seed, "actions": "uniform"}
    for row in rows(options):
        print(f"{row['mode']:8}{row['game']:12}{row['split']:8}{row['mean']:8.2f}", flush=True)
        table.append(row)
        content = {"command": PROGRAM, "machine": describe_machine(), **facts, "rows": table}
        write_json(Path(options.out), content)


def _problems(options: Options, mode: str) -> list[str]:
    """What is wrong with the names of games and modes; that a game lacks a mode is not."""
    return [problem for problem in game_problems(options.games, mode) if problem.startswith("unknown")]


if __name__ == "__main__":
    sys.exit(run_with_options(Options, main, PROGRAM))
