"""Training where each environment goes from game to game."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from agents import IMPALA, read_checkpoint
from envs import StreamVecEnv
from helpers import assert_same
from policies import PolicyConfig

GAMES = ("dodgeball", "bigfish", "fruitbot")
NUM_ENVS, STEPS = 2, 20
ROLLOUT = NUM_ENVS * STEPS

Tiny = Callable[..., PolicyConfig]
MakeStream = Callable[..., StreamVecEnv]


@pytest.fixture
def stream() -> Iterator[MakeStream]:
    made: list[StreamVecEnv] = []

    def make(task_duration: str = "1 episode", seed: int = 0) -> StreamVecEnv:
        made.append(StreamVecEnv(GAMES, NUM_ENVS, task_duration, seed=seed))
        return made[-1]

    yield make
    for env in made:
        env.close()


class Played(BaseCallback):
    """Which game each environment played at each step, and what came of it, asked of the environment itself."""

    def __init__(self, env: StreamVecEnv) -> None:
        super().__init__()
        self.env = env
        self.returns: dict[str, list[float]] = {}
        self.steps: dict[str, int] = {}

    def _on_training_start(self) -> None:
        self.before = self.env.current_games

    def _on_step(self) -> bool:
        for game, info in zip(self.before, self.locals["infos"], strict=True):
            self.steps[game] = self.steps.get(game, 0) + 1
            if "episode" in info:
                self.returns.setdefault(game, []).append(info["episode"]["r"])
        self.before = self.env.current_games
        return True


@pytest.mark.parametrize("task_duration", ["1 episode", "35 steps"])
def test_episodes_and_reward_scales_belong_to_the_game_that_was_played(
    task_duration: str, tiny: Tiny, stream: MakeStream
) -> None:
    env = stream(task_duration)
    agent = IMPALA(tiny(), env, seed=0, rollout_steps=STEPS, reward_transform="normalize")
    played = Played(env)
    agent.learn(15 * ROLLOUT, played)
    assert len(played.steps) == 3
    assert agent.episode_returns == {
        game: pytest.approx(np.mean(returns[-100:])) for game, returns in played.returns.items()
    }
    statistics = agent.actors.collector.transform.state()["statistics"]
    counts = {game: values["count"] for game, values in statistics.items()}
    assert counts == {game: pytest.approx(steps, abs=0.01) for game, steps in played.steps.items()}


@pytest.mark.parametrize("lag", [0, 1])
def test_a_run_in_streams_of_games_resumes_exactly(
    lag: int, tiny: Tiny, stream: MakeStream, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"rollout_steps": STEPS, "reward_transform": "normalize", "rollout_lag": lag}
    policy = tiny("srwm", reset="never")
    whole = IMPALA(policy, stream("30 steps"), seed=0, learning_rate_decay=False, **settings)
    whole.learn(3 * ROLLOUT)
    whole.save(tmp_path / "half")
    whole.learn(3 * ROLLOUT, reset_num_timesteps=False)
    whole.save(tmp_path / "whole")
    resumed = IMPALA.load(tmp_path / "half", stream("30 steps", seed=9), force_reset=False)
    resumed.learn(3 * ROLLOUT, reset_num_timesteps=False)
    resumed.save(tmp_path / "resumed")
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[name], tensor), name
    assert_same(read_checkpoint(tmp_path / "resumed"), read_checkpoint(tmp_path / "whole"))
