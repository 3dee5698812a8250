"""Play a fixed number of steps in every environment and store them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from agents.acting import Actor
from agents.device import Upload, own_stream
from agents.exchange import Exchange
from agents.rewards import RewardTransform
from agents.rollout import RolloutStore
from common.stages import stage
from policies import State

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


@dataclass(frozen=True)
class Step:
    """What a step of all environments led to.

    Attributes:
        actions: that were taken, (B,).
        rewards: as the games give them, (B,).
        dones: whether an episode ended, (B,).
        infos: of each environment.
        observation: what follows.
    """

    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    infos: Infos
    observation: dict[str, NDArray[Any]]


@dataclass
class StageTimes:
    """Seconds spent in the stages of training since the last reading.

    `environment` is the time spent waiting for environments: with several groups, they also step during `acting`.
    """

    acting: float = 0.0
    environment: float = 0.0
    learning: float = 0.0

    def clear(self) -> None:
        self.acting = self.environment = self.learning = 0.0


def groups_of(env: VecEnv) -> Sequence[VecEnv]:
    """The parts of `env` that can be stepped one by one: its attribute `groups`, or itself alone."""
    # A wrapper shows the attributes of what it wraps, but to step that would pass it by.
    groups = None if isinstance(env, VecEnvWrapper) else getattr(env, "groups", None)
    return [env] if groups is None else groups


def games_of(env: VecEnv) -> tuple[str, ...]:
    """The game of each environment, as far as `env` names it; else "env"."""
    # Asked first where that is possible (Stable-Baselines3 2.6): processes of a SubprocVecEnv die of what they lack.
    if not getattr(env, "has_attr", lambda name: True)("game"):
        return ("env",) * env.num_envs
    try:
        return tuple(str(game) for game in env.get_attr("game"))
    except AttributeError:
        return ("env",) * env.num_envs


class _Group:
    """Environments that step together, with their actor, and what their last step led to."""

    def __init__(self, env: VecEnv, actor: Actor, first: int, device: torch.device) -> None:
        self.env = env
        self.actor = actor
        self.envs = slice(first, first + env.num_envs)
        self.upload = Upload(device)
        self.observation: dict[str, NDArray[Any]] = {}
        self.dones: NDArray[np.bool_] = np.zeros(env.num_envs, dtype=bool)
        self.actions: NDArray[np.int64] = np.zeros(env.num_envs, dtype=np.int64)


class Collector:
    """Steps the environments with actors; one instance lives as long as the run.

    Where the environments come in groups (`groups_of`), one group steps while the actions of the next are chosen.

    Attributes:
        transform: what makes the learner's rewards.
        games: the game that each environment plays now, (B,).
    """

    def __init__(
        self,
        env: VecEnv,
        make_actor: Callable[[int], Actor],
        transform: RewardTransform,
        device: torch.device,
        times: StageTimes | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        """`make_actor` makes an actor for so many environments; `exchange` is used by who calls `collect`."""
        self.transform = transform
        self._exchange = Exchange() if exchange is None else exchange
        self.times = StageTimes() if times is None else times
        self.games = games_of(env)
        self._env = env
        self._device = device
        self._groups: list[_Group] = []
        for group in groups_of(env):
            first = self._groups[-1].envs.stop if self._groups else 0
            self._groups.append(_Group(group, make_actor(group.num_envs), first, device))
        self._rewards = np.zeros(env.num_envs, dtype=np.float32)
        self._games_of_steps: list[tuple[str, ...]] = []

    @property
    def core_state(self) -> State:
        """The policy's state before the next observation, of all environments, batch first."""
        states = [group.actor.state for group in self._groups]
        if len(states) == 1:
            return states[0]
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}

    @core_state.setter
    def core_state(self, state: State) -> None:
        for group in self._groups:
            group.actor.state = {name: tensor[group.envs] for name, tensor in state.items()}

    def reset(self) -> None:
        """All environments start anew: forget the policy's states and the episodes so far."""
        for group in self._groups:
            group.actor.reset()
        self.transform.reset()
        self.games = games_of(self._env)

    def tell(self, tasks: Tensor) -> None:
        """The environments play these tasks (B,) from now on."""
        for group in self._groups:
            group.actor.tell(tasks[group.envs])

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of it."""
        return {
            "core_state": dict(self.core_state),
            "games": list(self.games),
            "rewards": self.transform.state(),
        }

    def load_statistics(self, state: Mapping[str, Any]) -> None:
        """Take up from what `state` returned that which outlives episodes."""
        self.transform.load_state(state["rewards"])

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, in the middle of episodes."""
        self.load_statistics(state)
        self.games = tuple(state["games"])
        self.core_state = {name: tensor.to(self._device) for name, tensor in state["core_state"].items()}

    def collect(
        self, stream: Stream, store: RolloutStore, on_step: Callable[[Step], bool]
    ) -> tuple[Stream, bool]:
        """Fill `store` with a rollout.

        Args:
            stream: where they stand now; not modified.
            store: is overwritten.
            on_step: called after each step of all environments; False abandons the rollout, and
                what groups did that were a step ahead is not seen.

        Returns:
            Where the environments stand afterwards, and whether the rollout is complete.
        """
        with own_stream(self._device):
            return self._collect(stream, store, on_step)

    def _collect(
        self, stream: Stream, store: RolloutStore, on_step: Callable[[Step], bool]
    ) -> tuple[Stream, bool]:
        initial_state = self.core_state
        self._games_of_steps.clear()
        for group in self._groups:
            group.observation = {name: array[group.envs] for name, array in stream.observation.items()}
            group.dones = stream.episode_start[group.envs]
            self._put_observation(group, store, 0)
            self._begin_step(group, store, 0)
        *ahead, last = self._groups
        for t in range(1, store.steps + 1):
            going_on = t < store.steps
            infos: Infos = []
            actions = [group.actions for group in self._groups]
            for group in ahead:
                infos += self._finish_step(group, store, t)
                if going_on:  # this group steps again while those after it finish theirs
                    self._begin_step(group, store, t)
            infos += self._finish_step(last, store, t)
            if not on_step(self._complete_step(store, t - 1, _joined(actions), infos)):
                self._abandon(ahead if going_on else ())
                self._transform_rewards(store)
                return self._stream(), False
            if going_on:
                self._begin_step(last, store, t)
        self._transform_rewards(store)
        store.complete(initial_state, self.core_state)
        return self._stream(), True

    def _begin_step(self, group: _Group, store: RolloutStore, t: int) -> None:
        began = time.perf_counter()
        with stage("acting"):
            store.put_state(t, group.envs, group.actor.state)
            step = group.actor.step(*store.observation(t, group.envs))
            group.actions = step.actions.cpu().numpy()
        self.times.acting += time.perf_counter() - began
        group.env.step_async(group.actions)
        store.put_action(t, group.envs, step.actions, step.log_probs, step.values, step.logits)

    def _finish_step(self, group: _Group, store: RolloutStore, t: int) -> Infos:
        """Wait for the step that leads to observation `t`."""
        began = time.perf_counter()
        with stage("environment"):
            observation, rewards, group.dones, infos = group.env.step_wait()
        assert isinstance(observation, dict)
        group.observation = observation
        self._rewards[group.envs] = rewards
        self._put_observation(group, store, t)
        self.times.environment += time.perf_counter() - began
        return list(infos)

    def _complete_step(self, store: RolloutStore, t: int, actions: NDArray[np.int64], infos: Infos) -> Step:
        """What concerns all environments, after each has made step `t`."""
        dones = _joined([group.dones for group in self._groups])
        store.rewards[t], store.dones[t] = self._rewards, dones
        self._games_of_steps.append(self.games)
        self._follow_games(infos)
        names = self._groups[0].observation
        observation = {name: _joined([group.observation[name] for group in self._groups]) for name in names}
        return Step(actions, self._rewards.copy(), dones, infos, observation)

    def _transform_rewards(self, store: RolloutStore) -> None:
        """Make what the learner sees of the rewards of the steps so far."""
        played = slice(len(self._games_of_steps))
        rewards, dones = store.rewards[played], store.dones[played]
        rewards[:] = self.transform.rollout(rewards, dones, self._games_of_steps, self._exchange)

    def _follow_games(self, infos: Infos) -> None:
        """Say which game an episode was of, and take note of environments that go on with another game."""
        games = list(self.games)
        for env, info in enumerate(infos):
            if "episode" in info:
                info.setdefault("game", games[env])
            games[env] = info.get("next_game", games[env])
        if tuple(games) != self.games:
            self.games = tuple(games)

    def _abandon(self, ahead: Sequence[_Group]) -> None:
        """Wait for the groups that have begun one more step than the last one."""
        for group in ahead:
            observation, _, group.dones, _ = group.env.step_wait()
            assert isinstance(observation, dict)
            group.observation = observation

    def _stream(self) -> Stream:
        """A copy: environments may write into what they have returned."""
        names = self._groups[0].observation
        return Stream(
            {name: np.concatenate([group.observation[name] for group in self._groups]) for name in names},
            np.concatenate([group.dones for group in self._groups]),
        )

    @staticmethod
    def _put_observation(group: _Group, store: RolloutStore, t: int) -> None:
        upload = group.upload
        store.put_observation(
            t,
            group.envs,
            upload("rgb", group.observation["rgb"]),
            upload("reward", group.observation["reward"]),
            upload("dones", group.dones),
        )


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The rows of all groups; no copy where there is one group."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
