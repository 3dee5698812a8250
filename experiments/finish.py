"""What a run ends with: scores on training and unseen levels, and videos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from agents import Agent
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
        with show_progress(console, "evaluating", "episodes") as progress:
            results = evaluate(agent, protocol, _with(beat, progress))
        console.print()
        print_table(results, console)
        write_results(results, run.evaluation_file, str(checkpoint))
    if config.videos:
        run.videos.mkdir(exist_ok=True)
        for game in config.games:
            with show_progress(console, f"recording {game}", "frames") as progress:
                protocol = Protocol(
                    (game,),
                    config.mode,
                    config.evaluation_splits[-1:] or (config.levels,),
                    greedy=config.evaluation_greedy,
                )
                recording = Recording(str(run.videos / f"{game}.mp4"), VIDEO_SECONDS)
                record(agent, protocol, recording, report=_with(beat, progress))


def is_finished(config: TrainConfig, run: RunDirectory, step: int) -> bool:
    """Whether a run that has come to `step` has nothing left to do: scores and videos, where asked for, are there."""
    if step < config.total_steps or (config.evaluation_episodes is None and not config.videos):
        return False
    evaluated = config.evaluation_episodes is None or _evaluated_step(run) == step
    recorded = not config.videos or all((run.videos / f"{game}.mp4").exists() for game in config.games)
    return evaluated and recorded


def _evaluated_step(run: RunDirectory) -> int | None:
    """The environment step that the stored scores belong to: they may be of before the run was extended."""
    try:
        step = json.loads(run.evaluation_file.read_text(encoding="utf-8"))["agent"]["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


def _with(beat: Callable[[], None], report: Report) -> Report:
    def beat_and_report(progress: Progress) -> None:
        beat()
        report(progress)

    return beat_and_report
