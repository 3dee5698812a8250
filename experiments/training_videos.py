"""Videos in the course of a run: what the agent can do at that step, as a file and in TensorBoard."""

from __future__ import annotations

import logging

from stable_baselines3.common.callbacks import BaseCallback

from agents import Agent
from common.stages import stage
from evaluation import Protocol, Recording, record
from evaluation.recording.video import animation_of
from records.config import TrainConfig
from records.directory import RunDirectory
from records.writers import TensorBoardWriter

SECONDS = 10.0
TAG = "videos/agent"
ANIMATION_WIDTH = 480
"""Pixels of the animation in TensorBoard, which holds all of them in one file."""

logger = logging.getLogger(__name__)


class TrainingVideos(BaseCallback):
    """Records all games side by side every so many environment steps, between two rollouts.

    The games are played in environments and with randomness of their own, so training goes as it would without. A video
    that cannot be written is left out: none is worth a run.

    Args:
        config: settings of the run; `video_every` is how often.
        run: videos go to ``videos/step_000000123456.mp4``.
    """

    def __init__(self, config: TrainConfig, run: RunDirectory) -> None:
        super().__init__()
        self._config, self._run = config, run
        self._next = 0

    def _on_training_start(self) -> None:
        self._next = self._first_after(self.model.num_timesteps)

    def _on_rollout_start(self) -> None:
        if self._config.video_every is not None and self.model.num_timesteps >= self._next:
            self._next = self._first_after(self.model.num_timesteps)
            self._record()

    def _on_step(self) -> bool:
        return True

    def _first_after(self, step: int) -> int:
        """The first multiple of `video_every` beyond `step`."""
        every = self._config.video_every or 1
        return (step // every + 1) * every

    def _record(self) -> None:
        agent, config = self.model, self._config
        assert isinstance(agent, Agent)
        step = agent.num_timesteps
        path = self._run.videos / f"step_{step:012d}.mp4"
        try:
            self._run.videos.mkdir(parents=True, exist_ok=True)
            protocol = Protocol(
                config.games,
                config.mode,
                config.evaluation_splits[-1:] or (config.levels,),
                greedy=config.evaluation_greedy,
                seed=config.seed,
            )
            with stage("recording"):
                record(agent, protocol, Recording(str(path), SECONDS))
            animation, width, height = animation_of(path, ANIMATION_WIDTH)
            for writer in self.logger.output_formats:
                if isinstance(writer, TensorBoardWriter):
                    writer.write_picture(TAG, animation, width, height, step)
        except OSError as error:
            logger.warning("warning: no video at step %s (%s): training goes on", step, error)
