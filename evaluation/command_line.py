"""The command line of eval.py."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

import agents
from agents import Agent
from common.errors import UserError, unknown_name
from envs import expand_games
from envs.native import FRAMES_PER_SECOND
from evaluation.evaluator import evaluate
from evaluation.progress import show_progress
from evaluation.protocol import ALL_SPLITS, DEFAULT_SLOTS, Protocol
from evaluation.rebuild import Training, find_checkpoint, training_of
from evaluation.recording import DEFAULT_FRAMES, record
from evaluation.subject import agent_problems
from evaluation.table import print_table, write_json
from experiments.cli import without_box
from experiments.problems import raise_problems
from experiments.validation import device_problems

PROGRAM = "python eval.py"


def _words(metavar: str, default: str) -> object:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


_Flag = tyro.conf.FlagCreatePairsOff[bool]


@dataclass(frozen=True)
class Options:
    """Score a trained agent on training levels and on levels it has never seen.

    Attributes:
        checkpoint: directory of a run, of which the newest checkpoint is taken, or a checkpoint file.
        games: games or task sets to play.
        splits: levels to play: train, test1, test2, test3, all, or A:B for levels A to B-1.
        episodes: episodes of each game and split.
        greedy: take the most likely action (the default, as in the paper's final test).
        sample: draw actions, as in training.
        every_level: play each level of a split exactly once, instead of drawing levels with replacement.
        reset: reset rule in place of the trained one: episode, never, or a number of steps.
        mode: distribution of levels: easy, hard, memory, exploration or extreme.
        video: record the agent on levels of the first split that it was not trained on, as an mp4 file.
        video_seconds: length of that video.
        json: write all scores and episodes to this file.
        seed: of the levels drawn and of the actions drawn.
        slots: environments of each game that are stepped together.
        device: auto, cpu or cuda.
    """

    checkpoint: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN_OR_CHECKPOINT")]
    games: Annotated[tuple[str, ...], _words("GAME ...", "those it was trained on")] = ()
    splits: Annotated[tuple[str, ...], _words("SPLIT ...", " ".join(ALL_SPLITS))] = ()
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = Protocol.episodes
    greedy: Annotated[_Flag, tyro.conf.arg(help_behavior_hint="")] = False
    sample: Annotated[_Flag, tyro.conf.arg(help_behavior_hint="")] = False
    every_level: Annotated[_Flag, tyro.conf.arg(help_behavior_hint="")] = False
    reset: Annotated[str | None, _words("RULE", "as trained")] = None
    mode: Annotated[str | None, _words("MODE", "that of its training")] = None
    video: Annotated[str | None, _words("FILE.mp4", "none")] = None
    video_seconds: Annotated[int, tyro.conf.arg(metavar="N")] = DEFAULT_FRAMES // FRAMES_PER_SECOND
    json: Annotated[str | None, _words("FILE", "none")] = None
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    slots: Annotated[int, tyro.conf.arg(metavar="N")] = DEFAULT_SLOTS
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "auto"


def main(words: Sequence[str] | None = None) -> int:
    """Score a checkpoint as the command line says; returns the exit code.

    Args:
        words: the arguments; None for those of the process.

    Raises:
        UserError: something that was asked for cannot be had; nothing was created then.
        OSError: a file cannot be written.
    """
    options = parse(sys.argv[1:] if words is None else words)
    agent, checkpoint, protocol, video_split = prepare(options)
    console = Console(highlight=False)
    console.print(f"Evaluating {checkpoint}", soft_wrap=True)
    with show_progress(console, "evaluating", "episodes") as progress:
        results = evaluate(agent, protocol, progress)
    print_table(results, console)
    if options.json is not None:
        write_json(results, options.json, str(checkpoint))
        console.print(f"Scores: {options.json}", soft_wrap=True)
    if options.video is not None:
        with show_progress(console, "recording", "frames") as progress:
            record(
                agent,
                protocol.games,
                options.video,
                mode=protocol.mode,
                levels=video_split,
                frames=options.video_seconds * FRAMES_PER_SECOND,
                greedy=protocol.greedy,
                seed=protocol.seed,
                reset=protocol.reset,
                progress=progress,
            )
        console.print(f"Video: {options.video}", soft_wrap=True)
    return 0


def parse(words: Sequence[str]) -> Options:
    """The options that `words` (without the program's name) give.

    Raises:
        UserError: they cannot be read.
        SystemExit: after showing the help, code 0.
    """
    screen = io.StringIO()
    try:
        with contextlib.redirect_stderr(screen):
            options, unknown = tyro.cli(Options, prog=PROGRAM, args=words, return_unknown_args=True)
    except SystemExit as exit:
        if not exit.code:
            raise
        if "Required options" in screen.getvalue():
            raise UserError(f"name a run or a checkpoint: {PROGRAM} RUN_OR_CHECKPOINT") from None
        raise UserError(f"{without_box(screen.getvalue())}; see {PROGRAM} --help") from None
    if unknown:
        known = ["--" + item.name.replace("_", "-") for item in fields(Options) if item.name != "checkpoint"]
        names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if not names:
            raise UserError(
                f"unexpected {' '.join(unknown)}: name one run or checkpoint; see {PROGRAM} --help"
            )
        raise_problems([unknown_name("option", name, known) for name in names])
    return options


def prepare(options: Options) -> tuple[Agent, Path, Protocol, str]:
    """The agent, its checkpoint, how to score it, and the levels for a video.

    Raises:
        UserError: naming everything that is wrong with the options.
    """
    problems = [
        *device_problems(options.device),
        *_file_problems("--json", options.json),
        *_file_problems("--video", options.video, ".mp4"),
    ]
    if options.greedy and options.sample:
        problems.append("--greedy and --sample contradict each other: give one of them")
    if options.video_seconds < 1:
        problems.append(f"--video-seconds is {options.video_seconds}: give 1 or more")
    agent, checkpoint, training = None, Path(options.checkpoint), Training()
    try:
        checkpoint = find_checkpoint(checkpoint)
        agent = agents.load(checkpoint, device="cpu" if problems else options.device)
    except UserError as error:
        problems.append(str(error))
    else:
        training = training_of(agent)
        problems += agent_problems(agent)
        if not (options.games or training.games):
            problems.append(f"{checkpoint} was not made by train.py, so name what to play: --games maze")
    protocol = make_protocol(options, training)
    # Without an agent or options, there is nothing to be said about games.
    problems += protocol.problems() if protocol.games else replace(protocol, games=("maze",)).problems()
    raise_problems(problems)
    assert agent is not None
    unseen = [split for split in protocol.splits if split != training.levels]
    return agent, checkpoint, protocol, (unseen or protocol.splits)[0]


def make_protocol(options: Options, training: Training) -> Protocol:
    """What `options` ask for; what they leave open is as in training."""
    mode = training.mode if options.mode is None else options.mode
    # "train" stands for what this agent was trained on; exploration mode has one level whatever the split.
    splits = tuple(dict.fromkeys((training.levels, *ALL_SPLITS[1:])))
    return Protocol(
        games=expand_games(options.games or training.games),
        mode=mode,
        splits=options.splits or (splits if mode != "exploration" else splits[:1]),
        episodes=options.episodes,
        greedy=not options.sample,
        every_level=options.every_level,
        seed=options.seed,
        slots=options.slots,
        reset=options.reset,
    )


def _file_problems(option: str, name: str | None, suffix: str = "") -> list[str]:
    """One line if a file to be written cannot be."""
    if name is None:
        return []
    path = Path(name)
    if path.is_dir():
        return [f"{option} {path} is a directory: name a file"]
    if suffix and path.suffix.lower() != suffix:
        return [f"{option} {path} must end in {suffix}"]
    if not path.parent.is_dir():
        return [f"{option} {path} cannot be written, there is no directory {path.parent}: create it first"]
    if not os.access(path.parent, os.W_OK):
        return [f"{option} {path} cannot be written, {path.parent} is read-only: choose another directory"]
    return []
