"""Short runs in processes of their own that can be killed, and the comparison of what they leave."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import read_checkpoint
from common.cli import run_command
from envs import ProcgenVecEnv
from experiments import checkpoints
from experiments.launch import resume, train
from records.config import TrainConfig, from_json
from records.directory import RunDirectory, checkpoint_step

TOTAL_STEPS = 480
ROLLOUT = 40


def tiny_run(**changes: Any) -> TrainConfig:
    """Twelve rollouts of two games with a small SRWM, a checkpoint after each, and a short evaluation."""
    return from_json(
        {
            "games": ["bigfish", "dodgeball"],
            "num_envs": 4,
            "total_steps": TOTAL_STEPS,
            "core": {"width": 8, "heads": 2, "feedforward": 8, "layers": 1},
            "encoder": {"channels": [4], "hidden": 8},
            "agent": {"rollout_steps": 10, "batch_unrolls": 2},
            "checkpoint_every_steps": ROLLOUT,
            "keep_checkpoints": 3,
            "log_every_steps": ROLLOUT,
            "env_threads": 0,
            "env_groups": 1,
            "device": "cpu",
            "evaluation_episodes": 2,
            "evaluation_splits": ["train"],
            "evaluation_greedy": False,
            "videos": False,
            **changes,
        }
    )


def load_everything() -> None:
    """What every process needs, once for all of them: libraries, and the pictures of the games."""
    torch.set_num_threads(1)
    ProcgenVecEnv(["bigfish", "dodgeball"], 2, num_threads=0).close()
    import_module("tensorboard.compat.proto.event_pb2")
    import_module("torch._dynamo")  # optimizers load it


@dataclass
class Life:
    """A process that trains.

    Attributes:
        pid: of the process.
        output: where it prints.
        began: on the monotonic clock.
    """

    pid: int
    output: Path
    began: float

    def wait(self, seconds: float = 600.0) -> int | None:
        """Its exit code (minus the signal that ended it), or None if it still lives after `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        return None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait_for(self, run: RunDirectory, step: int, seconds: float = 600.0) -> None:
        """Until the run has a checkpoint of `step` or later. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            files = run.checkpoint_files()
            if files and checkpoint_step(files[-1]) >= step:
                return
            time.sleep(0.002)
        raise TimeoutError(f"{run} has not come to step {step}: {self.output.read_text()}")


def start(
    run: RunDirectory, output: Path, prepare: Callable[[], None] = lambda: None, **changes: Any
) -> Life:
    """Begin the tiny run in `run`, or continue it if it is there.

    Args:
        run: its directory.
        output: a file for what it prints.
        prepare: called in the new process before anything else: plants the fault.
        changes: of the configuration, where the run begins.
    """
    began = time.monotonic()
    pid = os.fork()
    if pid:
        return Life(pid, output, began)
    code = 70
    try:
        # All libraries are loaded already: a process lives for its run, not for its imports.
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        logging.lastResort = logging.StreamHandler(sys.stderr)
        checkpoints.RETRY_SECONDS = 0.05
        prepare()
        known = run.config_file.exists()
        code = run_command(lambda: resume(run.path) if known else train(tiny_run(**changes), run.path))
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        sys.stdout.flush()
        os._exit(code)


# What a run leaves


def exact_column(tag: str) -> bool:
    """Whether a logged number is the same in every repetition; times and memory are not."""
    return not tag.startswith(("time/", "memory/")) or tag == "time/total_timesteps"


@dataclass(frozen=True)
class Remains:
    """What a finished run has made, as far as it must be the same after any interruption.

    Attributes:
        checkpoint: the last one.
        rows: of progress.csv.
        curves: of TensorBoard, by tag: steps and values.
        scores: of the final evaluation.
    """

    checkpoint: Any
    rows: list[dict[str, str]]
    curves: dict[str, list[tuple[int, float]]]
    scores: Any

    @classmethod
    def of(cls, run: RunDirectory) -> Remains:
        """Read them."""
        with run.progress_file.open(newline="", encoding="utf-8") as file:
            rows = [{k: v for k, v in row.items() if exact_column(k)} for row in csv.DictReader(file)]
        scores = None
        if run.evaluation_file.exists():
            scores = {**json.loads(run.evaluation_file.read_text(encoding="utf-8")), "checkpoint": None}
        content = read_checkpoint(run.checkpoint_at(TOTAL_STEPS))
        return cls(content, rows, _curves(run.tensorboard), scores)

    def differences(self, other: Remains) -> list[str]:
        """Names of what is not the same, bit for bit."""
        found = [f"checkpoint{where}" for where in _different(self.checkpoint, other.checkpoint, "")]
        found += ["progress.csv"] if self.rows != other.rows else []
        found += ["TensorBoard"] if self.curves != other.curves else []
        return found + (["evaluation.json"] if self.scores != other.scores else [])


def _curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    module = import_module("tensorboard.backend.event_processing.event_accumulator")

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = module.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if exact_column(tag)
    }


def _different(one: Any, other: Any, where: str) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [place for key in one for place in _different(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return [] if np.array_equal(one, other) else [where]
    return [] if repr(one) == repr(other) else [where]
