"""All tasks of a sequence, scored between its stages and within them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from stable_baselines3.common.callbacks import BaseCallback

from agents import Agent
from common.stages import stage
from envs import Task
from evaluation.plasticity import NUMBERS, measure
from evaluation.progress import Report
from evaluation.recovery import Condition, InARow, play_in_a_row, policies_under, shown_episodes
from evaluation.tasks import Group, groups, score
from experiments.stopping import Stopped
from records.config import TrainConfig
from records.continual import BETWEEN, BOUNDARY, FILE, PLASTICITY, RECOVERY, ContinualLog, Measurement, Place
from records.directory import RunDirectory
from records.sequence import TRAINED_LEVELS, Stage
from records.writers import TensorBoardWriter

logger = logging.getLogger(__name__)


class ContinualEvaluation(BaseCallback):
    """Scores every task before the first stage, after each (`at_boundary`), and within them as the settings say.

    It plays in environments and with randomness of its own, so training goes as it would without. What is in the
    run's file already is not played again; the file is the same however often the run was interrupted.
    """

    def __init__(self, config: TrainConfig, run: RunDirectory, beat: Callable[[], None]) -> None:
        """`beat` is called after each step of the games; it raises `Stopped` after a request."""
        super().__init__()
        self._config, self._plan, self._beat = config, config.plan, beat
        self._log = ContinualLog(run.path / FILE)

    def continue_from(self, step: int | None) -> None:
        """Forget what was measured after `step`, from which the run goes on; None where it begins anew.

        Raises:
            OSError: the file cannot be written.
        """
        self._log.keep(lambda measured: step is not None and measured.step <= step)

    def at_boundary(self, agent: Agent, stages: int) -> None:
        """Score every task after so many stages, and look at the network and at what comes back by playing.

        Raises:
            Stopped: it was asked to; what was scored is kept.
            OSError: the file cannot be written.
        """
        if stages > 0 and not self._config.sequence.joint:
            self._measure_plasticity(agent, self._plan.stages[stages - 1])
            self._measure_recovery(agent, self._plan.stages[:stages])
        # Last, since a stage that has these scores is taken for one that has all.
        self._measure(agent, stages, BOUNDARY, self._config.sequence.boundary_episodes)

    def _on_rollout_start(self) -> None:
        agent = self.model
        assert isinstance(agent, Agent)
        step = agent.num_timesteps
        number = self._plan.stage_at(step).number
        self.logger.record("sequence/stage", number)
        if not self._plan.evaluates_at(step):
            return
        try:
            self._measure(agent, number, BETWEEN, self._config.sequence.evaluation_episodes)
        except Stopped:
            return  # training ends at its next step
        except OSError as error:
            logger.warning("warning: no evaluation at step %s (%s): training goes on", step, error)

    def _on_step(self) -> bool:
        return True

    def _once(
        self, step: int, kind: str, places: set[Place], make: Callable[[], list[Measurement]]
    ) -> list[Measurement]:
        """Measure and write what belongs together, unless it is written already; returns what is new."""
        present = {old.place for old in self._log.read() if (old.step, old.kind) == (step, kind)}
        if places <= present:
            return []
        if places & present:  # a crash has cut the rest off
            self._log.keep(lambda old: (old.step, old.kind) != (step, kind) or old.place not in places)
        with stage("evaluation"):
            found = make()
        self._log.append(found)
        return found

    def _measure(self, agent: Agent, number: int, kind: str, episodes: int) -> None:
        """Score all tasks. What is played side by side is written together: rounding may depend on the company."""
        for group in groups(self._config.tasks, self._config.sequence.evaluation_splits):
            make = partial(self._score, agent, group, number, kind, episodes)
            _show(agent, self._once(agent.num_timesteps, kind, group.places, make))

    def _score(self, agent: Agent, group: Group, number: int, kind: str, episodes: int) -> list[Measurement]:
        config, report = self._config, _beating(self._beat)
        greedy = config.sequence.evaluation_greedy
        scores = score(agent, group, episodes, greedy, report, num_threads=config.env_threads)
        return [
            Measurement(
                agent.num_timesteps,
                number,
                kind,
                str(task),
                group.split,
                tuple(episode.score for episode in found.episodes),
                sum(episode.length for episode in found.episodes),
            )
            for (_, task), found in zip(group.tasks, scores, strict=True)
        ]

    def _measure_plasticity(self, agent: Agent, ended: Stage) -> None:
        """Look at the network while it plays the task of the stage that has ended."""
        step, task = agent.num_timesteps, str(ended.task)

        def make() -> list[Measurement]:
            report, threads = _beating(self._beat), self._config.env_threads
            numbers = measure(agent, ended.task, ended.task_index, report, num_threads=threads)
            return [
                Measurement(step, ended.number, PLASTICITY, task, TRAINED_LEVELS, (value,), 0, name)
                for name, value in numbers.items()
            ]

        self._once(step, PLASTICITY, {(task, TRAINED_LEVELS, name, 0) for name in NUMBERS}, make)

    def _measure_recovery(self, agent: Agent, stages: Sequence[Stage]) -> None:
        """Play each task that was left for several episodes in a row, under each condition of its memory."""
        episodes, present = self._config.sequence.recovery_episodes, stages[-1]
        if episodes is None:
            return
        old = {stage.task_index: stage.task for stage in stages if stage.task_index != present.task_index}
        for condition in policies_under(agent, agent.actors.collector.core_state):
            for index, task in sorted(old.items()):
                places = {
                    (str(task), TRAINED_LEVELS, condition.name, episode)
                    for episode in shown_episodes(episodes)
                }
                make = partial(self._recover, agent, condition, task, index, present.number, episodes)
                self._once(agent.num_timesteps, RECOVERY, places, make)

    def _recover(
        self, agent: Agent, condition: Condition, task: Task, index: int, number: int, episodes: int
    ) -> list[Measurement]:
        greedy, threads = self._config.sequence.evaluation_greedy, self._config.env_threads
        report = _beating(self._beat)
        found = play_in_a_row(condition, task, episodes, greedy, index, report, num_threads=threads)
        return _recovery(agent.num_timesteps, number, task, condition.name, found)


def _recovery(step: int, number: int, task: Task, condition: str, found: InARow) -> list[Measurement]:
    """A line for each episode that is looked at; the steps of all of them stand in the first."""
    return [
        Measurement(
            step,
            number,
            RECOVERY,
            str(task),
            TRAINED_LEVELS,
            tuple(found.returns[:, episode - 1].tolist()),
            found.steps if episode == 1 else 0,
            condition,
            episode,
        )
        for episode in shown_episodes(found.returns.shape[1])
    ]


def _show(agent: Agent, found: list[Measurement]) -> None:
    """Put mean returns into TensorBoard, at the step of their weights."""
    if not found:
        return
    values = {f"continual/{one.split}/{one.task}": one.mean for one in found}
    for writer in agent.logger.output_formats:
        if isinstance(writer, TensorBoardWriter):
            writer.write(values, {}, found[0].step)


def _beating(beat: Callable[[], None]) -> Report:
    return lambda progress: beat()
