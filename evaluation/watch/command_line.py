"""The command line of `eval.py watch`."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from rich.console import Console

from common.cli import Flag, Shown, parse_options
from common.errors import UserError, raise_problems, shown
from envs import expand_games
from evaluation.intervention import Intervention, parse_intervention
from evaluation.loading import TrainingInfo, checkpoints_beside, load_agent
from evaluation.watch.controls import MAX_SPEED, MIN_SPEED
from evaluation.watch.runner import SessionRunner
from evaluation.watch.savepoint import read_savepoint
from evaluation.watch.server import DEFAULT_HOST, LOOPBACK, serve
from evaluation.watch.session import DEFAULT_SPEED, Session
from evaluation.watch.side import SessionConfig, WatchedAgent
from records.config import device_problems

PROGRAM = "python eval.py watch"
MAX_PORT = 65535
MAX_HISTORY_MB = 1_000_000


@dataclass(frozen=True)
class Options:
    """Watch a policy play in the browser, and watch its weights change.

    Attributes:
        checkpoint: directory of a run, of which the newest checkpoint is taken, one of its times such as RUN@stage1,
            RUN@40000 or RUN@best, or a checkpoint file.
        versus: a second one, or the same one with other settings, which plays the same levels in step.
        games: games or task sets to play.
        split: levels to draw from: train, test1, test2, test3, all, or A:B for levels A to B-1.
        level: play this level again and again instead.
        moment: go on from a session that was saved in the viewer, with the same agents; only moments that you trust.
        mode: distribution of levels: easy, hard, memory, exploration or extreme.
        greedy: take the most likely action; the default is what the run's own evaluation does.
        sample: draw actions, as in training.
        versus_greedy: as greedy, for the second one.
        versus_sample: as sample, for the second one.
        modification: self-modification: on, frozen, or a number of steps after which weights are reset.
        versus_modification: the same for the second one.
        speed: steps per second at first; 0 for as fast as possible.
        seed: of levels and of actions drawn.
        host: address to listen at; others than this machine's own can be reached from outside.
        port: to listen at; 0 for a free one.
        no_browser: do not open the page, only print its address.
        no_render: show the 64 x 64 pixels that the policy sees instead of rendering the games, which is faster.
        history_mb: memory for looking back, in megabytes.
        device: auto, cpu or cuda.
    """

    checkpoint: Annotated[str, Shown("RUN_OR_CHECKPOINT")]
    versus: Annotated[str | None, Shown("RUN_OR_CHECKPOINT", "none")] = None
    games: Annotated[tuple[str, ...], Shown("GAME ...", "those it was trained on")] = ()
    split: Annotated[str | None, Shown("SPLIT", "levels that it was not trained on")] = None
    level: Annotated[int | None, Shown("N", "drawn from the split")] = None
    moment: Annotated[str | None, Shown("FILE", "none")] = None
    mode: Annotated[str | None, Shown("MODE", "that of its training")] = None
    greedy: Flag = False
    sample: Flag = False
    versus_greedy: Flag = False
    versus_sample: Flag = False
    modification: Annotated[str, Shown("HOW")] = "on"
    versus_modification: Annotated[str, Shown("HOW")] = "on"
    speed: Annotated[float, Shown("N")] = DEFAULT_SPEED
    seed: Annotated[int, Shown("N")] = 0
    host: Annotated[str, Shown("ADDRESS")] = DEFAULT_HOST
    port: Annotated[int, Shown("N")] = 0
    no_browser: Flag = False
    no_render: Flag = False
    history_mb: Annotated[int, Shown("N")] = 512
    device: Annotated[str, Shown("DEVICE")] = "auto"


def main(words: Sequence[str]) -> int:
    """Serve the page until it is interrupted; returns the exit code.

    Args:
        words: the arguments behind "watch".

    Raises:
        UserError: something that was asked for cannot be had.
    """
    options = parse_options(Options, words, PROGRAM, "checkpoint")
    console = Console(highlight=False)
    runner = SessionRunner(prepare(options), render=not options.no_render)

    def ready(address: str) -> None:
        console.print(f"Watching at {address}", soft_wrap=True)
        if options.host not in LOOPBACK:
            console.print("Whoever has this address can watch and control it.", soft_wrap=True)
        elif os.environ.get("SSH_CONNECTION"):
            port = urlsplit(address).port
            console.print(
                f"From your own machine: ssh -L {port}:127.0.0.1:{port} THIS_MACHINE, then open the address there",
                soft_wrap=True,
            )
        console.print("Stop with Ctrl-C.")
        if not options.no_browser and has_desktop(os.environ):
            # In a thread of its own: some browsers keep whoever opens them waiting.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    try:
        asyncio.run(serve(runner, options.host, options.port, ready))
    except KeyboardInterrupt:
        console.print("Stopped.")
    return 0


def has_desktop(variables: Mapping[str, str]) -> bool:
    """Whether a browser opened here would be seen: not over SSH, nor on a machine without a screen."""
    if variables.get("SSH_CONNECTION") or variables.get("SSH_TTY"):
        return False
    return sys.platform == "darwin" or bool(variables.get("DISPLAY") or variables.get("WAYLAND_DISPLAY"))


def prepare(options: Options) -> Session:
    """The session that `options` ask for.

    Raises:
        UserError: naming everything that is wrong with the options.
    """
    problems = device_problems(options.device)
    if not 0 <= options.port <= MAX_PORT:
        problems.append(f"--port is {options.port}: give 1 to {MAX_PORT}, or leave it out for a free one")
    if options.speed != 0 and not MIN_SPEED <= options.speed <= MAX_SPEED:
        problems.append(
            f"--speed is {options.speed:g}: give {MIN_SPEED:g} to {MAX_SPEED:g}, or 0 for as fast as possible"
        )
    if not 1 <= options.history_mb <= MAX_HISTORY_MB:
        problems.append(f"--history-mb is {shown(options.history_mb)}: give 1 to {MAX_HISTORY_MB:,}")
    try:
        options.host.encode("idna")
    except UnicodeError:
        problems.append(f"--host {shown(options.host)} is no address: give a name or numbers such as 0.0.0.0")
    of_versus = options.versus_greedy or options.versus_sample or options.versus_modification != "on"
    if options.versus is None and of_versus:
        problems.append(
            "--versus-greedy, --versus-sample and --versus-modification are about a second side: "
            "name it with --versus"
        )
    if (options.greedy and options.sample) or (options.versus_greedy and options.versus_sample):
        problems.append("greedy and sample contradict each other: give one of them")
    device = "cpu" if problems else options.device
    sides = [(options.checkpoint, options.modification, options.greedy, options.sample)]
    if options.versus is not None:
        sides.append(
            (options.versus, options.versus_modification, options.versus_greedy, options.versus_sample)
        )
    watched = [_watched_agent(*side, device, problems) for side in sides]
    if options.moment is not None:
        return _begun_at(options, watched, problems)
    first = watched[0]
    training = first.training if first is not None else TrainingInfo()
    games = expand_games(options.games or training.games)
    if first is not None and not games:
        problems.append(f"{options.checkpoint} was not made by train.py, so name what to play: --games maze")
    mode = training.mode if options.mode is None else options.mode
    unseen = "test1" if training.levels != "test1" else "test2"
    config = SessionConfig(games, mode, options.split or unseen, options.level, options.seed, training.twist)
    if games:
        problems += config.problems()
    raise_problems(problems)
    present = [one for one in watched if one is not None]
    session = Session(present, config, options.history_mb * 2**20)
    session.speed = options.speed or None
    return session


OF_A_MOMENT = ("games", "split", "level", "mode", "seed", "greedy", "sample", "modification")
"""What a moment says itself."""


def _begun_at(options: Options, watched: Sequence[WatchedAgent | None], problems: list[str]) -> Session:
    """The session that goes on from a moment that was saved."""
    names = (*OF_A_MOMENT, *(f"versus_{name}" for name in ("greedy", "sample", "modification")))
    defaults = Options("")
    for name in names:
        if getattr(options, name) != getattr(defaults, name):
            problems.append(f"--{name.replace('_', '-')} is what --moment says itself: leave it out")
    point = None
    try:
        point = read_savepoint(str(options.moment))
    except UserError as error:
        problems.append(str(error))
    raise_problems(problems)
    assert point is not None
    session = point.begin([one for one in watched if one is not None], options.history_mb * 2**20)
    session.speed, session.playing = options.speed or None, False
    session.advance()  # so that the moment is shown
    return session


def _watched_agent(
    path: str, modification: str, asked_greedy: bool, asked_sample: bool, device: str, problems: list[str]
) -> WatchedAgent | None:
    """Adds to `problems` what is wrong."""
    how = Intervention()
    try:
        how = parse_intervention(modification)
    except UserError as error:
        problems.append(str(error))
    loaded = load_agent(path, device, problems)
    if loaded is None:
        return None
    greedy = loaded.training.greedy(asked_greedy, asked_sample)
    checkpoints = checkpoints_beside(loaded.checkpoint)
    return WatchedAgent(loaded.agent, str(loaded.checkpoint), loaded.training, greedy, how, checkpoints)
