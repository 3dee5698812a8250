"""Play a fixed number of steps in every environment and store them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from agents.acting import Actor
from agents.device_streams import Upload, own_stream
from agents.rewards import RewardTransform
from agents.rollout import RolloutStore
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


class _Lane:
    """A group of environments with its actor, and what its last step led to."""

    def __init__(self, env: VecEnv, actor: Actor, first_slot: int, device: torch.device) -> None:
        self.env = env
        self.actor = actor
        self.slots = slice(first_slot, first_slot + env.num_envs)
        self.upload = Upload(device)
        self.observation: dict[str, NDArray[Any]] = {}
        self.dones: NDArray[np.bool_] = np.zeros(env.num_envs, dtype=bool)


class Collector:
    """Steps the environments with actors; one instance lives as long as the run.

    Where the environments come in groups (`groups_of`), one group steps while the actions of the next are chosen.
    """

    def __init__(
        self,
        env: VecEnv,
        make_actor: Callable[[int], Actor],
        transform: RewardTransform,
        device: torch.device,
        times: StageTimes | None = None,
    ) -> None:
        """`make_actor` makes an actor for so many environments."""
        self.transform = transform
        self.times = StageTimes() if times is None else times
        self._device = device
        self._lanes: list[_Lane] = []
        for group in groups_of(env):
            first_slot = self._lanes[-1].slots.stop if self._lanes else 0
            self._lanes.append(_Lane(group, make_actor(group.num_envs), first_slot, device))
        self._rewards = np.zeros(env.num_envs, dtype=np.float32)

    @property
    def state(self) -> State:
        """The policy's state before the next observation, of all environments, batch first."""
        states = [lane.actor.state for lane in self._lanes]
        if len(states) == 1:
            return states[0]
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}

    @state.setter
    def state(self, state: State) -> None:
        for lane in self._lanes:
            lane.actor.state = {name: tensor[lane.slots] for name, tensor in state.items()}

    def reset(self) -> None:
        """All environments start anew: forget the policy's states and the episodes so far."""
        for lane in self._lanes:
            lane.actor.reset()
        self.transform.reset()

    def collect(
        self, stream: Stream, store: RolloutStore, on_step: Callable[[Infos], bool]
    ) -> tuple[Stream, bool]:
        """Fill `store` with a rollout.

        Args:
            stream: where they stand now; not modified.
            store: is overwritten.
            on_step: called with the infos after each step of all environments; False abandons the rollout, and
                what groups did that were a step ahead is not seen.

        Returns:
            Where the environments stand afterwards, and whether the rollout is complete.
        """
        with own_stream(self._device):
            return self._collect(stream, store, on_step)

    def _collect(
        self, stream: Stream, store: RolloutStore, on_step: Callable[[Infos], bool]
    ) -> tuple[Stream, bool]:
        initial_state = self.state
        last_lane = self._lanes[-1]
        for lane in self._lanes:
            lane.observation = {name: array[lane.slots] for name, array in stream.observation.items()}
            lane.dones = stream.episode_start[lane.slots]
            self._put_observation(lane, store, 0)
            self._begin_step(lane, store, 0)
        for t in range(1, store.steps + 1):
            infos: Infos = []
            for lane in self._lanes:
                infos += self._finish_step(lane, store, t)
                if lane is last_lane and not self._complete_step(store, t - 1, infos, on_step):
                    self._abandon(t < store.steps)
                    return self._stream(), False
                if t < store.steps:
                    self._begin_step(lane, store, t)
        store.put_states(initial_state, self.state)
        return self._stream(), True

    def _begin_step(self, lane: _Lane, store: RolloutStore, t: int) -> None:
        began = time.perf_counter()
        step = lane.actor.step(*store.observation(t, lane.slots))
        actions = step.actions.cpu().numpy()
        self.times.acting += time.perf_counter() - began
        lane.env.step_async(actions)
        store.put_action(t, lane.slots, step.actions, step.log_probs, step.values)

    def _finish_step(self, lane: _Lane, store: RolloutStore, t: int) -> Infos:
        """Wait for the step that leads to observation `t`."""
        began = time.perf_counter()
        observation, rewards, lane.dones, infos = lane.env.step_wait()
        assert isinstance(observation, dict)
        lane.observation = observation
        self._rewards[lane.slots] = rewards
        self._put_observation(lane, store, t)
        self.times.environment += time.perf_counter() - began
        return list(infos)

    def _complete_step(
        self, store: RolloutStore, t: int, infos: Infos, on_step: Callable[[Infos], bool]
    ) -> bool:
        """What concerns all environments, after each has made step `t`."""
        dones = np.concatenate([lane.dones for lane in self._lanes])
        learner_rewards = self.transform(self._rewards, dones)
        store.put_outcome(t, torch.from_numpy(learner_rewards), torch.from_numpy(dones))
        return on_step(infos)

    def _abandon(self, ahead: bool) -> None:
        """Wait for the groups that have begun one more step than the last one."""
        for lane in self._lanes[:-1] if ahead else ():
            observation, _, lane.dones, _ = lane.env.step_wait()
            assert isinstance(observation, dict)
            lane.observation = observation

    def _stream(self) -> Stream:
        names = self._lanes[0].observation
        return Stream(
            {name: np.concatenate([lane.observation[name] for lane in self._lanes]) for name in names},
            np.concatenate([lane.dones for lane in self._lanes]),
        )

    @staticmethod
    def _put_observation(lane: _Lane, store: RolloutStore, t: int) -> None:
        upload = lane.upload
        store.put_observation(
            t,
            lane.slots,
            upload("rgb", lane.observation["rgb"]),
            upload("reward", lane.observation["reward"]),
            upload("dones", lane.dones),
        )
