"""Which checkpoint a text names: a file, a run's newest one, or one of a certain time in a run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from agents.checkpoint import SUFFIX, existing_checkpoint
from common.errors import UserError
from records.directory import RunDirectory, checkpoint_step

AT = "@"
"""Between a run and the time in it: RUN@stage2, RUN@40000, RUN@best."""


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The newest checkpoint of a run directory, or the one that ``RUN@WHEN`` names; else `path` itself.

    WHEN is ``stage2`` for the end of the second stage of a sequence, a number of environment steps, or ``best``.

    Raises:
        UserError: there is nothing, a directory without checkpoints, or no checkpoint of that time.
    """
    text = os.fspath(path)
    if AT in text and not os.path.lexists(text):
        run, _, when = text.rpartition(AT)
        return _checkpoint_of(RunDirectory(run), when)
    path = Path(path)
    if not existing_checkpoint(path).exists():
        raise UserError(
            f"{path} does not exist: name the directory of a run, a {SUFFIX} file, or a time in a run such as "
            f"RUN{AT}stage1"
        )
    if not path.is_dir():
        return path
    return _files(RunDirectory(path))[-1]


def _files(run: RunDirectory) -> list[Path]:
    found = run.checkpoint_files()
    if not found:
        raise UserError(
            f"{run} holds no checkpoints: name the directory of a run of train.py, or a {SUFFIX} file"
        )
    return found


def _checkpoint_of(run: RunDirectory, when: str) -> Path:
    if not run.path.is_dir():
        raise UserError(f"{run} does not exist: name the directory of a run before the {AT}")
    files = _files(run)
    if when == "best":
        best = run.checkpoints / "best.ckpt"
        if not best.exists():
            raise UserError(f"{run} has no best checkpoint: name it alone for its newest one")
        return best
    stage = re.fullmatch(r"stage([0-9]+)", when)
    if stage is None and not when.isdecimal():
        raise UserError(
            f"{run}{AT}{when} names no time: write {AT}stage1, {AT}best, or a number of environment steps"
        )
    step = int(when) if stage is None else _end_of_stage(run, int(stage[1]))
    path = run.checkpoint_at(step)
    if path not in files:
        there = ", ".join(f"{checkpoint_step(file)}" for file in files[-8:])
        raise UserError(f"{run} has no checkpoint of step {step} ({when}): there are {there}")
    return path


def _end_of_stage(run: RunDirectory, number: int) -> int:
    config = run.read_config()
    if not config.sequence.active:
        raise UserError(f"{run} has no stages: its tasks do not come one after another")
    ends = {stage: step for step, stage in config.plan.boundaries().items()}
    if number not in ends:
        raise UserError(f"{run} has no stage {number}: its stages are 1 to {max(ends)}")
    return ends[number]
