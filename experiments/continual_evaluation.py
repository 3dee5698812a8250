"""All tasks of a sequence, scored between its stages and within them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from stable_baselines3.common.callbacks import BaseCallback

from agents import Agent
from common.stages import stage
from envs import Task
from evaluation.progress import Report
from evaluation.recovery import InARow, shown_episodes
from evaluation.tasks import Group, groups, score
from experiments.stopping import Stopped
from records.config import TrainConfig
from records.continual import BETWEEN, BOUNDARY, FILE, RECOVERY, ContinualLog, Measurement
from records.directory import RunDirectory
from records.sequence import TRAINED_LEVELS
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
        """Score every task after so many stages.

        Raises:
            Stopped: it was asked to; what was scored is kept.
            OSError: the file cannot be written.
        """
        self._measure(agent, stages, BOUNDARY, self._config.sequence.boundary_episodes)
        if stages > 0 and not self._config.sequence.joint:
            self._measure_recovery(agent, stages)

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

    def _measure(self, agent: Agent, number: int, kind: str, episodes: int) -> None:
        """Score what has not been scored yet at this step. What is played side by side is written together."""
        step = agent.num_timesteps
        present = {
            (measured.task, measured.split)
            for measured in self._log.read()
            if (measured.step, measured.kind) == (step, kind)
        }
        for group in groups(self._config.tasks, self._config.sequence.evaluation_splits):
            if group.places <= present:
                continue
            if group.places & present:  # a crash has cut the rest off
                self._log.keep(lambda old, places=group.places: not _is_of(old, step, kind, places))  # type: ignore[misc]
            with stage("evaluation"):
                found = self._score(agent, group, number, kind, episodes)
            self._log.append(found)
            _show(agent, found)

    def _score(self, agent: Agent, group: Group, number: int, kind: str, episodes: int) -> list[Measurement]:
        config, report = self._config, _beating(self._beat)
        scores = score(
            agent,
            group,
            episodes,
            config.sequence.evaluation_greedy,
            report,
            num_threads=config.env_threads,
        )
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


def _is_of(measured: Measurement, step: int, kind: str, places: set[tuple[str, str]]) -> bool:
    return (measured.step, measured.kind) == (step, kind) and (measured.task, measured.split) in places


def _show(agent: Agent, found: list[Measurement]) -> None:
    """Put mean returns into TensorBoard, at the step of their weights."""
    values = {f"continual/{one.split}/{one.task}": one.mean for one in found}
    for writer in agent.logger.output_formats:
        if isinstance(writer, TensorBoardWriter):
            writer.write(values, {}, found[0].step)


def _beating(beat: Callable[[], None]) -> Report:
    return lambda progress: beat()
