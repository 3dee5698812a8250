"""Checkpoints that are damaged, or made to do harm."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import CheckpointError, read_checkpoint
from agents.checkpoint import FORMAT
from benchmarks.faults.process import TOTAL_STEPS
from benchmarks.faults.workspace import Outcome, Workspace


def truncation(workspace: Workspace) -> Outcome:
    """A checkpoint cut off at every kilobyte is refused in one line."""
    outcome = Outcome()
    data = workspace.undisturbed.checkpoint_at(TOTAL_STEPS).read_bytes()
    for length in range(0, len(data), 1024):
        outcome.count(_refusal_problems(workspace, data[:length]))
    outcome.more |= {"file_kb": len(data) // 1024}
    return outcome


def flipped_bits(workspace: Workspace) -> Outcome:
    """A checkpoint with one bit flipped is refused in one line."""
    outcome = Outcome()
    data = bytearray(workspace.undisturbed.checkpoint_at(TOTAL_STEPS).read_bytes())
    for _ in range(workspace.flips):
        place, bit = workspace.random.randrange(len(data)), 1 << workspace.random.randrange(8)
        data[place] ^= bit
        outcome.count(_refusal_problems(workspace, bytes(data)))
        data[place] ^= bit
    return outcome


def _refusal_problems(workspace: Workspace, data: bytes) -> list[str]:
    path = workspace.folder / "damaged.ckpt"
    path.write_bytes(data)
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        return ["more than a line"] if "\n" in str(error) else []
    except BaseException as error:
        return [repr(error)]
    return ["accepted"]


def damaged_newest(workspace: Workspace) -> Outcome:
    """The newest checkpoints of a run are damaged: it goes on from the newest whole one, and says so."""
    outcome = Outcome()
    for how_many in (1, 2):
        run = workspace.run()
        shutil.copytree(workspace.undisturbed.path, run.path)
        for path in run.checkpoint_files()[-how_many:]:
            data = bytearray(path.read_bytes())
            data[workspace.random.randrange(len(data))] ^= 1
            path.write_bytes(data)
        problems = workspace.finish(run)
        said = workspace.output(run).read_text()
        outcome.count(problems + ([] if said.count("skipped a checkpoint") == how_many else [said[:300]]))
    return outcome


class _Bomb:
    """Unpickling it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def code_in_files(workspace: Workspace) -> Outcome:
    """Pickles and archives that would run a command when they are loaded do not."""
    outcome, mark = Outcome(), workspace.folder / "exploded"
    path = workspace.folder / "bomb.ckpt"
    calls: list[tuple[Any, ...]] = [
        (os.system, f"touch {mark}"),
        (subprocess.call, ["touch", str(mark)]),
        (exec, f"open({str(mark)!r}, 'w')"),
        (eval, f"open({str(mark)!r}, 'w')"),
        (Path.touch, mark),
        (np.load, str(mark)),
        (torch.load, str(mark)),
        (bytearray, 1 << 40),
    ]
    for function, *arguments in calls:
        bomb = _Bomb(function, *arguments)
        parts = [bomb, [bomb], {"format": FORMAT, "version": 1, "meta": "{}", "tensors": {"0": bomb}}]
        for part in parts:
            for write in (
                lambda part: path.write_bytes(pickle.dumps(part, 2)),
                lambda part: path.write_bytes(pickle.dumps(part)),
                lambda part: torch.save(part, path),
                lambda part: torch.save(part, path, _use_new_zipfile_serialization=False),
                lambda part: torch.save(part, path, pickle_protocol=4),
            ):
                write(part)
                problems = _refusal_problems(workspace, path.read_bytes())
                outcome.count(problems + (["it ran"] if mark.exists() else []))
    return outcome
