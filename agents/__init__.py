"""Learning algorithms: what turns rollouts into gradients."""

from __future__ import annotations

from common import silence_gym

silence_gym()

from typing import Any

import torch
from stable_baselines3.common.type_aliases import GymEnv

from agents.acting import ActionStep, Actor
from agents.agent import Agent
from agents.appo import APPO, AppoConfig
from agents.checkpoint import CheckpointError, PathOrFile, read_checkpoint, write_checkpoint
from agents.config import AgentConfig
from agents.impala import IMPALA, ImpalaConfig
from agents.ppo import PPO, PPOConfig
from common.errors import shown

ALGORITHMS: dict[str, type[Agent]] = {algorithm.algorithm: algorithm for algorithm in (IMPALA, APPO, PPO)}


def load(
    path: PathOrFile,
    env: GymEnv | None = None,
    device: torch.device | str = "auto",
    force_reset: bool = True,
    **kwargs: Any,
) -> Agent:
    """The agent in a checkpoint, of whichever algorithm it is; arguments as for `Agent.load`.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or does not fit `env`.
    """
    content = read_checkpoint(path)
    name = content.get("algorithm")
    algorithm = ALGORITHMS.get(name) if isinstance(name, str) else None
    if algorithm is None:
        raise CheckpointError(f"{path} holds training with the unknown algorithm {shown(name)}")
    return algorithm.from_content(content, str(path), env, device, force_reset, **kwargs)


__all__ = [
    "ALGORITHMS",
    "APPO",
    "IMPALA",
    "PPO",
    "ActionStep",
    "Actor",
    "Agent",
    "AgentConfig",
    "AppoConfig",
    "CheckpointError",
    "ImpalaConfig",
    "PPOConfig",
    "load",
    "read_checkpoint",
    "write_checkpoint",
]
