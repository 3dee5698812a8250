"""Runs that were never trained: a directory with settings, an empty checkpoint, a curve and scores."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation import Episode, GameScore, Protocol, Results, write_results
from evaluation.agent_info import AgentInfo
from evaluation.report.runs import Run
from records.config import TrainConfig, from_json
from records.directory import RunDirectory

GAMES = ("bigfish", "maze")
SPLITS = ("train", "test1", "test2")

MakeRun = Callable[..., Run]


def results(config: TrainConfig, protocol: Protocol, score: Callable[[str, str], Sequence[float]]) -> Results:
    """Results with the returns that `score` gives for a game and a split."""
    length = config.agent.rollout_steps
    assert length is not None
    agent = AgentInfo(
        config.policy_name,
        config.algorithm_name,
        config.total_steps,
        config.policy_name != "feedforward",
        config.policy.reset,
        length if config.policy.bptt_span is None else config.policy.bptt_span,
        length,
        config.levels,
    )
    scores = []
    for levels in protocol.levels:
        for game in protocol.games:
            episodes = [Episode(float(value), 5, levels.start, False) for value in score(game, levels.name)]
            scores.append(GameScore(game, protocol.mode, levels, tuple(episodes)))
    return Results(agent, protocol, tuple(scores))


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
                twist=config.twist,
            )
            write_results(results(config, protocol, score), run.evaluation_file, str(checkpoint))
        return Run(run, config)

    return make
