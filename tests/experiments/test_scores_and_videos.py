from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import av
import pytest
from rich.console import Console

from agents import IMPALA
from envs import ProcgenVecEnv
from evaluation import Protocol, evaluate
from experiments import scores_and_videos
from policies import ImpalaEncoderConfig, PolicyConfig, core_config
from records.config import TrainConfig
from records.directory import RunDirectory

GAMES = ("fruitbot", "chaser")  # whose episodes are short, even those of an agent that knows nothing
CONFIG = TrainConfig(
    games=GAMES,
    num_envs=4,
    evaluation_episodes=3,
    evaluation_splits=("train", "test2"),
    evaluation_greedy=False,
)


@pytest.fixture(scope="module")
def agent() -> IMPALA:
    env = ProcgenVecEnv(GAMES, 4, num_threads=0)
    policy = PolicyConfig(
        core_config("srwm", width=8, heads=2, feedforward=8, layers=1),
        ImpalaEncoderConfig(hidden=8, channels=(4,)),
    )
    agent = IMPALA(policy, env, seed=0, device="cpu")
    env.close()
    return agent


def end(agent: IMPALA, config: TrainConfig, path: Path) -> tuple[RunDirectory, str]:
    run = RunDirectory(path)
    run.create(config, ["train"])
    screen = io.StringIO()
    scores_and_videos.evaluate_and_record(
        agent, config, run, Path("some.ckpt"), Console(file=screen, width=100)
    )
    return run, screen.getvalue()


def test_scores_are_those_of_the_configured_protocol(agent: IMPALA, tmp_path: Path) -> None:
    run, shown = end(agent, replace(CONFIG, videos=False), tmp_path / "run")
    expected = evaluate(agent, Protocol(GAMES, splits=("train", "test2"), episodes=3, greedy=False))
    written = json.loads(run.evaluation_file.read_text())
    assert written["scores"] == expected.to_json()["scores"]
    assert "sampled actions; 3 episodes" in shown
    assert "levels 0-199" in shown
    assert "levels 1200-1399" in shown
    assert not run.videos.exists()


def test_each_game_gets_a_video(agent: IMPALA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_and_videos, "VIDEO_SECONDS", 12 / 15)
    run, _ = end(agent, replace(CONFIG, evaluation_episodes=None), tmp_path / "run")
    assert not run.evaluation_file.exists()
    assert sorted(file.name for file in run.videos.iterdir()) == ["chaser.mp4", "fruitbot.mp4"]
    for file in run.videos.iterdir():
        with av.open(str(file)) as container:
            assert len(list(container.decode(video=0))) == 12
