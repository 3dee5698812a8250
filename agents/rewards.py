"""Reward transforms: what the learner sees instead of the raw reward.

A transform is made per run by `make_reward_transform(name, ...)` and gets each rollout as a whole, so that processes
which share a run have to agree on running statistics only once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.running_mean_std import RunningMeanStd

from agents.exchange import Exchange
from common.errors import UserError, unknown_name

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Moments = NDArray[np.float64]
"""Counts, means and variances, (..., 3)."""
Games = Sequence[str]
"""The game of each environment; another object where one has changed."""


class RewardTransform(Protocol):
    """Maps one step's raw rewards to the learner's rewards."""

    def __call__(self, rewards: Floats, dones: Bools, games: Games) -> Floats:
        """The learner's rewards of one step, (B,) float32; may update running statistics.

        Args:
            rewards: as the games give them, (B,).
            dones: whether the step ended an episode, (B,).
            games: the game in which each reward was earned, (B,).
        """

    def rollout(self, rewards: Floats, dones: Bools, games: Sequence[Games], exchange: Exchange) -> Floats:
        """The learner's rewards of T steps one after the other, (T, B); those of all processes of `exchange` count.

        Args:
            rewards: (T, B); `dones` alike.
            games: of each step.
            exchange: a collective call is made with it.
        """

    def reset(self) -> None:
        """All environments have been started anew: forget the episodes so far, not the statistics."""

    def state(self) -> dict[str, Any]:
        """Running statistics as plain data and arrays, for a checkpoint."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up the statistics that `state` returned."""


class RawReward:
    """The reward as the game gives it."""

    def __call__(self, rewards: Floats, dones: Bools, games: Games) -> Floats:
        return rewards.astype(np.float32)

    def rollout(self, rewards: Floats, dones: Bools, games: Sequence[Games], exchange: Exchange) -> Floats:
        # What is done to one reward does not depend on others.
        return np.stack([self(*step) for step in zip(rewards, dones, games, strict=True)])

    def reset(self) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class ClippedReward(RawReward):
    """Rewards clipped to [-1, 1], as IMPALA publishes."""

    def __call__(self, rewards: Floats, dones: Bools, games: Games) -> Floats:
        return np.clip(rewards, -1.0, 1.0).astype(np.float32)


class NormalizedReward:
    """Rewards divided by the running standard deviation of the discounted return, one statistic per game.

    With one game this is what OpenAI's PPO does on ProcGen (`VecNormalize` without observations); with several,
    each game is scaled by its own returns, so that none drowns the others. Statistics of games that are not played
    any more are kept: they may come back.
    """

    clip = 10.0
    epsilon = 1e-8

    def __init__(self, num_envs: int, discount: float) -> None:
        """`discount` is per step."""
        self._discount = discount
        self._returns = np.zeros(num_envs, dtype=np.float64)
        self._statistics: dict[str, RunningMeanStd] = {}
        self._games: Games = ()
        self._envs: dict[str, NDArray[np.intp]] = {}

    def __call__(self, rewards: Floats, dones: Bools, games: Games) -> Floats:
        (found,) = self.rollout(rewards[None], dones[None], [games], Exchange())
        return np.asarray(found)

    def rollout(self, rewards: Floats, dones: Bools, games: Sequence[Games], exchange: Exchange) -> Floats:
        envs = [self._envs_of(present) for present in games]
        names = dict.fromkeys(game for present in envs for game in present)
        moments = {game: np.zeros((len(rewards), 3)) for game in names}
        for t, present in enumerate(envs):
            self._returns = self._returns * self._discount + rewards[t]
            for game, own in present.items():
                returns = self._returns[own]
                moments[game][t] = len(own), returns.mean(), returns.var()
            self._returns[dones[t]] = 0.0
        deviations = self._updated(exchange.gather(moments), len(rewards))
        scaled = np.empty(rewards.shape, dtype=np.float32)
        for t, present in enumerate(envs):
            for game, own in present.items():
                scaled[t, own] = rewards[t, own] / deviations[game][t]
        return np.clip(scaled, -self.clip, self.clip)

    def _updated(self, parts: Sequence[dict[str, Moments]], steps: int) -> dict[str, NDArray[np.float64]]:
        """Update the statistics with the moments of all processes' returns; each game's deviation after each step."""
        deviations = {}
        for game in dict.fromkeys(game for part in parts for game in part):
            statistics = self._statistics.setdefault(game, RunningMeanStd(shape=()))
            found = np.ones(steps)
            for t in range(steps):
                count, mean, var = _combined([part[game][t] for part in parts if game in part])
                if count:
                    statistics.update_from_moments(mean, var, count)
                found[t] = np.sqrt(statistics.var + self.epsilon)
            deviations[game] = found
        return deviations

    def _envs_of(self, games: Games) -> dict[str, NDArray[np.intp]]:
        if games is not self._games:  # rarely: only a stream of games ever changes them
            names = np.asarray(games)
            self._games, self._envs = (
                games,
                {game: np.flatnonzero(names == game) for game in dict.fromkeys(games)},
            )
        return self._envs

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
        if len(state["returns"]) == len(self._returns):  # else these are other environments
            self._returns[:] = state["returns"]
        for game, values in state["statistics"].items():
            statistics = self._statistics[game] = RunningMeanStd(shape=())
            statistics.mean = np.array(values["mean"], dtype=np.float64)
            statistics.var = np.array(values["var"], dtype=np.float64)
            statistics.count = values["count"]


def _combined(parts: Sequence[Moments]) -> Moments:
    """Count, mean and variance of what `parts` are the counts, means and variances of."""
    counted = np.array([part for part in parts if part[0]])
    if len(counted) < 2:
        return counted[0] if len(counted) else np.zeros(3)
    counts, means, variances = counted.T
    mean = np.average(means, weights=counts)
    return np.array([counts.sum(), mean, np.average(variances + (means - mean) ** 2, weights=counts)])


REWARD_TRANSFORMS: dict[str, Callable[[int, float], RewardTransform]] = {
    "clip": lambda num_envs, discount: ClippedReward(),
    "normalize": NormalizedReward,
    "none": lambda num_envs, discount: RawReward(),
}
"""Every transform by name, made for a number of environments and a discount."""


def make_reward_transform(name: str, num_envs: int, discount: float) -> RewardTransform:
    """The transform called `name`.

    Raises:
        UserError: there is no transform of that name.
    """
    if name not in REWARD_TRANSFORMS:
        raise UserError(unknown_name("reward transform", name, REWARD_TRANSFORMS))
    return REWARD_TRANSFORMS[name](num_envs, discount)
