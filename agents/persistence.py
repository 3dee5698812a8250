"""Saving agents and loading them: what a checkpoint holds, and how training goes on from it."""

from __future__ import annotations

import io
import math
import os
import pathlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv
from torch.overrides import TorchFunctionMode

from agents.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from agents.collector import Collector, Stream
from agents.config import AgentConfig
from agents.episodes import EpisodeLog, full_window_score
from agents.randomness import RandomStreams
from agents.safety import Snapshot
from agents.spaces import image_and_actions, spaces_of
from common.errors import UserError
from policies import Policy, PolicyConfig, from_json, to_json

SelfAgent = TypeVar("SelfAgent", bound="Persistent")


class Persistent(BaseAlgorithm):
    """The half of `agents.base.Agent` that writes and reads checkpoints.

    A checkpoint written by `save` is always the state at a rollout's start, even if asked for in the middle of one,
    so that training that continues from it repeats what would have happened.
    """

    algorithm: ClassVar[str]
    config_class: ClassVar[type[AgentConfig]]

    policy: Policy  # type: ignore[assignment]  # ours is not a BasePolicy: its forward takes sequences and a state
    env: VecEnv | None
    config: AgentConfig
    policy_config: PolicyConfig
    optimizer: torch.optim.Optimizer
    experiment: dict[str, Any]
    _boundary: dict[str, Any] | None
    _skipped: int
    _behaviour: Policy
    _random: RandomStreams
    _collector: Collector
    _episodes: EpisodeLog

    _before_update: Snapshot | None

    @property
    @abstractmethod
    def _stream(self) -> Stream:
        """Where the environments stand."""

    @_stream.setter
    @abstractmethod
    def _stream(self, stream: Stream) -> None: ...

    def _mark_boundary(self) -> None:
        self._boundary = self._run_state()

    @property
    def checkpoint_step(self) -> int:
        """The environment step whose state `save` would write now: that of a rollout's start."""
        step: int = self.num_timesteps if self._boundary is None else self._boundary["num_timesteps"]
        return step

    @property
    def movement(self) -> tuple[int, int]:
        """Environment steps and updates made: changes as long as training moves."""
        return self.num_timesteps, self._n_updates

    @property
    def training_score(self) -> float | None:
        """Mean over games of the normalised returns of their latest episodes, at the state that `save` would write.

        None where a game has not ended a whole window of episodes yet, or has no normalised return.
        """
        episodes = (self._boundary or self._statistics()).get("episodes", {})
        return full_window_score(episodes)

    def _run_state(self) -> dict[str, Any]:
        """All that training needs to go on from here, except weights and optimizer."""
        state: dict[str, Any] = {
            "num_timesteps": self.num_timesteps,
            "total_timesteps": self._total_timesteps,
            "updates": self._n_updates,
            "skipped": self._skipped,
            "random": self._random.state(),
            "num_envs": getattr(self, "n_envs", None),
        }
        if self.env is None:
            return state
        state.update(self._statistics())
        if self._last_obs is None:
            return state
        stream = self._stream
        get_env_state = getattr(self.env, "get_state", None)
        return {
            **state,
            "core_state": dict(self._collector.state),
            "observation": dict(stream.observation),
            "episode_start": stream.episode_start,
            "env": get_env_state() if get_env_state is not None else None,
        }

    def _statistics(self) -> dict[str, Any]:
        return {"reward_transform": self._collector.transform.state(), "episodes": self._episodes.state()}

    def _load_statistics(self, state: Mapping[str, Any]) -> None:
        self._collector.transform.load_state(state["reward_transform"])
        self._episodes.load_state(state["episodes"])

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write a checkpoint to `path` atomically (suffix ``.ckpt`` if it has none); see `agents.checkpoint`.

        Raises:
            OSError: it could not be written; an earlier file at `path` is untouched.
        """
        if exclude or include:
            raise UserError("a checkpoint is always whole: exclude and include are not supported")
        if not isinstance(path, (str, os.PathLike)):
            raise UserError("a checkpoint is written to a path, not to an open file")
        image_shape, num_actions = image_and_actions(self.observation_space, self.action_space)
        undo = self._before_update  # in the middle of a phase of learning, what was before it
        write_checkpoint(
            path,
            {
                "algorithm": self.algorithm,
                "config": asdict(self.config),
                "policy_config": to_json(self.policy_config),
                "image_shape": list(image_shape),
                "num_actions": num_actions,
                "seed": self.seed,
                "experiment": self.experiment,
                "policy": self.policy.state_dict() if undo is None else undo.weights,
                "optimizer": self.optimizer.state_dict() if undo is None else undo.optimizer_state,
                # With lag, the update whose rollout the boundary follows may have been made since.
                "run": {
                    **(self._boundary or self._run_state()),
                    "updates": self._n_updates if undo is None else undo.updates,
                },
            },
        )

    @classmethod
    def load(  # type: ignore[override]  # no custom_objects: nothing in a checkpoint is code
        cls: type[SelfAgent],
        path: str | pathlib.Path,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfAgent:
        """Read a checkpoint.

        Args:
            path: a file that `save` wrote.
            env: environments to go on training in; None if the agent shall only predict, or get them by `set_env`.
            device: "cpu", "cuda" or "auto".
            force_reset: start new episodes in `env`. False continues the episodes of the checkpoint, exactly.
            kwargs: `tensorboard_log` and `verbose`, as for a new agent.

        Raises:
            CheckpointError: the file is missing, damaged or foreign, of another algorithm, or does not fit `env`.
        """
        return cls.from_content(read_checkpoint(path), str(path), env, device, force_reset, **kwargs)

    @classmethod
    def from_content(
        cls: type[SelfAgent],
        content: Mapping[str, Any],
        name: str,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfAgent:
        """As `load`, from what `read_checkpoint` returned for the file called `name`."""
        if content.get("algorithm") != cls.algorithm:
            raise CheckpointError(
                f"{name} holds {content.get('algorithm', 'no').upper()} training, not {cls.algorithm.upper()}: "
                "agents.load finds the right class"
            )
        try:
            _check_sizes(content, name)
            make: Callable[..., SelfAgent] = cls  # `Agent`'s constructor
            agent = make(
                from_json(content["policy_config"]),
                env,
                cls.config_class(**content["config"]),
                seed=content["seed"],
                device=device,
                **kwargs,
            )
            if env is None:
                agent.observation_space, agent.action_space = spaces_of(
                    content["image_shape"], content["num_actions"]
                )
                agent._setup_model()
            spaces = image_and_actions(agent.observation_space, agent.action_space)
            if spaces != (tuple(content["image_shape"]), content["num_actions"]):
                raise CheckpointError(
                    f"{name} was trained with images {tuple(content['image_shape'])} and {content['num_actions']} "
                    f"actions, these environments have images {spaces[0]} and {spaces[1]} actions"
                )
            agent.policy.load_state_dict(content["policy"])
            if env is not None and agent.config.lag:
                agent._behaviour.load_state_dict(content["policy"])
            agent.optimizer.load_state_dict(_optimizer_state(content["optimizer"], agent.policy))
            agent._load_run_state(content["run"], force_reset)
        except CheckpointError:
            raise
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"{name} does not fit: {reason}") from error
        agent.experiment = content["experiment"]
        return agent

    def _load_run_state(self, state: Mapping[str, Any], restart: bool) -> None:
        self.num_timesteps = state["num_timesteps"]
        self._total_timesteps = state["total_timesteps"]
        self._n_updates = state["updates"]
        self._skipped = state.get("skipped", 0)
        self._random.load_state(state["random"])
        if self.env is None:
            self._boundary = dict(state)  # for `save`, and for environments that come later
            return
        if "reward_transform" in state:
            self._load_statistics(state)
        if restart:
            self._boundary = None
            return
        if self.n_envs != state["num_envs"]:
            raise CheckpointError(
                f"the checkpoint continues {state['num_envs']} environments, not {self.n_envs}: "
                "use as many, or force_reset=True"
            )
        if state.get("env") is None:
            raise CheckpointError("the checkpoint holds no environment states: load it with force_reset=True")
        self.env.set_state(state["env"])  # type: ignore[attr-defined]  # reached through any VecEnvWrapper
        self._stream = Stream(dict(state["observation"]), state["episode_start"])
        self._collector.state = {key: value.to(self.device) for key, value in state["core_state"].items()}


class _NothingLarger(TorchFunctionMode):
    """Within it, no tensor of more than so many elements is made from sizes: ValueError is raised instead."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self._elements = elements

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FACTORIES:
            sizes = args[0] if args and isinstance(args[0], (tuple, list)) else args
            if math.prod(size for size in sizes if isinstance(size, int)) > self._elements:
                raise ValueError("its network is larger than its stored weights")
        return func(*args, **(kwargs or {}))


