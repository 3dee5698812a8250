"""Scores and videos of a run: videos in the course of it, scores on seen and unseen levels and videos at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from agents import Agent
from agents.exchange import Exchange
from common.files import atomic_write
from common.stages import stage
from evaluation import (
    Progress,
    Protocol,
    Recording,
    Report,
    evaluate_together,
    print_table,
    record,
    show_progress,
    write_results,
)
from evaluation.recording.video import animation_of
from evaluation.report.progress import progress_plot
from evaluation.scoring.references import print_comparison, references
from records.config import TrainConfig
from records.directory import RunDirectory
from records.writers import TensorBoardWriter

VIDEO_SECONDS = 20.0
TRAINING_VIDEO_SECONDS = 10.0
TAG = "videos/agent"
ANIMATION_WIDTH = 480
"""Pixels of the animation in TensorBoard, which holds all of them in one file."""

logger = logging.getLogger(__name__)


def evaluate_and_record(
    agent: Agent,
    config: TrainConfig,
    run: RunDirectory,
    checkpoint: Path,
    console: Console,
    beat: Callable[[], None] = lambda: None,
    exchange: Exchange | None = None,
) -> None:
    """Score `agent` as `config` says, print the tables, draw how it learned, and record a video of each game.

    The processes of `exchange` share the episodes; process 0 records and writes.

    `checkpoint` is named beside the scores. `beat` is called after each episode and frame; what it raises ends the
    evaluation.

    Raises:
        OSError: scores or videos cannot be written.
    """
    exchange = Exchange() if exchange is None else exchange
    if config.evaluation_episodes is not None:
        protocol = Protocol(
            games=config.games,
            mode=config.mode,
            splits=config.evaluation_splits,
            episodes=config.evaluation_episodes,
            greedy=config.evaluation_greedy,
            twist=config.twist,
        )
        with stage("evaluation"), show_progress(console, "evaluating", "episodes") as progress:
            results = evaluate_together(agent, protocol, exchange, _with(beat, progress), beat)
        console.print()
        print_table(results, console)
        if config.twist is None:
            origin = run.read_origin()
            earlier = 0 if origin is None else int(origin["steps"])
            print_comparison(results, references(results), console, earlier)
        if exchange.is_first:
            write_results(results, run.evaluation_file, str(checkpoint))
    if exchange.is_first:
        with atomic_write(run.progress_plot) as file:
            file.write(progress_plot(run))
    if config.videos and exchange.is_first:
        run.videos.mkdir(exist_ok=True)
        for game in config.games:
            with stage("recording"), show_progress(console, f"recording {game}", "frames") as progress:
                recording = Recording(str(run.videos / f"{game}.mp4"), VIDEO_SECONDS)
                record(agent, _video_protocol(config, (game,)), recording, report=_with(beat, progress))


def _with(beat: Callable[[], None], report: Report) -> Report:
    def beat_and_report(progress: Progress) -> None:
        beat()
        report(progress)

    return beat_and_report


def _video_protocol(config: TrainConfig, games: tuple[str, ...], seed: int = 0) -> Protocol:
    splits = config.evaluation_splits[-1:] or (config.levels,)
    return Protocol(
        games, config.mode, splits, greedy=config.evaluation_greedy, seed=seed, twist=config.twist
    )


class TrainingVideos(BaseCallback):
    """Records all games side by side every so many environment steps, between two rollouts.

    The games are played in environments and with randomness of their own, so training goes as it would without. A video
    that cannot be written is left out: none is worth a run.
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
            with stage("recording"):
                protocol = _video_protocol(config, config.games, config.seed)
                record(agent, protocol, Recording(str(path), TRAINING_VIDEO_SECONDS))
            animation, width, height = animation_of(path, ANIMATION_WIDTH)
            for writer in self.logger.output_formats:
                if isinstance(writer, TensorBoardWriter):
                    writer.write_picture(TAG, animation, width, height, step)
        except OSError as error:
            logger.warning("warning: no video at step %s (%s): training goes on", step, error)
