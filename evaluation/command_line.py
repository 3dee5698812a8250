"""The command line of eval.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
from rich.console import Console

from agents import Agent
from agents.distributed import joined
from agents.exchange import Exchange
from agents.place import ALONE, Place
from common.cli import Flag, Shown, parse_options
from common.config import INLINE
from common.errors import UserError, raise_problems
from envs import expand_games
from evaluation.loading import TrainingInfo, find_checkpoint, load_agent
from evaluation.progress import show_progress
from evaluation.recording.options import Recording, file_problems
from evaluation.recording.record import record
from evaluation.recording.trace import trace_bytes
from evaluation.scoring.protocol import ALL_SPLITS, DEFAULT_NUM_ENVS, Protocol
from evaluation.scoring.results import write_results
from evaluation.scoring.shared import evaluate_together
from evaluation.scoring.table import print_table
from records.config import device_problems

PROGRAM = "python eval.py"
LARGE_TRACE = 10_000_000
"""Bytes above which it is worth saying how a trace gets smaller."""


@dataclass(frozen=True)
class Options:
    """Score a trained agent on training levels and on levels it has never seen.

    Attributes:
        checkpoint: directory of a run, of which the newest checkpoint is taken, one of its times such as RUN@stage1,
            RUN@40000 or RUN@best, or a checkpoint file.
        games: games or task sets to play.
        splits: levels to play: train, test1, test2, test3, all, or A:B for levels A to B-1.
        episodes: episodes of each game and split.
        greedy: take the most likely action; the default is what the run's own evaluation does.
        sample: draw actions, as in training.
        every_level: play each level of a split exactly once, instead of drawing levels with replacement.
        reset: reset rule in place of the trained one: episode, never, or a number of steps.
        mode: distribution of levels: easy, hard, memory, exploration or extreme.
        json: write all scores and episodes to this file.
        seed: of the levels drawn and of the actions drawn.
        num_envs: environments of each game that are stepped together.
        no_scores: only record.
        device: auto, cpu or cuda.
        recording: films and traces, of levels of the first split that the agent was not trained on.
    """

    checkpoint: Annotated[str, Shown("RUN_OR_CHECKPOINT")]
    games: Annotated[tuple[str, ...], Shown("GAME ...", "those it was trained on")] = ()
    splits: Annotated[tuple[str, ...], Shown("SPLIT ...", " ".join(ALL_SPLITS))] = ()
    episodes: Annotated[int, Shown("N")] = Protocol.episodes
    greedy: Flag = False
    sample: Flag = False
    every_level: Flag = False
    reset: Annotated[str | None, Shown("RULE", "as trained")] = None
    mode: Annotated[str | None, Shown("MODE", "that of its training")] = None
    json: Annotated[str | None, Shown("FILE", "none")] = None
    seed: Annotated[int, Shown("N")] = 0
    num_envs: Annotated[int, Shown("N")] = DEFAULT_NUM_ENVS
    no_scores: Flag = False
    device: Annotated[str, Shown("DEVICE")] = "auto"
    recording: Annotated[Recording, INLINE] = field(default_factory=Recording)


def main(words: Sequence[str] | None = None) -> int:
    """Score a checkpoint as the command line says; returns the exit code.

    Args:
        words: the arguments; None for those of the process.

    Raises:
        UserError: something that was asked for cannot be had; nothing was created then.
        OSError: a file cannot be written.
    """
    words = sys.argv[1:] if words is None else words
    with joined() as exchange:
        options = exchange.together(lambda: parse(words))
        return _score(options, exchange)


def _score(options: Options, exchange: Exchange) -> int:
    # A run that is being trained may get another checkpoint at any moment: process 0 says which one it is.
    newest = exchange.on_first(lambda: _newest(options.checkpoint))
    agent, checkpoint, protocol, video_split = exchange.together(
        lambda: prepare(replace(options, checkpoint=newest), exchange.place)
    )
    console = Console(highlight=False)
    if options.no_scores:
        console.print(f"Recording {checkpoint}", soft_wrap=True)
    else:
        console.print(f"Evaluating {checkpoint}", soft_wrap=True)
        with show_progress(console, "evaluating", "episodes") as report:
            results = evaluate_together(agent, protocol, exchange, report)
        print_table(results, console)
        if options.json is not None and exchange.is_first:
            write_results(results, options.json, str(checkpoint))
            console.print(f"Scores: {options.json}", soft_wrap=True)
    if options.recording.wanted and exchange.is_first:
        _record(agent, replace(protocol, splits=(video_split,)), options.recording, checkpoint, console)
    return 0


def _newest(path: str) -> str:
    """The checkpoint that `path` means, or `path` itself where that is none: `prepare` says what is wrong with it."""
    try:
        return str(find_checkpoint(path))
    except UserError:
        return path


def _record(
    agent: Agent, protocol: Protocol, recording: Recording, checkpoint: Path, console: Console
) -> None:
    """Record what is asked for, and say where it is."""
    meta = {"checkpoint": str(checkpoint), "trained_steps": agent.num_timesteps}
    if recording.trace is not None:
        console.print(_trace_note(agent, protocol, recording), soft_wrap=True)
    with show_progress(console, "recording", "frames") as report:
        record(agent, protocol, recording, meta=meta, report=report)
    for path in recording.video_files(protocol.games):
        console.print(f"Video: {path}", soft_wrap=True)
    if recording.trace is not None:
        size = Path(recording.trace).stat().st_size
        console.print(f"Trace: {recording.trace} ({_megabytes(size)})", soft_wrap=True)


def _trace_note(agent: Agent, protocol: Protocol, recording: Recording) -> str:
    """How large a trace will be, and what makes it smaller."""
    step = trace_bytes(
        agent.policy, len(protocol.games), 1, recording.trace_frames, min(1, recording.trace_weights_every)
    )
    if recording.video_episodes:
        return f"A step of the trace takes up to {_megabytes(step)} before it is compressed"
    size = trace_bytes(
        agent.policy,
        len(protocol.games),
        recording.frames,
        recording.trace_frames,
        recording.trace_weights_every,
    )
    note = f"The trace of {recording.frames} steps takes about {_megabytes(size)} before it is compressed"
    if recording.trace_weights_every == 1 and size > LARGE_TRACE:
        note += ", nearly all of it weights: --trace-weights-every 15 keeps those of one step in 15"
    return note


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e6:.0f} MB"


def parse(words: Sequence[str]) -> Options:
    """The options that `words` (without the program's name) give.

    Raises:
        UserError: they cannot be read.
        SystemExit: after showing the help, code 0.
    """
    return parse_options(Options, words, PROGRAM, "checkpoint")


def prepare(options: Options, place: Place = ALONE) -> tuple[Agent, Path, Protocol, str]:
    """The agent, its checkpoint, how to score it, and the levels for a video.

    Args:
        place: which of several processes this is, each of which gets a device and processor cores of its own.

    Raises:
        UserError: naming everything that is wrong with the options.
    """
    problems = [
        *device_problems(options.device),
        *file_problems("--json", options.json),
        *options.recording.file_problems(),
        *options.recording.problems(),
    ]
    if options.greedy and options.sample:
        problems.append("--greedy and --sample contradict each other: give one of them")
    if options.no_scores and not options.recording.wanted:
        problems.append("--no-scores leaves nothing to do: name a file with --video or --trace")
    if options.no_scores and options.json is not None:
        problems.append("--no-scores and --json contradict each other: give one of them")
    if place.size > 1:
        torch.set_num_threads(place.cores)
    device = "cpu" if problems else place.device(options.device)
    loaded = load_agent(options.checkpoint, device, problems)
    training = TrainingInfo() if loaded is None else loaded.training
    if loaded is not None and not (options.games or training.games):
        problems.append(f"{loaded.checkpoint} was not made by train.py, so name what to play: --games maze")
    protocol = make_protocol(options, training)
    # Without an agent or options, there is nothing to be said about games.
    problems += protocol.problems() if protocol.games else replace(protocol, games=("maze",)).problems()
    raise_problems(problems)
    assert loaded is not None
    unseen = [split for split in protocol.splits if split != training.levels]
    return loaded.agent, loaded.checkpoint, protocol, (unseen or protocol.splits)[0]


def make_protocol(options: Options, training: TrainingInfo) -> Protocol:
    """What `options` ask for; what they leave open is as in training."""
    mode = training.mode if options.mode is None else options.mode
    # "train" stands for what this agent was trained on; exploration mode has one level whatever the split.
    splits = tuple(dict.fromkeys((training.levels, *ALL_SPLITS[1:])))
    return Protocol(
        games=expand_games(options.games or training.games),
        mode=mode,
        splits=options.splits or (splits if mode != "exploration" else splits[:1]),
        episodes=options.episodes,
        greedy=training.greedy(options.greedy, options.sample),
        every_level=options.every_level,
        seed=options.seed,
        num_envs=options.num_envs,
        reset=options.reset,
        twist=training.twist,
    )