_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}


def _check_sizes(content: Mapping[str, Any], name: str) -> None:
    """Refuse a network other than that of the stored weights before it is made: it may be of any size."""
    weights = content["policy"]
    config = from_json(content["policy_config"])
    if getattr(config.core, "layers", 1) > len(weights) or len(config.encoder.channels) > len(weights):
        raise CheckpointError(
            f"{name} does not fit: its network has more layers than there are stored weights"
        )
    height, width, channels = content["image_shape"]
    largest = max((tensor.numel() for tensor in weights.values()), default=0)
    with torch.random.fork_rng(devices=[]), _NothingLarger(largest):
        policy = Policy(config, (height, width, channels), content["num_actions"])
    described = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if described != stored:
        different = sorted(name for name in {*described, *stored} if described.get(name) != stored.get(name))
        raise CheckpointError(
            f"{name} does not fit: its network has other weights, such as {', '.join(different[:3])}"
        )


def _optimizer_state(stored: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    """Undo what a file does to an optimizer's state: to the numbers that are its keys, and to memory formats."""
    parameters = list(policy.parameters())

    def like_parameter(number: int, value: Any) -> Any:
        parameter = parameters[number]
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        return value

    state = {
        int(number): {name: like_parameter(int(number), value) for name, value in values.items()}
        for number, values in stored["state"].items()
    }
    return {**stored, "state": state}
