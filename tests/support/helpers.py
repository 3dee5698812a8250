"""What tests of several directories need: ``from helpers import assert_same`` (pyproject.toml says where it lies)."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.compare import differences
from records.config import TrainConfig, from_json


def same(one: Any, other: Any) -> bool:
    """Whether nested dictionaries, lists, tensors, arrays and values are the same bit for bit."""
    return not differences(one, other)


def assert_same(one: Any, other: Any) -> None:
    """As `same`, and names the first places that differ."""
    assert differences(one, other)[:10] == []


def tiny_run(**changes: Any) -> TrainConfig:
    """Six rollouts of 20 steps in 4 environments of two games, with a small SRWM, no evaluation and no videos."""
    return from_json(
        {
            "games": ["bigfish", "maze"],
            "num_envs": 4,
            "total_steps": 480,
            "core": {"width": 8, "heads": 2, "feedforward": 8, "layers": 1},
            "encoder": {"channels": [4], "hidden": 8},
            "agent": {"rollout_steps": 20},
            "checkpoint_every_steps": 160,
            "log_every_steps": 80,
            "env_threads": 0,
            "device": "cpu",
            "evaluation_episodes": None,
            "videos": False,
            **changes,
        }
    )


def play(env: VecEnv, actions: np.ndarray) -> list[dict[str, Any]]:
    """What each step of `env` with `actions` (T, B) gave, without the wall-clock time in the infos of episodes."""
    steps = []
    for action in actions:
        observation, rewards, dones, infos = env.step(action)
        assert isinstance(observation, dict)
        facts = [
            {**info, "episode": {**info["episode"], "t": None}} if "episode" in info else info
            for info in infos
        ]
        steps.append({**observation, "rewards": rewards, "dones": dones, "infos": facts})
    return steps
