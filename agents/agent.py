"""What IMPALA and PPO share: a Stable-Baselines3 algorithm around a learner, a collector and environments."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HumanOutputFormat, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule, TensorDict
from stable_baselines3.common.utils import get_system_info
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecTransposeImage, is_vecenv_wrapped

from agents.acting import Actor
from agents.actor_side import ActorSide
from agents.checkpoint import CheckpointError, PathOrFile, read_checkpoint, write_checkpoint
from agents.collector import Step, Stream
from agents.config import AgentConfig
from agents.content import AgentContent, fitting
from agents.device import keep_large_buffers, peak_memory
from agents.episodes import WINDOW, full_window_score
from agents.exchange import Exchange
from agents.learner import Interrupted, Learner, Metrics
from agents.randomness import RandomStreams
from agents.retention import Retention, RetentionConfig, make_retention
from agents.rollout import Batch, RolloutStore
from agents.schedule import alternate, overlap
from agents.sizes import memory_problems
from agents.spaces import image_and_actions, spaces_of
from common.errors import RunError, UserError, raise_problems, shown, unknown_name
from common.stages import stage
from policies import Policy, PolicyConfig, policy_config
from policies.precision import resolved

SelfAgent = TypeVar("SelfAgent", bound="Agent")


class EnvironmentFault(RunError):  # noqa: N818  (nothing is wrong here)
    """Environments have died, or the connection to them has."""


class Agent(BaseAlgorithm):
    """A Stable-Baselines3 algorithm whose policy carries a recurrent state.

    Environments give observations ``Dict(rgb: uint8 (H, W, C), reward: float32 (1,))`` and discrete actions;
    `envs.ProcgenVecEnv` does. A checkpoint written by `save` is always the state at a rollout's start, even if asked
    for in the middle of one, so that training that continues from it repeats what would have happened.

    An algorithm is a subclass with the three class attributes, and a line in `agents.ALGORITHMS`.

    Attributes:
        algorithm: name of the algorithm.
        config_class: its hyperparameters.
        learner_class: what it does with a rollout.
        config: hyperparameters of this agent.
        policy_config: the network.
        task: number of the task in training, from 0.
        consolidation_steps: environment steps that methods of continual learning have played at changes of the task;
            they are not part of `num_timesteps`.
        exchange: with the processes that share the run. Where there are several, `learn`, `save` and `load` are
            collective, `num_timesteps` counts the steps of all, and `env` and `n_envs` are this process's own.
        learner: policy, optimizer and all that changes them.
        actors: environments and all that plays them; there once there are environments.
        experiment: plain values that checkpoints carry along.
        stop_when: asked often during `learn`, also between two updates; once it says yes, the phase of learning that
            is under way is undone and `learn` returns.
        diagnostics: directory for what numbers that are not finite can be understood from; None writes nothing.
        decay_span: environment steps between which a learning rate falls that does so; None for the whole training.
    """

    algorithm: ClassVar[str]
    config_class: ClassVar[type[AgentConfig]]
    learner_class: ClassVar[type[Learner]]

    policy: Policy  # type: ignore[assignment]  # ours is not a BasePolicy: its forward takes sequences and a state
    env: VecEnv | None

    def __init__(
        self,
        policy: str | PolicyConfig,
        env: GymEnv | None,
        config: AgentConfig | None = None,
        *,
        retention: Retention | str | None = None,
        retain: RetentionConfig | None = None,
        exchange: Exchange | None = None,
        seed: int | None = None,
        device: torch.device | str = "auto",
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: Mapping[str, Any] | None = None,
        _init_setup_model: bool = True,
        **overrides: Any,
    ) -> None:
        """Make an agent with fresh weights.

        Args:
            policy: name of a core ("srwm", "lstm", ...) with the paper's sizes, or a whole configuration.
            env: environments to train in; None only for an agent that will just predict.
            config: hyperparameters; the defaults of the algorithm if None.
            retention: a method of continual learning, or the names of some, joined by "+"; None for fine-tuning.
            retain: settings of methods that go by name.
            exchange: with the processes that train this agent together, each in its part of the environments
                (`agents.distributed.joined`); None to train alone.
            seed: of everything random, the environments included; None draws one.
            device: "cpu", "cuda" or "auto".
            tensorboard_log: directory for TensorBoard files, as in Stable-Baselines3.
            verbose: 1 prints what is logged.
            policy_kwargs: fields of `PolicyConfig`, where `policy` is the name of a core.
            overrides: single hyperparameters by name, instead of or on top of `config`. `learning_rate` may be a
                schedule, a function of the share of training that remains; functions are not in checkpoints.

        Raises:
            UserError: unknown policy or hyperparameter, values that do not fit together, or spaces of another form.
        """
        known = sorted(field.name for field in fields(self.config_class))
        kind = f"hyperparameter of {self.algorithm}"
        raise_problems([unknown_name(kind, name, known) for name in overrides if name not in known])
        if config is not None and not isinstance(config, self.config_class):
            raise UserError(
                f"{self.algorithm} takes hyperparameters as {self.config_class.__name__}, not {type(config).__name__}"
            )
        self._schedule: Schedule | None = None
        if callable(overrides.get("learning_rate")):
            self._schedule = overrides["learning_rate"]
            overrides["learning_rate"] = float(self._schedule(1.0))
        self.config = replace(config if config is not None else self.config_class(), **overrides)
        if policy_kwargs and not isinstance(policy, str):
            raise UserError("policy_kwargs are for a policy by name: put them into the PolicyConfig")
        self.policy_config = (
            policy_config(policy, **policy_kwargs or {}) if isinstance(policy, str) else policy
        )
        if retention is None or isinstance(retention, str):
            retention = make_retention(retention or "none", retain)
        self._retention = retention
        self.task = self.consolidation_steps = 0
        raise_problems(self._retention.problems(self.policy_config, self.config))
        self.policy_config = self._retention.policy_config(self.policy_config, seed or 0)
        self.exchange = Exchange() if exchange is None else exchange
        raise_problems(self._retention.process_problems(self.exchange.size))
        self.experiment: dict[str, Any] = {}
        self.stop_when: Callable[[], bool] | None = None
        self.diagnostics: Path | None = None
        self._learned_from: Batch | None = None
        self.decay_span: tuple[int, int] | None = None
        self._boundary: dict[str, Any] | None = None
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
        if env is not None and _init_setup_model:
            self._setup_model()

    def _learning_rate_at(self, progress_remaining: float) -> float:
        if self._schedule is not None:
            return float(self._schedule(progress_remaining))
        share = max(0.0, progress_remaining) if self.config.learning_rate_decay else 1.0
        return self.config.learning_rate * share

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        begin, end = (0, total_timesteps) if self.decay_span is None else self.decay_span
        super()._update_current_progress_remaining(num_timesteps - begin, end - begin)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """Make a single environment a vector of one. Images stay height-width-channel, as the encoder takes them."""
        if not isinstance(env, VecEnv):
            return DummyVecEnv([lambda: Monitor(env) if monitor_wrapper else env])
        if is_vecenv_wrapped(env, VecTransposeImage):
            raise UserError(
                "VecTransposeImage puts channels first, this encoder takes them last: leave it out"
            )
        return env

    def _setup_model(self) -> None:
        image_shape, num_actions = image_and_actions(self.observation_space, self.action_space)
        if self.env is not None:
            self._check_sizes()
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        precision = resolved(self.policy_config.precision, self.device)
        self.policy_config = replace(self.policy_config, precision=precision)
        self.policy = Policy(self.policy_config, image_shape, num_actions).to(self.device)
        self.exchange.copy_first(self.policy.state_dict().values())
        self._random = RandomStreams(self.seed, self.device, self.exchange.rank)
        self.exchange.agree_on(self._random.shuffling)
        self.exchange.agree_on(self._random.replaying)
        self.learner = self.learner_class(
            self.policy,
            self.config,
            self._random.shuffling,
            self._retention,
            self.exchange,
            self._random.replaying,
        )
        self._retention.begin_task(self.task)
        if self.env is not None:
            self._setup_actors()

    def _setup_actors(self) -> None:
        """What depends on the environments: everything between them and the policy."""
        assert self.env is not None
        self._check_sizes()
        self.actors = ActorSide(
            self.env, self.policy, self.config, self.device, self._random.acting, self.exchange
        )
        self.actors.tell(self.task)
        self._stats_window_size = WINDOW * len(set(self.actors.collector.games))

    def _check_sizes(self) -> None:
        """Refuse what does not fit the number of environments, or into the memory, before it is made."""
        processes = self.exchange.size
        raise_problems(self.config.problems(self.n_envs * processes, processes))
        spaces = image_and_actions(self.observation_space, self.action_space)
        raise_problems(
            memory_problems(self.policy_config, self.config, *spaces, self.n_envs, str(self.device))
        )

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
            self._setup_actors()
            if self._boundary is not None:
                self._load_run_state(self._boundary, force_reset)
            return
        before = self.actors
        super().set_env(env, force_reset)
        self._setup_actors()
        self.actors.behaviour.load_state_dict(before.behaviour.state_dict())
        self.actors.load_statistics(before.statistics(), same_games=not force_reset)
        if force_reset:
            self._boundary = None
        else:
            self.actors.collector.load_state(before.collector.state())

    # Tasks

    @property
    def retention(self) -> Retention:
        """The method of continual learning."""
        return self._retention

    def change_task(
        self, env: GymEnv, task: int, *, keep_state: bool = False, renew: int | None = None
    ) -> bool:
        """Leave the present task and go on with another one, between two calls of `learn`.

        First the method of continual learning consolidates: it may play rollouts in the present environments, which
        stay open. Then new episodes start in `env`, and the agent can be saved: as it would start its next rollout. Go
        on with ``learn(steps, reset_num_timesteps=False)``.

        Args:
            env: environments of the new task, as many as the present ones.
            task: its number, from 0. One that was trained before may come back.
            keep_state: the policy's state goes on into the new environments, as far as its reset rule lets it.
            renew: seed of new weights for core and heads, which the task begins with; None keeps them.

        Returns:
            False if `stop_when` asked to stop before the consolidation was complete: nothing has changed then, and what
            `save` writes is as the present task ended.

        Raises:
            UserError: there are no present environments, or the new ones are not as many.
        """
        env = self._wrap_env(env, self.verbose)
        if self.env is None or env.num_envs != self.n_envs:
            present = "none" if self.env is None else self.n_envs
            raise UserError(f"a task can only be left for as many environments: there are {present} now")
        if not self._leave_task():
            return False
        before = self.actors.collector.core_state
        self.set_env(env)
        self.task = task
        self.policy.see_task(task)
        if renew is not None:
            self.policy.renew(renew)
        self.retention.begin_task(task)
        assert self.env is not None
        self._last_obs = self.env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)
        self.actors.collector.reset()
        if keep_state:
            self.actors.collector.core_state = before
        self.actors.tell(task)
        self.actors.follow_learner()
        self._boundary = self._run_state()
        return True

    def _leave_task(self) -> bool:
        """Let the method of continual learning consolidate; whether it could."""
        if not self.retention.needs_boundaries:
            return True
        replaying, before = self.learner.replaying.get_state(), self.retention.state()
        try:
            self.retention.end_task(self.task, self._consolidation_rollouts)
        except Interrupted:
            self.learner.replaying.set_state(replaying)
            self.retention.load_state(before)  # of several methods, one may be ready already
            return False
        return True

    def _consolidation_rollouts(self, count: int) -> Iterator[Batch]:
        """Rollouts of the present task that are not learned from; each is valid until the next one."""
        if self._last_obs is None:
            raise UserError("no task has been trained yet: call learn before change_task")
        self.actors.follow_learner()
        for _ in range(count):
            if not self._play(self.actors.stores[0], lambda step: not self._stop_asked()):
                raise Interrupted
            self.consolidation_steps += self.n_envs * self.config.rollout_steps
            yield self.actors.stores[0].batch

    # What belongs to the learner under the names of Stable-Baselines3

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The learner's optimizer."""
        return self.learner.optimizer

    @property
    def stream(self) -> Stream:
        """Where the environments stand. It lives where Stable-Baselines3 keeps it, whose own machinery clears it."""
        assert isinstance(self._last_obs, dict)
        assert self._last_episode_starts is not None
        return Stream(self._last_obs, self._last_episode_starts)

    @stream.setter
    def stream(self, stream: Stream) -> None:
        self._last_obs, self._last_episode_starts = stream.observation, stream.episode_start

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
        actor.tell(torch.full((batch,), self.task))
        if state is not None:
            actor.state = state
        starts = np.asarray(episode_start, dtype=bool).reshape(batch)
        actions = actor.step(observation, starts, deterministic).actions.cpu().numpy()
        return (actions[0] if single else actions), actor.state

    # Learning

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
                training by returning False. Where rollouts overlap with learning (`rollout_lag 1`), the calls for
                the steps of a rollout follow when it is complete.
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
            self.actors.collector.reset()
        self._boundary = self._run_state()
        self.learner.stop_asked = self._stop_asked
        self.learner.diagnostics = self.diagnostics
        callback.on_training_start(locals(), globals())
        self.actors.times.clear()
        self._logged = (time.perf_counter(), self.num_timesteps)
        phases = self._overlapping if self.config.lag else self._alternating
        with contextlib.suppress(Interrupted):
            for metrics in phases(total_timesteps, callback):
                # Counted from the beginning of the run, so that one that was continued logs at the same steps.
                rollouts = self.num_timesteps // (
                    self.n_envs * self.exchange.size * self.config.rollout_steps
                )
                if rollouts % log_interval == 0:
                    self._log(metrics or {}, self._learned_from)
        callback.on_training_end()
        return self

    def _setup_learn(self, *arguments: Any, **named: Any) -> tuple[int, BaseCallback]:
        """As in Stable-Baselines3, but without the directory that it makes for logs that go nowhere."""
        asked = self._custom_logger or self.tensorboard_log is not None or "SB3_LOGDIR" in os.environ
        if asked:
            return super()._setup_learn(*arguments, **named)
        self._logger = Logger(None, [HumanOutputFormat(sys.stdout)] if self.verbose else [])
        self._custom_logger = True  # so that it is kept
        try:
            return super()._setup_learn(*arguments, **named)
        finally:
            self._custom_logger = False

    def _alternating(self, total_timesteps: int, callback: BaseCallback) -> Iterator[Metrics | None]:
        """Learn from each rollout before the next one is played."""
        (store,) = self.actors.stores

        def collect() -> Batch | None:
            if self.num_timesteps >= total_timesteps:
                return None
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            callback.on_rollout_start()
            if not self._play(store, lambda step: self._after_step(step, callback)):
                return None
            self.actors.end_rollout()
            callback.on_rollout_end()
            return store.batch

        def learn(rollout: Batch) -> Metrics | None:
            metrics = self._learn(rollout)
            if metrics is None:
                self.actors.reset_broken_states()
            self._boundary = self._run_state()
            return metrics

        return alternate(collect, learn)

    def _overlapping(self, total_timesteps: int, callback: BaseCallback) -> Iterator[Metrics | None]:
        """Play each rollout with the weights of before the update that runs meanwhile."""
        free, steps, after = list(self.actors.stores), list[Step](), dict[str, Any]()
        skipped = False

        def play() -> RolloutStore | None:
            store = free.pop()
            steps.clear()

            def keep(step: Step) -> bool:
                steps.append(
                    replace(step, observation={})
                )  # frames of a whole rollout would take much memory
                return not self._stop_asked()

            return store if self._play(store, keep) else None

        def accept(store: RolloutStore) -> bool | None:
            nonlocal after
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            if self.exchange.any(not all(self._after_step(step, callback) for step in steps)):
                return None
            self.actors.end_rollout()
            callback.on_rollout_end()
            if skipped:
                self.actors.reset_broken_states()
            # A rollout can be played again from where it began, with the weights that played it: a checkpoint of the
            # time after this update holds both, not the rollout that is being played meanwhile.
            self.actors.follow_learner()
            after = self._run_state()
            if self.num_timesteps >= total_timesteps:
                return False
            callback.on_rollout_start()
            return True

        def learn(store: RolloutStore) -> Metrics | None:
            nonlocal skipped
            metrics = self._learn(store.batch)
            self._boundary = after
            skipped = metrics is None
            free.append(store)
            return metrics

        if self.num_timesteps < total_timesteps:
            callback.on_rollout_start()
            yield from overlap(play, accept, learn)

    def _play(self, store: RolloutStore, on_step: Callable[[Step], bool]) -> bool:
        """Fill `store`; whether that was not broken off, at once or, where there are other processes, at its end."""
        stopped = False

        def going_on(step: Step) -> bool:
            nonlocal stopped
            stopped = stopped or not on_step(step)
            return not stopped or self.exchange.size > 1

        try:
            self.stream, _ = self.actors.collector.collect(self.stream, store, going_on)
        except (EOFError, ConnectionError) as error:
            what = str(error) or type(error).__name__
            raise EnvironmentFault(f"environments died after {self.num_timesteps:,} steps: {what}") from error
        return not self.actors.acting_exchange.any(stopped)

    def _after_step(self, step: Step, callback: BaseCallback) -> bool:
        self.num_timesteps += self.n_envs * self.exchange.size
        self._update_info_buffer(step.infos, step.dones)
        self.actors.count_episodes(step.infos)
        # What the callbacks of Stable-Baselines3 and its users look for, under the names it has there.
        names = {"actions": step.actions, "rewards": step.rewards, "dones": step.dones, "infos": step.infos}
        callback.update_locals({**names, "new_obs": step.observation, "self": self})
        return callback.on_step()

    def _learn(self, rollout: Batch) -> Metrics | None:
        """A phase of learning; what to log, None if it was skipped."""
        began = time.perf_counter()
        self._update_learning_rate(self.optimizer)
        with stage("learning"):
            metrics = self.learner.learn(rollout, self.num_timesteps)
        self._learned_from = rollout
        self._n_updates = self.learner.updates
        self.actors.times.learning += time.perf_counter() - began
        return metrics

    def _stop_asked(self) -> bool:
        return self.stop_when is not None and self.stop_when()

    # Logging

    def dump_logs(self, iteration: int = 0) -> None:
        """Write an entry of the log now, as callbacks such as `LogEveryNTimesteps` ask for."""
        self._log({})

    @stage("logging")
    def _log(self, metrics: Metrics, rollout: Batch | None = None) -> None:
        """Write an entry of the log; `rollout` is what was learned from just now, if its memory is still its own."""
        time_before, steps_before = self._logged
        self._logged = (time.perf_counter(), self.num_timesteps)
        seconds, steps = self._logged[0] - time_before, self.num_timesteps - steps_before
        record = self.logger.record
        for tag, value in self.actors.episodes.metrics().items():
            record(tag, value)
        for tag, value in metrics.items():
            record(f"train/{tag}", value)
        record("train/updates", self.learner.updates)
        if self.config.on_nan == "skip":
            record("train/skipped_updates", self.learner.skipped)
        spreads = {} if rollout is None else self.actors.rate_spreads(rollout)
        for tag, value in (self.actors.core_metrics(self.stream) | spreads).items():
            record(f"core/{tag}", value)
        record("time/sps", steps / seconds)
        for part, spent in asdict(self.actors.times).items():
            record(f"time/sps_{part}", steps / spent if spent else float("nan"))
        self.actors.times.clear()
        record("time/total_timesteps", self.num_timesteps)
        for tag, value in peak_memory(self.device).items():
            record(f"memory/{tag}", value)
        self.logger.dump(step=self.num_timesteps)

    @property
    def episode_returns(self) -> dict[str, float]:
        """Mean return of the latest episodes of each game in training."""
        return self.actors.episodes.returns()

    # Checkpoints: the states of the learner and of the run at a rollout's start

    @property
    def checkpoint_step(self) -> int:
        """The environment step whose state `save` would write now: that of a rollout's start."""
        step: int = self.num_timesteps if self._boundary is None else self._boundary["num_timesteps"]
        return step

    @property
    def movement(self) -> tuple[int, int]:
        """Environment steps and updates made: changes as long as training moves."""
        return self.num_timesteps, self.learner.updates

    @property
    def training_score(self) -> float | None:
        """Mean over games of the normalised returns of their latest episodes, at the state that `save` would write.

        None where a game has not ended a whole window of episodes yet, or has no normalised return.
        """
        episodes = (self._boundary or self._run_state()).get("episodes")
        return None if episodes is None else full_window_score(episodes)

    def _run_state(self) -> dict[str, Any]:
        """All that training needs to go on from here, except what the learner has."""
        state: dict[str, Any] = {
            "num_timesteps": self.num_timesteps,
            "total_timesteps": self._total_timesteps,
            "random": self._random.state(),
            "num_envs": getattr(self, "n_envs", None),
            "task": self.task,
            "consolidation_steps": self.consolidation_steps,
        }
        if self.env is None:
            return state
        standing = self._last_obs is not None
        return {**state, **(self.actors.state(self.stream) if standing else self.actors.statistics())}

    def set_parameters(
        self,
        load_path_or_dict: PathOrFile | TensorDict,
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Take weights from a checkpoint, or from what `get_parameters` returned: as in Stable-Baselines3."""
        parameters = load_path_or_dict
        if not isinstance(parameters, dict):
            parameters = {"policy": read_checkpoint(parameters)["learner"]["policy"]}
        super().set_parameters(parameters, exact_match, device)

    def __getstate__(self) -> Any:
        raise TypeError("an agent holds environments and generators and cannot be pickled: use save and load")

    def save(
        self,
        path: PathOrFile,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write a checkpoint to `path` atomically (suffix ``.ckpt`` if it has none), or into an open binary file.

        Raises:
            OSError: it could not be written; an earlier file at `path` is untouched.
            RunError: processes that share the run have come to different weights.
        """
        if exclude or include:
            raise UserError("a checkpoint is always whole: exclude and include are not supported")
        raise_problems(self.retention.saving_problems())
        states = self.exchange.gather_first([self._boundary or self._run_state(), self.learner.digest()])

        def write() -> None:
            assert states is not None
            if apart := [rank for rank, (_, digest) in enumerate(states) if digest != states[0][1]]:
                raise RunError(
                    f"processes {apart} have other weights than process 0: what they add is not the same"
                )
            write_checkpoint(path, self._content([state for state, _ in states]).plain())

        self.exchange.on_first(write)

    def _content(self, states: Sequence[Mapping[str, Any]]) -> AgentContent:
        """What a checkpoint holds, put together from what all processes said of the run."""
        run, *others = states
        image_shape, num_actions = image_and_actions(self.observation_space, self.action_space)
        return AgentContent(
            algorithm=self.algorithm,
            config=self.config,
            policy_config=self.policy_config,
            image_shape=image_shape,
            num_actions=num_actions,
            seed=self.seed,
            experiment=self.experiment,
            retention=self.retention.name,
            retain=self.retention.config,
            learner=self.learner.state(),
            run={**run, "others": others} if others else run,
        )

    @classmethod
    def load(  # type: ignore[override]  # other arguments come third
        cls: type[SelfAgent],
        path: PathOrFile,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfAgent:
        """Read a checkpoint.

        Args:
            path: what `save` wrote, a path or an open binary file. A path without suffix is also looked for with
                ``.ckpt`` and ``.zip``, under which Stable-Baselines3's `CheckpointCallback` saves.
            env: environments to go on training in; None if the agent shall only predict, or get them by `set_env`.
            device: "cpu", "cuda" or "auto".
            force_reset: start new episodes in `env`. False continues the episodes of the checkpoint, exactly.
            kwargs: `retention`, `retain`, `exchange`, `tensorboard_log` and `verbose`, as for a new agent, and
                hyperparameters in place of stored ones. As in Stable-Baselines3, `custom_objects` may hold such too,
                beside names that are not looked at, and `print_system_info` prints versions.

        Raises:
            CheckpointError: the file is missing, damaged or foreign, of another algorithm, or does not fit `env`.
            UserError: hyperparameters do not fit the number of environments in `env`.
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
        *,
        custom_objects: Mapping[str, Any] | None = None,
        print_system_info: bool = False,
        **kwargs: Any,
    ) -> SelfAgent:
        """As `load`, from what `read_checkpoint` returned for the file called `name`."""
        if content.get("algorithm") != cls.algorithm:
            raise CheckpointError(
                f"{name} holds {shown(content.get('algorithm'), quoted=False).upper()} training, "
                f"not {cls.algorithm.upper()}: "
                "agents.load finds the right class"
            )
        if print_system_info:
            get_system_info()
        known = {field.name for field in fields(cls.config_class)}
        kwargs = {name: value for name, value in (custom_objects or {}).items() if name in known} | kwargs
        parts = AgentContent.read(content, name, cls.config_class)
        kwargs = {"retention": parts.retention, "retain": parts.retain, **kwargs}
        agent = cls(parts.policy_config, env, parts.config, seed=parts.seed, device=device, **kwargs)
        if env is None:
            agent.observation_space, agent.action_space = spaces_of(parts.image_shape, parts.num_actions)
            agent._setup_model()
        spaces = image_and_actions(agent.observation_space, agent.action_space)
        if spaces != (parts.image_shape, parts.num_actions):
            raise CheckpointError(
                f"{name} was trained with images {parts.image_shape} and {parts.num_actions} "
                f"actions, these environments have images {spaces[0]} and {spaces[1]} actions"
            )
        with fitting(name):
            agent.learner.load_state(parts.learner)
            agent._n_updates = agent.learner.updates
            if env is not None:
                agent.actors.follow_learner()
            agent._load_run_state(parts.run, force_reset)
        agent.experiment = parts.experiment
        return agent

    def _load_run_state(self, state: Mapping[str, Any], restart: bool) -> None:
        states, exchange = [state, *state.get("others", [])], self.exchange
        self.num_timesteps = state["num_timesteps"]
        self._total_timesteps = state["total_timesteps"]
        self.task, self.consolidation_steps = state.get("task", 0), state.get("consolidation_steps", 0)
        if exchange.rank < len(states):
            state = states[exchange.rank]
            self._random.load_state(state["random"])
        if not (restart or self.env is None or len(states) == exchange.size):
            raise CheckpointError(
                f"the checkpoint continues {len(states)} processes, not {exchange.size}: "
                "use as many, or force_reset=True"
            )
        if self.env is None:
            self._boundary = dict(state)  # for `save`, and for environments that come later
            return
        if restart:
            self._boundary = None
            self.actors.tell(self.task)
            if "collector" in state:
                self.actors.load_statistics(state)
        else:
            self.stream = self.actors.load_state(state, state["num_envs"])
