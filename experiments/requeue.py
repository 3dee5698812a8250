"""On a cluster: one command that starts a run, goes on with it, and puts its job back into the queue in between."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import UserError
from experiments.suites.plan import differing_settings
from records.config import TrainConfig
from records.directory import RunDirectory
from records.state import is_finished

TIME_IS_UP = tuple(
    # What clusters send shortly before they kill. SIGTERM and Ctrl-C are from somebody who wants an end.
    int(getattr(signal, name))
    for name in ("SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
SECONDS = 60.0
"""Until a scheduler that does not answer is given up."""

logger = logging.getLogger(__name__)


def start_or_continue(
    config: TrainConfig, path: Path, start: Callable[[], int], go_on: Callable[[], int]
) -> int:
    """Call `start`, or `go_on` where the run is there already, or nothing where it has ended; returns the exit code.

    If its time was up, the job is put back into the queue.

    Raises:
        UserError: `path` holds a run with other settings.
    """
    run = RunDirectory(path)
    if not run.config_file.is_file():
        return _requeued(start())
    if different := differing_settings(run, config):
        raise UserError(f"{path} holds a run with other {', '.join(different)}: choose another --run-dir")
    if is_finished(run, config):
        logger.warning("%s has ended: nothing is left to do", path)
        return 0
    return _requeued(go_on())


def _requeued(code: int) -> int:
    job = os.environ.get("SLURM_JOB_ID")
    if job is not None and code - 128 in TIME_IS_UP:
        logger.warning("%s", _ask(["scontrol", "requeue", job]))
    return code


def _ask(command: Sequence[str]) -> str:
    """Run the scheduler's command; returns what to say about it."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"warning: {' '.join(command)} did not work: {error}"
    if done.returncode:
        return f"warning: {' '.join(command)} did not work: {done.stderr.strip() or done.returncode}"
    return f"job {command[-1]} is back in the queue"
