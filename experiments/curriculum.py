"""An agent walks through the stages of a sequence, exactly and from wherever it was interrupted.

A stage ends at the first end of a rollout at or after its planned one, so plans do not drift. Where it ends, a
checkpoint is written, all tasks are scored, the method of continual learning consolidates, and the environments
change, in this order. A run that is killed anywhere in between goes on from that checkpoint and does the rest again:
what comes after it depends on nothing but it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from agents import Agent
from common.stages import stage as doing
from envs import grouped_procgen, tasks_at_once
from envs.checks import MAX_SEED
from experiments.continual_evaluation import ContinualEvaluation
from experiments.stopping import Stopped
from records.config import TrainConfig
from records.sequence import Stage


def stage_seed(seed: int, number: int) -> int:
    """The seed of the environments of a stage, counted from 1; that of the first is the run's own."""
    if number == 1:
        return seed
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) % MAX_SEED


def current_stage(config: TrainConfig, state: Mapping[str, Any] | None) -> Stage:
    """The stage that a run is in, whose state a checkpoint holds; None for one that has not begun."""
    stages = config.plan.stages
    if state is None:
        return stages[0]
    present = config.plan.stage_at(state["num_timesteps"])
    following = stages[present.number : present.number + 1]
    # A checkpoint at the end of a stage is of before the switch, unless it says otherwise.
    switched = [stage for stage in following if state.get("task", present.task_index) == stage.task_index]
    ended = state["num_timesteps"] == config.plan.at_rollout_end(present.end)
    return switched[0] if ended and switched and len(config.tasks) > 1 else present


def make_environments(
    config: TrainConfig, stage: Stage | None, num_threads: int | None = None, part: tuple[int, int] = (0, 1)
) -> VecEnv:
    """The environments of a stage, in joint training those of all tasks at once; without a stage those of all games.

    `num_threads` None is for what `config` says; `part` is which of how many equal parts are wanted.
    """
    groups, threads = config.env_groups or 1, config.env_threads if num_threads is None else num_threads
    if stage is not None and config.sequence.joint:
        return tasks_at_once(
            config.tasks, config.num_envs, groups=groups, seed=config.seed, num_threads=threads, part=part
        )
    return grouped_procgen(
        config.games if stage is None else [stage.task.game],
        config.num_envs,
        groups=groups,
        mode=config.mode if stage is None else stage.task.mode,
        levels=config.levels if stage is None else stage.task.levels,
        seed=config.seed if stage is None else stage_seed(config.seed, stage.number),
        num_threads=threads,
        part=part,
        twist=config.twist,
    )


class Curriculum:
    """The stages of a run that are left.

    Args:
        config: of the run; it has a sequence.
        agent: stands where `stage` does.
        stage: the one it is in.
        evaluation: scores the tasks.
        learn: calls the agent's `learn` for so many environment steps, the first time from the beginning if told.
        stop_asked: whether the run shall end as soon as it can.
    """

    def __init__(
        self,
        config: TrainConfig,
        agent: Agent,
        stage: Stage,
        evaluation: ContinualEvaluation,
        learn: Callable[[int, bool], object],
        stop_asked: Callable[[], bool],
    ) -> None:
        self._config, self._agent, self._stage = config, agent, stage
        self._evaluation, self._learn, self._stop_asked = evaluation, learn, stop_asked

    def follow(self, is_new: bool) -> None:
        """Learn and switch to the end, or until it is asked to stop.

        Raises:
            OSError: scores cannot be written.
        """
        with contextlib.suppress(Stopped):
            if self._agent.num_timesteps == 0:
                self._evaluation.at_boundary(self._agent, 0)
        with contextlib.suppress(Stopped):  # after a request, `learn` ends at once and saves
            self._follow(is_new)

    def _follow(self, is_new: bool) -> None:
        plan = self._config.plan
        for following in (*plan.stages[self._stage.number :], None):
            end = plan.at_rollout_end(self._stage.end)
            self._agent.decay_span = self._decay_span()
            if self._agent.num_timesteps < end:
                self._learn(end - self._agent.num_timesteps, is_new)
            is_new = False
            if self._agent.num_timesteps < end or self._stop_asked():
                return
            self._evaluation.at_boundary(self._agent, self._stage.number)
            if following is None or not self._switch(following):
                return
            self._stage = following

    def _decay_span(self) -> tuple[int, int]:
        """Between which environment steps a learning rate falls that does so."""
        if self._config.sequence.joint or not self._config.sequence.restart_learning_rate:
            return 0, self._config.total_steps
        return self._stage.begin, self._stage.end

    def _switch(self, following: Stage) -> bool:
        """Go over to the next stage; False if it was asked to stop meanwhile, and nothing has changed."""
        if self._config.sequence.joint:
            return True
        before, after = self._agent.env, make_environments(self._config, following)
        assert before is not None
        sequence = self._config.sequence
        renew = stage_seed(self._config.seed, following.number) if sequence.fresh_core else None
        with doing("consolidating"):
            done = self._agent.change_task(
                after, following.task_index, keep_state=sequence.carry_state, renew=renew
            )
        (before if done else after).close()
        if done and sequence.reset_optimizer:
            self._agent.optimizer.state.clear()
        return done
