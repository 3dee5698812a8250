"""``--processes N``: the same command in several processes of this machine, with PyTorch's launcher in this one."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from agents.place import ALONE
from common.errors import UserError
from experiments.itself import started_as
from experiments.processes import share_problems
from records.config import TrainConfig

AUTO = "auto"
ON_CORES = 2
"""Processes that `auto` means on a processor: with more, nothing has been measured."""
MOST = 1024


def processes_problems(text: str) -> list[str]:
    """What is wrong with a number of processes, or `auto`."""
    if text == AUTO or (text.isdecimal() and len(text) <= len(str(MOST)) and 1 <= int(text) <= MOST):
        return []
    return [f"--processes {text[:20]!r}: give a number from 1 to {MOST}, or {AUTO}"]


def number_of_processes(text: str, config: TrainConfig) -> int:
    """How many processes `text` means for a run.

    `auto` is one for each GPU, or two on a processor with as many cores; fewer where these cannot share the run.

    Raises:
        UserError: so many processes cannot share it.
    """
    if text != AUTO:
        if problems := share_problems(config, int(text)):
            raise UserError("; ".join(problems))
        return int(text)
    on_gpus = config.device != "cpu" and torch.cuda.is_available()
    most = torch.cuda.device_count() if on_gpus else min(ON_CORES, ALONE.cores)
    if ":" in config.device:
        return 1
    return next(count for count in range(max(most, 1), 0, -1) if not share_problems(config, count))


def start_several(program: str, words: Sequence[str], processes: int) -> int:
    """Run `program` with `words` in so many processes until all have ended; returns the first exit code but 0.

    Args:
        program: a Python file, or the name by which an installed package is started.
    """
    # What it has to say is said by the processes themselves, or means what their exit codes mean.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # Each sets the number of its threads by itself; without this the launcher says that it was set for them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)(*started_as(program), *words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as signalled:
        return 128 + int(signalled.sigval)
    return 0
