"""Reward transforms: what the learner sees instead of the raw reward.

A transform is made per run by `make_reward_transform(name, ...)` and called once per environment step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.running_mean_std import RunningMeanStd

from common.errors import UserError, unknown_name

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class RewardTransform(Protocol):
    """Maps one step's raw rewards (B,) and episode ends (B,) to the learner's rewards (B,)."""

    def __call__(self, rewards: Floats, dones: Bools) -> Floats:
        """The learner's rewards, (B,) float32; may update running statistics."""

    def reset(self) -> None:
        """All environments have been started anew: forget the episodes so far, not the statistics."""

    def state(self) -> dict[str, Any]:
        """Running statistics as plain data and arrays, for a checkpoint."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up the statistics that `state` returned, of all games that are played here."""


class RawReward:
    """The reward as the game gives it."""

    def __call__(self, rewards: Floats, dones: Bools) -> Floats:
        return rewards.astype(np.float32)

    def reset(self) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class ClippedReward(RawReward):
    """Rewards clipped to [-1, 1], as IMPALA publishes."""

    def __call__(self, rewards: Floats, dones: Bools) -> Floats:
        return np.clip(rewards, -1.0, 1.0).astype(np.float32)


class NormalizedReward:
    """Rewards divided by the running standard deviation of the discounted return, one statistic per game.

    With one game this is what OpenAI's PPO does on ProcGen (`VecNormalize` without observations); with several,
    each game is scaled by its own returns, so that none drowns the others.
    """

    clip = 10.0
    epsilon = 1e-8

    def __init__(self, games: Sequence[str], discount: float) -> None:
        """`games` names each slot's game, (B,); `discount` per step."""
        self._discount = discount
        self._slots = {game: np.flatnonzero(np.asarray(games) == game) for game in dict.fromkeys(games)}
        self._statistics = {game: RunningMeanStd(shape=()) for game in self._slots}
        self._returns = np.zeros(len(games), dtype=np.float64)

    def __call__(self, rewards: Floats, dones: Bools) -> Floats:
        self._returns = self._returns * self._discount + rewards
        scaled = np.empty(len(rewards), dtype=np.float32)
        for game, slots in self._slots.items():
            statistics = self._statistics[game]
            statistics.update(self._returns[slots])
            scaled[slots] = rewards[slots] / np.sqrt(statistics.var + self.epsilon)
        self._returns[dones] = 0.0
        return np.clip(scaled, -self.clip, self.clip)

    def reset(self) -> None:
        self._returns[:] = 0.0

    def state(self) -> dict[str, Any]:
        return {
            "returns": self._returns.copy(),
            "statistics": {
                game: {"mean": float(s.mean), "var": float(s.var), "count": float(s.count)}
                for game, s in self._statistics.items()
            },
        }

    def load_state(self, state: dict[str, Any]) -> None:
        if len(state["returns"]) == len(self._returns):  # else the slots are not those of the state
            self._returns[:] = state["returns"]
        for game, values in state["statistics"].items():
            if game not in self._statistics:
                continue
            statistics = self._statistics[game]
            statistics.mean = np.array(values["mean"], dtype=np.float64)
            statistics.var = np.array(values["var"], dtype=np.float64)
            statistics.count = values["count"]


REWARD_TRANSFORMS: dict[str, Callable[[Sequence[str], float], RewardTransform]] = {
    "clip": lambda games, discount: ClippedReward(),
    "normalize": NormalizedReward,
    "none": lambda games, discount: RawReward(),
}


def reward_transform_problems(name: str) -> list[str]:
    """One line if there is no transform of that name."""
    return [] if name in REWARD_TRANSFORMS else [unknown_name("reward transform", name, REWARD_TRANSFORMS)]


def make_reward_transform(name: str, games: Sequence[str], discount: float) -> RewardTransform:
    """The transform called `name` for slots that play `games` (B,).

    Raises:
        UserError: there is no transform of that name.
    """
    for problem in reward_transform_problems(name):
        raise UserError(problem)
    return REWARD_TRANSFORMS[name](games, discount)
