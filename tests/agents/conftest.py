"""Small policies and environments for the tests of agents, as fixtures that build them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.rollout import Batch
from envs import ProcgenVecEnv
from policies import CORES, ImpalaEncoderConfig, Policy, PolicyConfig
from small_cores import small_core

# Games in which random play ends many episodes within a hundred steps.
GAMES = ("dodgeball", "bigfish", "fruitbot")

SIZES = {"width": 16, "heads": 2, "feedforward": 16, "layers": 1, "hidden": 16}


class TellingFrames(gymnasium.Env[dict[str, np.ndarray], np.int64]):
    """Frames of 8 x 8 whose bright channel says which of three actions pays 1; the others pay nothing.

    The channel changes at every step, and episodes last 5 to 8 steps, so that no action is good for long.
    """

    def __init__(self) -> None:
        image = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        reward = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(rgb=image, reward=reward)
        self.action_space = gymnasium.spaces.Discrete(3)

    def _observe(self, reward: float) -> dict[str, np.ndarray]:
        self._paying = self.np_random.integers(3)
        rgb = np.zeros((8, 8, 3), np.uint8)
        rgb[:, :, self._paying] = 255
        return {"rgb": rgb, "reward": np.array([reward], np.float32)}

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self._steps_left = self.np_random.integers(5, 9)
        return self._observe(0.0), {}

    def step(self, action: np.int64) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        reward = float(action == self._paying)
        self._steps_left -= 1
        return self._observe(reward), reward, bool(self._steps_left == 0), False, {}


def _toy(num_envs: int = 8) -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(TellingFrames())] * num_envs)


def _tiny(core: str = "feedforward", **fields: Any) -> PolicyConfig:
    return PolicyConfig(small_core(core, **SIZES), ImpalaEncoderConfig(hidden=16, channels=(4,)), **fields)


@pytest.fixture
def tiny() -> Callable[..., PolicyConfig]:
    """A small policy: `tiny(core, **fields of PolicyConfig)`."""
    return _tiny


@pytest.fixture(params=list(CORES))
def core(request: pytest.FixtureRequest) -> str:
    """Each registered core."""
    return str(request.param)


@pytest.fixture
def toy() -> Callable[..., DummyVecEnv]:
    """A learnable environment that knows nothing of ProcGen: `toy(num_envs=8)`."""
    return _toy


@pytest.fixture
def procgen() -> Iterator[Callable[..., ProcgenVecEnv]]:
    """Real games, closed after the test: `procgen(games, num_envs=6, seed=0, **more)`."""
    made: list[ProcgenVecEnv] = []

    def make(games: Any = GAMES, num_envs: int = 6, seed: int = 0, **more: Any) -> ProcgenVecEnv:
        made.append(ProcgenVecEnv(games, num_envs, seed=seed, num_threads=0, **more))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture
def random_batch() -> Callable[..., Batch]:
    """Unrolls out of thin air, with ends, and actions that an altogether different policy chose."""

    def make(policy: Policy, steps: int, num_envs: int, seed: int = 0, end_probability: float = 0.2) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        def bright(*shape: int) -> torch.Tensor:
            return torch.randint(256, shape, generator=generator, dtype=torch.uint8)

        dones = torch.rand(steps, num_envs, generator=generator) < end_probability
        state = {
            name: 0.3 * normal(*tensor.shape) if tensor.is_floating_point() else tensor
            for name, tensor in policy.initial_state(num_envs).items()
        }
        return Batch(
            rgb=bright(steps + 1, num_envs, *policy.encoder.image_shape),
            reward_input=normal(steps + 1, num_envs, 1).clamp(-1.0, 1.0),
            episode_start=torch.cat([torch.zeros(1, num_envs, dtype=torch.bool), dones]),
            actions=torch.randint(policy.num_actions, (steps, num_envs), generator=generator),
            log_probs=-2.0 + 0.7 * normal(steps, num_envs),
            values=normal(steps, num_envs),
            rewards=normal(steps, num_envs),
            dones=dones,
            initial_state=state,
            final_state=state,
            logits=normal(steps, num_envs, policy.num_actions),
        )

    return make
