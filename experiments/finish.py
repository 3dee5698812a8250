"""What a run ends with: scores on training and unseen levels, and videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from agents import Agent
from common.stages import stage
from evaluation import (
    Progress,
    Protocol,
    Recording,
    Report,
    evaluate,
    print_table,
    record,
    show_progress,
    write_results,
)
from records.config import TrainConfig
from records.directory import RunDirectory

VIDEO_SECONDS = 20.0


def evaluate_and_record(
    agent: Agent,
    config: TrainConfig,
    run: RunDirectory,
    checkpoint: Path,
    console: Console,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Score `agent` as `config` says, print the table, and record a video of each game.

    Args:
        agent: as it is in `checkpoint`.
        config: settings of the run.
        run: where scores and videos go.
        checkpoint: is named beside the scores.
        console: where progress and table are shown.
        beat: called after each episode and frame; what it raises ends the evaluation.

    Raises:
        OSError: scores or videos cannot be written.
    """
    if config.evaluation_episodes is not None:
        protocol = Protocol(
            games=config.games,
            mode=config.mode,
            splits=config.evaluation_splits,
            episodes=config.evaluation_episodes,
            greedy=config.evaluation_greedy,
        )
        with stage("evaluation"), show_progress(console, "evaluating", "episodes") as progress:
            results = evaluate(agent, protocol, _with(beat, progress))
        console.print()
        print_table(results, console)
        write_results(results, run.evaluation_file, str(checkpoint))
    if config.videos:
        run.videos.mkdir(exist_ok=True)
        for game in config.games:
            with stage("recording"), show_progress(console, f"recording {game}", "frames") as progress:
                protocol = Protocol(
                    (game,),
                    config.mode,
                    config.evaluation_splits[-1:] or (config.levels,),
                    greedy=config.evaluation_greedy,
                )
                recording = Recording(str(run.videos / f"{game}.mp4"), VIDEO_SECONDS)
                record(agent, protocol, recording, report=_with(beat, progress))


def _with(beat: Callable[[], None], report: Report) -> Report:
    def beat_and_report(progress: Progress) -> None:
        beat()
        report(progress)

    return beat_and_report
