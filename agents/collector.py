"""Play a fixed number of steps in every environment and store them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents.acting import Actor
from agents.rewards import RewardTransform
from agents.rollout import RolloutStore

Infos = list[dict[str, Any]]


@dataclass
class Stream:
    """Where the environments stand: what the policy sees next.

    Attributes:
        observation: "rgb" and "reward", batch first.
        episode_start: whether it is the first observation of an episode, (B,) bool.
    """

    observation: dict[str, NDArray[Any]]
    episode_start: NDArray[np.bool_]


@dataclass
class StageTimes:
    """Seconds spent in the stages of training since the last reading."""

    acting: float = 0.0
    environment: float = 0.0
    learning: float = 0.0

    def clear(self) -> None:
        self.acting = self.environment = self.learning = 0.0


@dataclass
class Collector:
    """Steps the environments with an actor; one instance lives as long as the run."""

    env: VecEnv
    actor: Actor
    transform: RewardTransform
    times: StageTimes = field(default_factory=StageTimes)

    def collect(
        self, stream: Stream, store: RolloutStore, on_step: Callable[[Infos], bool]
    ) -> tuple[Stream, bool]:
        """Fill `store` with a rollout.

        Args:
            stream: where they stand now; not modified.
            store: is overwritten.
            on_step: called with the infos after each step of all environments; False abandons the rollout.

        Returns:
            Where the environments stand afterwards, and whether the rollout is complete.
        """
        initial_state = self.actor.state
        self._put_observation(store, 0, stream)
        for t in range(store.steps):
            began = time.perf_counter()
            step = self.actor.step(*store.observation(t))
            actions = step.actions.cpu().numpy()
            acted = time.perf_counter()
            self.env.step_async(actions)
            store.put_action(t, step.actions, step.log_probs, step.values)
            observation, rewards, dones, infos = self.env.step_wait()
            assert isinstance(observation, dict)
            stream = Stream(observation, dones)
            learner_rewards = self.transform(rewards, dones)
            store.put_outcome(t, torch.from_numpy(learner_rewards), torch.from_numpy(dones))
            self._put_observation(store, t + 1, stream)
            self.times.acting += acted - began
            self.times.environment += time.perf_counter() - acted
            if not on_step(infos):
                return stream, False
        store.put_states(initial_state, self.actor.state)
        return stream, True

    @staticmethod
    def _put_observation(store: RolloutStore, t: int, stream: Stream) -> None:
        store.put_observation(
            t,
            torch.from_numpy(stream.observation["rgb"]),
            torch.from_numpy(stream.observation["reward"]),
            torch.from_numpy(stream.episode_start),
        )
