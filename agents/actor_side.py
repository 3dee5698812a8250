"""The actors' side of training: environments, the weights that act in them, rollouts, statistics of their episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv

from agents.acting import actor_class
from agents.checkpoint import CheckpointError
from agents.collector import Collector, Infos, StageTimes, Stream
from agents.config import AgentConfig
from agents.episodes import EpisodeLog
from agents.numerics import reset_where_not_finite
from agents.rewards import make_reward_transform
from agents.rollout import RolloutStore
from policies import Policy


class ActorSide:
    """Everything between the environments and the learner.

    Attributes:
        env: the environments.
        behaviour: the policy that acts: the learner's own, or with `rollout_lag` a copy that is behind.
        collector: steps the environments.
        episodes: returns of the latest episodes.
        stores: memory for as many rollouts as are under way at once.
        times: seconds spent in the stages of training.
    """

    def __init__(
        self,
        env: VecEnv,
        policy: Policy,
        config: AgentConfig,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        """`generator` draws the actions, on `device`."""
        self.env = env
        self.behaviour = deepcopy(policy).requires_grad_(False) if config.lag else policy
        self.times = StageTimes()
        self._policy, self._lag, self._device = policy, config.lag, device
        make_actor = actor_class(device)
        self.collector = Collector(
            env,
            lambda num_envs: make_actor(self.behaviour, num_envs, device, generator),
            make_reward_transform(config.reward_transform, env.num_envs, config.discount),
            device,
            self.times,
        )
        self.episodes = EpisodeLog(self.collector.games)
        image_shape = policy.encoder.image_shape
        self.stores = [
            RolloutStore(config.rollout_steps, env.num_envs, image_shape, policy.num_actions, device)
            for _ in range(1 + config.lag)
        ]

    def follow_learner(self) -> None:
        """Act with the learner's present weights."""
        if self._lag:
            self.behaviour.load_state_dict(self._policy.state_dict())

    def tell(self, tasks: int | Sequence[int]) -> None:
        """Tell the policy, where it listens, which task all environments play, or each of them."""
        self.collector.tell(torch.as_tensor(tasks, dtype=torch.int64).expand(self.env.num_envs))

    def count_episodes(self, infos: Infos) -> None:
        """Take note of the episodes that ended in a step."""
        for info in infos:
            if "episode" in info:
                self.episodes.add(info["game"], info)

    def reset_broken_states(self) -> None:
        """Environments in which the policy's state is not finite begin with an empty one."""
        fresh = self._policy.restarted(self.collector.core_state)
        self.collector.core_state = reset_where_not_finite(self.collector.core_state, fresh)

    def core_metrics(self, stream: Stream) -> dict[str, float]:
        """What the core says of itself at the latest observation."""
        found = self._policy.diagnostics(
            torch.as_tensor(stream.observation["rgb"], device=self._device).unsqueeze(0),
            torch.as_tensor(stream.observation["reward"], device=self._device).unsqueeze(0),
            self.collector.core_state,
            torch.as_tensor(stream.episode_start, device=self._device).unsqueeze(0),
        )
        return {tag: float(value) for tag, value in found.items()}

    # State

    def statistics(self) -> dict[str, Any]:
        """What a checkpoint must hold that outlives episodes."""
        return {"episodes": self.episodes.state(), "collector": self.collector.state()}

    def state(self, stream: Stream) -> dict[str, Any]:
        """What a checkpoint must hold to go on in the middle of episodes, at `stream`."""
        get_env_state = getattr(self.env, "get_state", None)
        weights = self.behaviour.state_dict() if self._lag else {}
        return {
            **self.statistics(),
            "observation": dict(stream.observation),
            "episode_start": stream.episode_start,
            "behaviour": {name: tensor.clone() for name, tensor in weights.items()},
            "env": get_env_state() if get_env_state is not None else None,
        }

    def load_statistics(self, state: Mapping[str, Any], same_games: bool = False) -> None:
        """Take up from `state` what outlives episodes."""
        self.collector.load_statistics(state["collector"])
        self.episodes.load_state(state["episodes"], same_games)

    def load_state(self, state: Mapping[str, Any], num_envs: int) -> Stream:
        """Put everything where `state` of `num_envs` environments was; returns where they stand.

        Raises:
            CheckpointError: these environments cannot be put there.
        """
        if self.env.num_envs != num_envs:
            raise CheckpointError(
                f"the checkpoint continues {num_envs} environments, not {self.env.num_envs}: "
                "use as many, or force_reset=True"
            )
        if state.get("env") is None:
            raise CheckpointError("the checkpoint holds no environment states: load it with force_reset=True")
        self.env.set_state(state["env"])  # type: ignore[attr-defined]  # reached through any VecEnvWrapper
        self.load_statistics(state, same_games=True)
        self.collector.load_state(state["collector"])
        if self._lag:
            self.behaviour.load_state_dict(state["behaviour"])
        return Stream(dict(state["observation"]), state["episode_start"])
