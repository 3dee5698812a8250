"""The actors' side of training: environments, the weights that act in them, rollouts, statistics of their episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from operator import itemgetter
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv

from agents.acting import actor_class
from agents.checkpoint import CheckpointError
from agents.collector import Collector, Infos, StageTimes, Stream
from agents.config import AgentConfig
from agents.episodes import EpisodeLog
from agents.exchange import Exchange
from agents.numerics import reset_where_not_finite
from agents.rewards import make_reward_transform
from agents.rollout import Batch, RolloutStore
from policies import Policy

SPREAD_ENVS, SPREAD_STEPS = 4, 24
"""Of a rollout, the environments and first steps that are run through again, one by one, for an entry of the log."""


class ActorSide:
    """Everything between the environments and the learner.

    Attributes:
        env: the environments.
        behaviour: the policy that acts: the learner's own, or with `rollout_lag` a copy that is behind.
        exchange: with the processes that share the run; `acting_exchange` is for whatever plays.
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
        exchange: Exchange | None = None,
    ) -> None:
        """`generator` draws the actions, on `device`."""
        self.env = env
        self.exchange = Exchange() if exchange is None else exchange
        self.acting_exchange = self.exchange.for_acting()
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
            self.acting_exchange,
        )
        self.episodes = EpisodeLog(self.collector.games)
        self._ended: list[tuple[int, str, dict[str, Any]]] = []  # step of the rollout, game, info
        self._steps = 0
        image_shape = policy.encoder.image_shape
        self.stores = [
            RolloutStore(
                config.rollout_steps,
                env.num_envs,
                image_shape,
                policy.num_actions,
                device,
                config.horizon,
            )
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
        """Take note of the episodes that ended in a step; `end_rollout` adds them to the log."""
        self._steps += 1
        for info in infos:
            if "episode" in info:
                episode = {name: info["episode"][name] for name in ("r", "l")}
                known = {"episode": episode, "normalized_return": info.get("normalized_return")}
                self._ended.append((self._steps, info["game"], known))

    def end_rollout(self) -> None:
        """Add the episodes of a rollout to the log, those of all processes in the order in which they ended."""
        ended = [episode for part in self.exchange.gather(self._ended) for episode in part]
        for _, game, info in sorted(ended, key=itemgetter(0)):
            self.episodes.add(game, info)
        self._ended, self._steps = [], 0

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
        if not found:
            return {}
        values = torch.stack([value.double() for value in found.values()])
        (means,) = self.exchange.mean(values.unsqueeze(0), torch.ones_like(values[:1]))
        return dict(zip(found, means.tolist(), strict=True))

    def rate_spreads(self, rollout: Batch) -> dict[str, float]:
        """How much the core's rates change over a rollout's first steps, in its first environments."""
        few = rollout.select(torch.arange(min(SPREAD_ENVS, rollout.rgb.shape[1]), device=self._device))
        rgb, reward, start = (x[:SPREAD_STEPS] for x in (few.rgb, few.reward_input, few.episode_start))
        found = self._policy.rate_spreads(rgb, reward, few.initial_state, start)
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
