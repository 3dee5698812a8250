"""What IMPALA and PPO share: a Stable-Baselines3 algorithm around a recurrent policy and a rollout store."""

from __future__ import annotations

import contextlib
import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.acting import Actor
from agents.allocator import keep_large_buffers
from agents.collector import Collector, Infos, StageTimes, Stream
from agents.config import AgentConfig
from agents.episodes import EpisodeLog
from agents.memory import peak_memory
from agents.persistence import Persistent
from agents.randomness import RandomStreams
from agents.rewards import make_reward_transform
from agents.rollout import Batch, RolloutStore
from agents.safety import (
    MAX_SKIPS,
    EnvironmentFault,
    Interrupted,
    NotFinite,
    Snapshot,
    StateWatch,
    causes,
    finite,
    healed,
    optimizer_tensors,
    write_bundle,
)
from agents.spaces import image_and_actions
from agents.step_graph import actor_class
from common.errors import UserError, unknown_name
from policies import Policy, PolicyConfig, policy_config, to_json

SelfAgent = TypeVar("SelfAgent", bound="Agent")
Metrics = dict[str, float]

logger = logging.getLogger(__name__)


class Agent(Persistent):
    """A Stable-Baselines3 algorithm whose policy carries a recurrent state.

    Environments give observations ``Dict(rgb: uint8 (H, W, C), reward: float32 (1,))`` and discrete actions;
    `envs.ProcgenVecEnv` does. A checkpoint written by `save` is always the state at a rollout's start, even if asked
    for in the middle of one, so that training that continues from it repeats what would have happened.

    Attributes:
        config: hyperparameters.
        policy_config: the network.
        experiment: plain values that checkpoints carry along.
        stop_when: asked often during `learn`, also between two updates; once it says yes, the phase of learning that
            is under way is undone and `learn` returns.
        diagnostics: directory for what numbers that are not finite can be understood from; None writes nothing.
    """

    def __init__(
        self,
        policy: str | PolicyConfig,
        env: GymEnv | None,
        config: AgentConfig | None = None,
        *,
        seed: int | None = None,
        device: torch.device | str = "auto",
        tensorboard_log: str | None = None,
        verbose: int = 0,
        **overrides: Any,
    ) -> None:
        """Make an agent with fresh weights.

        Args:
            policy: name of a core ("srwm", "lstm", ...) with the paper's sizes, or a whole configuration.
            env: environments to train in; None only for an agent that will just predict.
            config: hyperparameters; the defaults of the algorithm if None.
            seed: of everything random, the environments included; None draws one.
            device: "cpu", "cuda" or "auto".
            tensorboard_log: directory for TensorBoard files, as in Stable-Baselines3.
            verbose: 1 prints what is logged.
            overrides: single hyperparameters by name, instead of or on top of `config`.

        Raises:
            UserError: unknown policy or hyperparameter, values that do not fit together, or spaces of another form.
        """
        known = {field.name for field in fields(self.config_class)}
        if unknown := [name for name in overrides if name not in known]:
            kind = f"hyperparameter of {self.algorithm}"
            raise UserError("; ".join(unknown_name(kind, name, sorted(known)) for name in unknown))
        if config is not None and not isinstance(config, self.config_class):
            raise UserError(
                f"{self.algorithm} takes hyperparameters as {self.config_class.__name__}, not {type(config).__name__}"
            )
        self.config = replace(config if config is not None else self.default_config(), **overrides)
        self.policy_config = policy_config(policy) if isinstance(policy, str) else policy
        keep_large_buffers()
        super().__init__(
            policy=Policy,  # type: ignore[arg-type]  # as above
            env=env,
            learning_rate=self._learning_rate_at,
            device=device,
            support_multi_env=True,
            seed=seed,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
        )
        self.experiment: dict[str, Any] = {}
        self.stop_when: Callable[[], bool] | None = None
        self.diagnostics: Path | None = None
        self._boundary: dict[str, Any] | None = None
        self._before_update: Snapshot | None = None
        self._skipped = self._skipped_in_a_row = 0
        self._state_watch = StateWatch()
        if env is not None:
            self._setup_model()

    @classmethod
    def default_config(cls) -> AgentConfig:
        """The hyperparameters of this algorithm as it was published."""
        # Every algorithm's own class has defaults for all fields, which their common base cannot say.
        make: Callable[[], AgentConfig] = cls.config_class
        return make()

    def _learning_rate_at(self, progress_remaining: float) -> float:
        share = max(0.0, progress_remaining) if self.config.learning_rate_decay else 1.0
        return self.config.learning_rate * share

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """Make a single environment a vector of one. Images stay height-width-channel, as the encoder takes them."""
        if isinstance(env, VecEnv):
            return env
        return DummyVecEnv([lambda: Monitor(env) if monitor_wrapper else env])

    def _setup_model(self) -> None:
        image_shape, num_actions = image_and_actions(self.observation_space, self.action_space)
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.policy = Policy(self.policy_config, image_shape, num_actions).to(self.device)
        self.optimizer = self._make_optimizer()
        self._random = RandomStreams(self.seed, self.device)
        if self.env is not None:
            self._setup_training()

    def _setup_training(self) -> None:
        """What depends on the environments: everything between them and the policy."""
        assert self.env is not None
        if problems := self.config.problems(self.n_envs):
            raise UserError("; ".join(problems))
        lag = self.config.lag
        self._behaviour = deepcopy(self.policy).requires_grad_(False) if lag else self.policy
        games = _games(self.env)
        self._slot_games = games
        self._episodes = EpisodeLog(games)
        self._times = StageTimes()
        make_actor = actor_class(self.device)
        self._collector = Collector(
            self.env,
            lambda num_envs: make_actor(self._behaviour, num_envs, self.device, self._random.acting),
            make_reward_transform(self.config.reward_transform, games, self.config.discount),
            self.device,
            self._times,
        )
        image_shape, _ = image_and_actions(self.observation_space, self.action_space)
        length = self.config.rollout_length
        self._stores = [RolloutStore(length, self.n_envs, image_shape, self.device) for _ in range(1 + lag)]
        self._stats_window_size = 100 * len(set(games))

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Go on in `env`, which must have the spaces and, if there are any, the number of the present environments.

        Args:
            env: environments; other games are welcome.
            force_reset: start new episodes in `env`. False: it stands where the present environments stand (it wraps
                them, say), or shall be put where the checkpoint of an agent that has none stands.

        Raises:
            UserError: hyperparameters do not fit the number of environments.
            CheckpointError: `force_reset` is false and the checkpoint does not fit `env`.
        """
        env = self._wrap_env(env, self.verbose)
        if self.env is None:
            self.n_envs = env.num_envs
            super().set_env(env, force_reset)
            self._setup_training()
            if self._boundary is not None:
                self._load_run_state(self._boundary, force_reset)
            return
        statistics, core_state = self._statistics(), self._collector.state
        super().set_env(env, force_reset)
        self._setup_training()
        self._load_statistics(statistics)
        if force_reset:
            self._boundary = None
        else:
            self._collector.state = core_state

    # Acting

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: Any = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Actions for observations of any number of environments, or of a single one without batch dimension.

        Args:
            observation: "rgb" (B, H, W, C) uint8 and "reward" (B, 1).
            state: what the previous call returned; None at the start.
            episode_start: whether each observation is the first of an episode, (B,); None: only if `state` is None.
            deterministic: the most likely action instead of a drawn one.

        Returns:
            Actions (B,) and the state to pass to the next call.
        """
        assert isinstance(observation, dict)
        single = np.ndim(observation["rgb"]) == 3
        if single:
            observation = {key: np.asarray(value)[None] for key, value in observation.items()}
        batch = len(observation["rgb"])
        if episode_start is None:
            episode_start = np.full(batch, state is None)
        actor = Actor(self.policy, batch, self.device, self._random.predicting)
        if state is not None:
            actor.state = state
        starts = np.asarray(episode_start, dtype=bool).reshape(batch)
        actions = actor.step(observation, starts, deterministic).actions.cpu().numpy()
        return (actions[0] if single else actions), actor.state

    def actor(self, num_envs: int, seed: int = 0) -> Actor:
        """The policy as it is now, with fresh states for `num_envs` environments and its own randomness."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return Actor(self.policy, num_envs, self.device, generator)

    # Learning

    @abstractmethod
    def _make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of a fresh policy."""

    @abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """One phase of learning from one rollout of every environment; returns what to log under ``train/``."""

    def learn(
        self: SelfAgent,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfAgent:
        """Train for `total_timesteps` environment steps, rounded up to whole rollouts.

        Args:
            total_timesteps: on top of those already made if `reset_num_timesteps` is false.
            callback: Stable-Baselines3 callbacks; `on_step` follows each step of all environments and may stop the
                training by returning False.
            log_interval: rollouts between two entries in the log.
            tb_log_name: name of the run below `tensorboard_log`.
            reset_num_timesteps: start counting, and the environments, anew.
            progress_bar: show Stable-Baselines3's progress bar.

        Raises:
            NotFinite: a loss, gradient, weight or state is not finite, and `on_nan` is "stop" or skipping did not help.
            EnvironmentFault: environments in other processes have died.

        In both cases, and after any other error, the agent can be saved: it is as at the start of the rollout.
        """
        if self.env is None:
            raise UserError(
                "this agent has no environment to learn in: load it with env=..., or call set_env"
            )
        fresh = reset_num_timesteps or self._last_obs is None
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name or self.algorithm, progress_bar
        )
        if fresh:
            self._collector.reset()
        self._mark_boundary()
        callback.on_training_start(locals(), globals())
        self._times.clear()
        began = (time.perf_counter(), self.num_timesteps)
        iterations = self._iterate_lagged if self.config.lag else self._iterate
        rollout_steps = self.n_envs * self.config.rollout_length
        with contextlib.suppress(Interrupted):
            for metrics in iterations(total_timesteps, callback):
                # Counted from the beginning of the run, so that one that was continued logs at the same steps.
                if self.num_timesteps // rollout_steps % log_interval == 0:
                    self._log(metrics, began)
                    began = (time.perf_counter(), self.num_timesteps)
        callback.on_training_end()
        return self

    def _iterate(self, total_timesteps: int, callback: BaseCallback) -> Iterable[Metrics]:
        """Collect, learn, collect, learn: what is stored was chosen by the weights that learn from it."""
        store = self._stores[0]
        while self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            callback.on_rollout_start()
            stream, complete = self._collect(store, lambda infos: self._after_step(infos, callback))
            self._stream = stream
            if not complete:
                return
            callback.on_rollout_end()
            metrics = self._timed_update(store.batch)
            if not metrics:
                self._heal_state()
            self._mark_boundary()
            yield metrics

    def _iterate_lagged(self, total_timesteps: int, callback: BaseCallback) -> Iterable[Metrics]:
        """Collect the next rollout with the weights of before this update, while this update runs."""
        if self.num_timesteps >= total_timesteps:
            return
        ready, free = self._stores
        steps: list[Infos] = []

        def collect(store: RolloutStore) -> Stream:
            steps.clear()

            def keep(infos: Infos) -> bool:
                steps.append(infos)
                return not self._stop_asked()

            return self._collect(store, keep)[0]

        with ThreadPoolExecutor(1, "acting") as thread:
            callback.on_rollout_start()
            self._stream = collect(ready)
            while True:
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                going_on = all(self._after_step(infos, callback) for infos in steps)
                callback.on_rollout_end()
                if not going_on:
                    return
                last = self.num_timesteps >= total_timesteps
                acting = None
                self._mark_boundary()
                if not last:
                    callback.on_rollout_start()
                    acting = thread.submit(collect, free)
                metrics = self._timed_update(ready.batch)
                if acting is not None:
                    self._stream = acting.result()
                if not metrics:
                    self._heal_state()
                self._behaviour.load_state_dict(self.policy.state_dict())
                ready, free = free, ready
                yield metrics
                if last:
                    return

    def _after_step(self, infos: Infos, callback: BaseCallback) -> bool:
        self.num_timesteps += self.n_envs
        self._update_info_buffer(infos)
        for slot, info in enumerate(infos):
            if "episode" in info:
                self._episodes.add(self._slot_games[slot], info)
        callback.update_locals({"infos": infos, "self": self})
        return callback.on_step()

    def _collect(self, store: RolloutStore, on_step: Callable[[Infos], bool]) -> tuple[Stream, bool]:
        try:
            return self._collector.collect(self._stream, store, on_step)
        except (EOFError, ConnectionError) as error:
            what = str(error) or type(error).__name__
            raise EnvironmentFault(f"environments died after {self.num_timesteps:,} steps: {what}") from error

    def _timed_update(self, batch: Batch) -> Metrics:
        """A phase of learning, undone if it is broken off; no metrics if its numbers were not finite."""
        began = time.perf_counter()
        before = self._before_update = Snapshot(self.policy, self.optimizer, self._n_updates)
        self._update_learning_rate(self.optimizer)
        self.policy.train()
        metrics: Metrics = {}
        try:
            if names := self._state_watch.check(batch.final_state):
                raise NotFinite(names, batch)
            metrics = self.update(batch)
            if not finite([*self.policy.parameters(), *optimizer_tensors(self.optimizer)]):
                raise NotFinite([*causes(self.policy, None, None), "the optimizer's state"])
            self._skipped_in_a_row = 0
        except NotFinite as fault:
            try:
                self._report(fault)
            finally:
                self._undo_update(before)
        except BaseException:
            self._undo_update(before)
            raise
        self._before_update = None
        self._times.learning += time.perf_counter() - began
        return metrics

    def _undo_update(self, before: Snapshot) -> None:
        before.restore()
        self._n_updates = before.updates
        self._before_update = None

    def _step_optimizer(self, loss: torch.Tensor, batch: object = None) -> torch.Tensor:
        """Follow the gradient of `loss`, which follows from the record `batch`; returns its norm before clipping.

        Raises:
            NotFinite: loss or gradient is not finite; nothing was changed.
            Interrupted: the agent was asked to stop; nothing was changed.
        """
        self._stop_point()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._stop_point()
        if not loss.detach().isfinite():
            raise NotFinite(causes(self.policy, loss, batch), batch)
        try:
            norm = torch.nn.utils.clip_grad_norm_(
                self.policy.parameters(), self.config.max_grad_norm, error_if_nonfinite=True
            )
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            names = causes(self.policy, loss, batch) or ["the gradient's norm"]
            raise NotFinite(names, batch) from error
        self.optimizer.step()
        self._n_updates += 1
        return norm

    def _stop_asked(self) -> bool:
        return self.stop_when is not None and self.stop_when()

    def _stop_point(self) -> None:
        if self._stop_asked():
            raise Interrupted

    # Numbers that are not finite

    def _report(self, fault: NotFinite) -> None:
        """Write down what happened and go on without the update, or raise `NotFinite`, as configured."""
        self._skipped += 1
        self._skipped_in_a_row += 1
        where = f"at {self.num_timesteps:,} steps, update {self._n_updates + 1}"
        bundle = None
        if self.diagnostics is not None:
            content = {
                "updates": self._n_updates,
                "config": asdict(self.config),
                "policy_config": to_json(self.policy_config),
                "policy": self.policy.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            bundle = write_bundle(self.diagnostics, self.num_timesteps, fault, content)
        told = f"{fault} ({where}); the update was undone" + (f"; see {bundle}" if bundle else "")
        if self.config.on_nan == "stop":
            raise NotFinite(fault.names, fault.batch, told) from fault
        if self._skipped_in_a_row >= MAX_SKIPS:
            told = f"{told}; so were {MAX_SKIPS} in a row: going on makes no sense"
            raise NotFinite(fault.names, fault.batch, told) from fault
        logger.warning("warning: %s; going on without it (on_nan is skip)", told)

    def _heal_state(self) -> None:
        """Streams whose state is not finite begin with an empty one."""
        fresh = self.policy.initial_state(self.n_envs, self.device)
        self._collector.state = healed(self._collector.state, fresh)

    # Logging

    def _log(self, metrics: Metrics, began: tuple[float, int]) -> None:
        seconds, steps = time.perf_counter() - began[0], self.num_timesteps - began[1]
        record = self.logger.record
        for tag, value in self._episodes.metrics().items():
            record(tag, value)
        for tag, value in metrics.items():
            record(f"train/{tag}", value)
        record("train/updates", self._n_updates)
        if self.config.on_nan == "skip":
            record("train/skipped_updates", self._skipped)
        for tag, value in self._core_metrics().items():
            record(f"core/{tag}", value)
        record("time/sps", steps / seconds)
        for stage, spent in asdict(self._times).items():
            record(f"time/sps_{stage}", steps / spent if spent else float("nan"))
        self._times.clear()
        record("time/total_timesteps", self.num_timesteps)
        for tag, value in peak_memory(self.device).items():
            record(f"memory/{tag}", value)
        self.logger.dump(step=self.num_timesteps)

    @torch.no_grad()
    def _core_metrics(self) -> Metrics:
        """What the core says of itself at the latest observation."""
        stream = self._stream
        found = self.policy.diagnostics(
            torch.as_tensor(stream.observation["rgb"], device=self.device).unsqueeze(0),
            torch.as_tensor(stream.observation["reward"], device=self.device).unsqueeze(0),
            self._collector.state,
            torch.as_tensor(stream.episode_start, device=self.device).unsqueeze(0),
        )
        return {tag: float(value) for tag, value in found.items()}

    @property
    def episode_returns(self) -> dict[str, float]:
        """Mean return of the latest episodes of each game in training."""
        return self._episodes.returns()

    # The stream of observations lives where Stable-Baselines3 keeps it, so that its own machinery can clear it.

    @property
    def _stream(self) -> Stream:
        assert isinstance(self._last_obs, dict)
        assert self._last_episode_starts is not None
        return Stream(self._last_obs, self._last_episode_starts)

    @_stream.setter
    def _stream(self, stream: Stream) -> None:
        self._last_obs, self._last_episode_starts = stream.observation, stream.episode_start


def _games(env: VecEnv) -> list[str]:
    """The game in each slot, as far as the environment names it."""
    # Asked first where that is possible (Stable-Baselines3 2.6): processes of a SubprocVecEnv die of what they lack.
    if not getattr(env, "has_attr", lambda name: True)("game"):
        return ["env"] * env.num_envs
    try:
        return [str(game) for game in env.get_attr("game")]
    except AttributeError:
        return ["env"] * env.num_envs
