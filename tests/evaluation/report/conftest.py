"""Runs that were never trained: a directory with settings, an empty checkpoint, a curve and scores."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from envs import parse_levels
from evaluation import Protocol
from evaluation.report.runs import Run
from evaluation.scoring.results import estimate
from records.config import from_json
from records.directory import RunDirectory

GAMES = ("bigfish", "maze")
SPLITS = ("train", "test1", "test2")

MakeRun = Callable[..., Run]


def evaluation_json(
    protocol: Protocol, score: Callable[[str, str], Sequence[float]], checkpoint: str
) -> dict[str, Any]:
    """What `evaluation.write_results` writes, with the returns that `score` gives for a game and a split."""
    scores = []
    for split in protocol.splits:
        levels = parse_levels(split, protocol.mode)
        for game in protocol.games:
            returns = [float(value) for value in score(game, levels.name)]
            raw = estimate(returns)
            error = raw.standard_error if len(returns) > 1 else None
            scores.append(
                {
                    "game": game,
                    "split": levels.name,
                    "raw": {"mean": raw.mean, "standard_error": error},
                    "episodes": {"return": returns},
                }
            )
    described = {**asdict(protocol), "games": list(protocol.games), "splits": list(protocol.splits)}
    return {"checkpoint": checkpoint, "protocol": described, "scores": scores}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        name: str,
        score: Callable[[str, str], Sequence[float]] = lambda game, split: [5.0, 7.0],
        finished: bool = True,
        curve: Sequence[tuple[int, float, float]] = ((100, 50.0, 0.1), (200, 25.0, 0.3)),
        **settings: Any,
    ) -> Run:
        """`curve` has steps, steps per second and normalised return; `settings` are of a `TrainConfig`."""
        config = from_json(
            {
                "games": GAMES,
                "num_envs": 4,
                "total_steps": 200,
                "evaluation_splits": SPLITS,
                "evaluation_episodes": 2,
                "agent": {"rollout_steps": 20},
                **settings,
            }
        )
        run = RunDirectory(tmp_path / name)
        run.create(config, ["made up"])
        checkpoint = run.checkpoint_at(config.total_steps if finished else config.total_steps // 2)
        checkpoint.write_text("")
        columns = ["time/total_timesteps", "time/sps", "rollout/normalized_mean"]
        with run.progress_file.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, *(f"game/{game}/return" for game in config.games)])
            for steps, speed, normalized in curve:
                writer.writerow([steps, speed, normalized, *(10 * normalized for _ in config.games)])
        if finished:
            protocol = Protocol(
                config.games,
                config.mode,
                config.evaluation_splits,
                config.evaluation_episodes or 1,
                config.evaluation_greedy,
            )
            run.evaluation_file.write_text(json.dumps(evaluation_json(protocol, score, str(checkpoint))))
        return Run(run, config)

    return make
