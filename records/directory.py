"""Where a run keeps what it makes.

::

    config.json      every setting, resolved
    command.txt      the commands that started and continued it
    versions.json    libraries and git commit
    launch.json      where torchrun or Slurm started it: which launch that was
    origin.json      of a run that began with another agent: the training that had made it
    progress.csv     what TensorBoard shows, one row per entry
    tb/              TensorBoard files
    checkpoints/     step_000000123456.ckpt, the number being environment steps; best.ckpt, a link
    replay/          unrolls that a method of continual learning has stored
    diagnostics/     what went wrong, where something did
    evaluation.json  scores at the end
    continual.jsonl  of tasks one after another: returns on each of them in the course of training
    videos/          one mp4 per game

The directory of a suite holds those of its runs, and suite.json, which says what they are.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agents import CheckpointError, read_checkpoint
from common.errors import UserError
from common.files import (
    PARTIAL_PREFIX,
    PARTIAL_SUFFIX,
    open_regular,
    partial_path,
    read_data,
    read_json,
    write_json,
)
from policies.ops import VARIABLE
from records import launches
from records.config import TrainConfig, from_json, to_json
from records.lock import RunLock

RUNS = Path("runs")
RECORD = "suite.json"
LOCK = ".lock"
DISTRIBUTIONS = ("torch", "gymnasium", "stable-baselines3", "numpy")
PROCGEN = ("procgen", "procgen-mirror")
CHECKPOINT = re.compile(r"step_([0-9]{12,})\.ckpt")
UNFINISHED_SECONDS = 60.0
"""Age from which a directory that nobody holds was left behind, rather than having been made this moment."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UsableCheckpoint:
    """A checkpoint that was read, and its file."""

    path: Path
    content: Mapping[str, Any]

    @property
    def step(self) -> int:
        """The environment step at which it was made."""
        return int(self.content["run"]["num_timesteps"])

    @classmethod
    def read(cls, path: Path) -> UsableCheckpoint:
        """Read `path`. Raises `CheckpointError` if it is not a whole checkpoint of train.py."""
        content = read_checkpoint(path)
        run, experiment = content.get("run"), content.get("experiment")
        if not isinstance(run, Mapping) or not isinstance(run.get("num_timesteps"), int) or not experiment:
            raise CheckpointError(f"{path} was not made by train.py: load it with agents.load")
        return cls(path, content)


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.origin_file = self.path / "origin.json"
        self.progress_file = self.path / "progress.csv"
        self.tensorboard = self.path / "tb"
        self.checkpoints = self.path / "checkpoints"
        self.best_file = self.checkpoints / "best.json"
        self.replay = self.path / "replay"
        self.diagnostics = self.path / "diagnostics"
        self.evaluation_file = self.path / "evaluation.json"
        self.progress_plot = self.path / "progress.svg"
        self.videos = self.path / "videos"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def lock(self) -> RunLock:
        """To be held while something is written here; its directory must exist."""
        return RunLock(self.path / LOCK)

    def create(
        self, config: TrainConfig, command: Sequence[str], origin: Mapping[str, Any] | None = None
    ) -> None:
        """Make the directory and write down what the run is. It appears whole or not at all.

        Args:
            origin: what is known of the agent that the run begins with; None if it begins with fresh weights.

        Raises:
            UserError: it exists.
            OSError: it cannot be written.
        """
        for problem in existing_problems(self.path):
            raise UserError(problem)
        partial = RunDirectory(partial_path(self.path))
        try:
            partial.path.mkdir(parents=True)
            with partial.lock:  # as long as it is held, nobody takes this for what a crash has left
                remove_unfinished(self.path.parent)
                partial.checkpoints.mkdir()
                partial.write_config(config)
                write_json(partial.path / "versions.json", versions())
                partial.add_command(command)
                if origin is not None:
                    write_json(partial.origin_file, origin)
                if (launch := launches.record_of(command)) is not None:
                    write_json(partial.path / launches.FILE, launch)
                partial.path.rename(self.path)
        except BaseException as error:
            shutil.rmtree(partial.path, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            for problem in existing_problems(self.path):  # somebody else has just made it
                raise UserError(problem) from error
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def restore(self, config: TrainConfig) -> None:
        """Make the directory anew if somebody deleted it, as far as it is needed to continue the run."""
        if not self.config_file.exists():
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.write_config(config)

    def add_command(self, command: Sequence[str]) -> None:
        """Add a line to command.txt."""
        with open_regular(self.path / "command.txt", "ab", follow=False) as file:
            # Words that are no text, such as a path of another encoding, stay the bytes that they were.
            file.write(f"{shlex.join(command)}\n".encode("utf-8", "surrogateescape"))

    def write_config(self, config: TrainConfig) -> None:
        """Store the settings, in place of those stored before."""
        write_json(self.config_file, to_json(config))

    def read_config(self) -> TrainConfig:
        """The stored settings.

        Raises:
            UserError: there are none, or they are not settings of this project.
        """
        if not self.config_file.is_file():
            what = "has no config.json" if self.path.is_dir() else "does not exist"
            raise UserError(f"{self.path} is not a run: it {what}; name a directory that train.py made")
        data = read_data(self.config_file)
        try:
            return from_json(data)
        except UserError as error:
            raise UserError(f"{self.config_file} cannot be used: {error}") from error

    def read_origin(self) -> dict[str, Any] | None:
        """What is known of the agent that the run began with; None if it began with fresh weights."""
        return dict(read_data(self.origin_file)) if self.origin_file.is_file() else None

    def checkpoint_at(self, step: int) -> Path:
        """Where the checkpoint of environment step `step` goes; names sort like steps."""
        return self.checkpoints / f"step_{step:012d}.ckpt"

    def usable_checkpoint(self) -> UsableCheckpoint | None:
        """The newest checkpoint that is whole; None if there has never been one.

        Those that are newer and damaged are said to be so, and get another name (suffix ``.damaged``).

        Raises:
            UserError: there are some, and none is whole.
        """
        files = self.checkpoint_files()
        skipped: list[tuple[Path, CheckpointError]] = []
        for path in reversed(files):
            try:
                found = UsableCheckpoint.read(path)
            except CheckpointError as error:
                skipped.append((path, error))
                continue
            for other, fault in skipped:
                logger.warning("warning: skipped a checkpoint: %s", fault)
                if not isinstance(fault.__cause__, OSError):  # else it may be whole, and only out of reach
                    with contextlib.suppress(OSError):
                        other.rename(other.with_name(f"{other.name}.damaged"))
            return found
        if skipped:
            what = f"none of the {len(files)} checkpoints" if len(files) > 1 else "the only checkpoint"
            raise UserError(f"{what} of {self.path} can be used: {skipped[0][1]}")
        return None

    def remove_leftovers(self) -> None:
        """Delete what a crash left half-written. Only for who holds the lock."""
        for directory in (self.path, self.checkpoints):
            for path in directory.glob(".*.partial"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def newest_checkpoint(self) -> Path:
        """The checkpoint of the highest step.

        Raises:
            UserError: there is none.
        """
        found = self.checkpoint_files()
        if not found:
            raise UserError(
                f"{self.path} has no checkpoint to go on from: start the run anew under another name"
            )
        return found[-1]

    def checkpoint_files(self) -> list[Path]:
        """All checkpoints, in the order of their steps."""
        if not self.checkpoints.is_dir():
            return []
        files = [path for path in self.checkpoints.iterdir() if CHECKPOINT.fullmatch(path.name)]
        return sorted(files, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """The environment step in the name of a checkpoint."""
    match = CHECKPOINT.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path.name} is not named like a checkpoint")
    return int(match[1])


def existing_problems(path: str | os.PathLike[str]) -> list[str]:
    """One line if a new run cannot go to `path`."""
    if not os.path.lexists(path):
        return []
    hint = f", or continue it with --resume {path}" if RunDirectory(path).config_file.exists() else ""
    return [f"run directory {path} exists: choose another --run-dir{hint}"]


def new_path(start: str, config: TrainConfig, runs: Path = RUNS) -> Path:
    """A path below `runs` that does not exist, named after what the run started from, the run and the time."""
    games = config.games[0] if len(config.games) == 1 else f"{len(config.games)}games"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"{start}-{games}-{config.policy_name}-{config.algorithm_name}-seed{config.seed}-{stamp}"
    path, number = runs / name, 1
    while os.path.lexists(path):
        number += 1
        path = runs / f"{name}-{number}"
    return path


def remove_unfinished(runs: Path) -> None:
    """Delete what crashes have left in `runs` of run directories that were being made.

    Whoever makes one holds its lock from the start.
    """
    for path in runs.glob(f"{PARTIAL_PREFIX}*{PARTIAL_SUFFIX}"):
        try:
            age = time.time() - (path / LOCK).stat().st_mtime
            if age < UNFINISHED_SECONDS:
                continue
            with RunDirectory(path).lock as lock:
                if lock.supported:
                    shutil.rmtree(path, ignore_errors=True)
        except (OSError, UserError):
            continue  # it is not one, or somebody is making it


# Suites


def read_record(directory: Path) -> dict[str, Any] | None:
    """What the suite.json in `directory` says; None where there is nothing that can be read."""
    try:
        record = read_json(directory / RECORD)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def group_of(name: str) -> str:
    """The group of the run called `name`.

    >>> group_of("reset-50-seed1")
    'reset-50'
    """
    return name.rpartition("-seed")[0]


# What a run was made with


def versions() -> dict[str, Any]:
    """Python, the platform, the libraries and the variable that can move a result, and the commit of this code."""
    procgen = {name: found for name in PROCGEN if (found := _version(name)) is not None}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in DISTRIBUTIONS},
        # The same library under two names: which one is part of the record.
        "procgen": [{"distribution": name, "version": found} for name, found in procgen.items()],
        VARIABLE: os.environ.get(VARIABLE),  # it decides before the configuration does
        "git": git_state(Path(__file__).resolve().parent.parent),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def git_state(directory: Path) -> dict[str, Any] | None:
    """The commit checked out in `directory` and whether tracked files differ from it.

    None if `directory` is not the top of a git checkout, or there is no git.
    """
    top = _git(directory, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != directory.resolve():
        return None
    commit = _git(directory, "rev-parse", "HEAD")
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes)} if commit is not None else None


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
