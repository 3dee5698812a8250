"""Short runs in processes of their own, which can be killed."""

from __future__ import annotations

import contextlib
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

import torch

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
class Process:
    """A process that trains.

    Attributes:
        pid: Its number.
        output: The file that it prints to.
        began: When it was started, on the monotonic clock.
    """

    pid: int
    output: Path
    began: float

    def wait(self, seconds: float = 600.0) -> int | None:
        """Its exit code (minus the signal that ended it), or None if it still runs after `seconds`."""
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
) -> Process:
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
        return Process(pid, output, began)
    code = 70
    try:
        # All libraries are loaded already: a process takes the time of its run, not of its imports.
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
