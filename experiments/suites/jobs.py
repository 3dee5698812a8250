"""How the runs of a suite are started: as processes of this machine, or as jobs of a cluster through submitit."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import experiments
from common.errors import UserError
from common.files import open_regular, write_json
from experiments.itself import started_as
from records.directory import RunDirectory

TRAIN = Path(experiments.__file__).resolve().parent.parent / "train.py"
"""The program of a checkout; an installed package has none."""
CLUSTERS = ("slurm", "local")
TIMEOUTS = 1000
"""How often a job may reach its time limit, or be preempted, and be put into the queue again."""


class Started(Protocol):
    """A run that was started, and has not ended as far as is known."""

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""

    def send_signal(self, number: int) -> None:
        """Ask it to stop (SIGTERM), or end it (SIGKILL)."""


class Starter(Protocol):
    """Starts runs."""

    def start(self, words: Sequence[str], run: RunDirectory, log: Path, lock: int) -> Started:
        """Start `train.py` with `words`, or go on with what an earlier command has started of `run`.

        Args:
            log: a file for what it prints.
            lock: a file descriptor that a process of this machine shall inherit, and hold as long as it lives.
        """

    @property
    def outlives_us(self) -> bool:
        """Whether runs go on when this command ends."""


def train_command(
    program: str, words: Sequence[str], processes: int, meeting: Sequence[str] = ("--standalone",)
) -> list[str]:
    """The command line of train.py, `program`, in so many processes, which `meeting` tells torchrun how to find."""
    if processes == 1 and tuple(meeting) == ("--standalone",):
        return [sys.executable, *started_as(program), *words]
    launcher = [sys.executable, "-m", "torch.distributed.run", *meeting, "--nproc-per-node", str(processes)]
    return [*launcher, *started_as(program), *words]


@dataclass(frozen=True)
class LocalStarter:
    """Starts processes of this machine, `at_once` side by side, each run in `processes` of them."""

    at_once: int = 1
    processes: int = 1
    outlives_us = False

    def start(self, words: Sequence[str], run: RunDirectory, log: Path, lock: int) -> subprocess.Popen[bytes]:
        with open_regular(log, "ab", follow=False) as output:
            return subprocess.Popen(
                train_command(str(TRAIN), words, self.processes),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                pass_fds=(lock,),
                # Ctrl-C in the terminal reaches this command only, which passes it on.
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self.at_once > 1:
            # Side by side, runs share the processors instead of each taking all of them.
            share = max(1, (os.cpu_count() or 1) // self.at_once)
            environment.setdefault("OMP_NUM_THREADS", str(share))
        return environment


# Clusters


@dataclass
class RunJob:
    """What a job of a cluster does, on each of its nodes: one run, begun or continued.

    Attributes:
        program: train.py.
        words: its arguments, where the run begins.
        run_dir: of the run, on a file system that all machines share.
        log: file for what it prints.
        processes: that share the run on each node.
    """

    program: str
    words: tuple[str, ...]
    run_dir: str
    log: str
    processes: int = 1
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __call__(self) -> int:
        """Make the run. Raises `RuntimeError` with the exit code of train.py if that is not 0."""
        environment = importlib.import_module("submitit").JobEnvironment()
        # A run that was killed before its first checkpoint is there, and begins anew when it is continued.
        known = RunDirectory(self.run_dir).config_file.is_file()
        words = ("--resume", self.run_dir) if known else self.words
        with open_regular(Path(self.log), "ab", follow=False) as output:
            self._child = subprocess.Popen(
                train_command(self.program, words, self.processes, meeting(environment)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        code = self._child.wait()
        if code:
            raise RuntimeError(f"train.py ended with {code}")
        return code

    def checkpoint(self) -> Any:
        """Called by submitit when the job is preempted or its time is over: save, and be put into the queue again."""
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            # Not `wait`: this runs in a signal handler, above a `wait` that holds the lock of both.
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        again = RunJob(self.program, self.words, self.run_dir, self.log, self.processes)
        return importlib.import_module("submitit").helpers.DelayedSubmission(again)


def meeting(environment: Any) -> tuple[str, ...]:
    """How torchrun finds its peers on the nodes of a job, as submitit's `JobEnvironment` describes it."""
    if environment.num_nodes == 1:
        return ("--standalone",)
    job = str(environment.job_id)
    port = 20_000 + int("".join(filter(str.isdigit, job)) or 0) % 20_000
    return (
        *("--nnodes", str(environment.num_nodes), "--node-rank", str(environment.node), "--rdzv-id", job),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{environment.hostnames[0]}:{port}"),
    )


@dataclass
class ClusterJob:
    """A job of a cluster as something that was started."""

    job: Any

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        try:
            return 0 if self.job.exception() is None else 1
        except Exception:  # submitit finds no result: the job was cancelled, or its node was lost
            return 1

    def send_signal(self, number: int) -> None:
        """Jobs go on without us; cancelling them is the cluster's own command."""


class ClusterStarter:
    """Submits jobs, one for each run.

    Args:
        cluster: one of `CLUSTERS`; "local" runs jobs on this machine as a cluster would, to try it.
        folder: for submitit's files, on a file system that all machines share.
        options: parameters of submitit's executor, such as timeout_min, gpus_per_node or slurm_partition.
        processes: that share a run on each node.

    Raises:
        UserError: submitit is not installed, there is no such cluster here, or an option does not exist.
    """

    outlives_us = True

    def __init__(self, cluster: str, folder: Path, options: Mapping[str, Any], processes: int = 1) -> None:
        self._folder, self._processes, self._cluster = folder, processes, cluster
        try:
            self._submitit = importlib.import_module("submitit")
        except ModuleNotFoundError as error:
            raise UserError(
                "--cluster needs submitit: pip install 'procgen-srwm[cluster]', or pip install submitit"
            ) from error
        try:
            self._executor = self._submitit.AutoExecutor(
                folder / "%j", cluster=cluster, **{f"{cluster}_max_num_timeout": TIMEOUTS}
            )
            self._executor.update_parameters(**{"tasks_per_node": 1, "timeout_min": 24 * 60, **options})
        except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
            raise UserError(f"--cluster {cluster} cannot be used: {' '.join(str(error).split())}") from error

    def start(self, words: Sequence[str], run: RunDirectory, log: Path, lock: int) -> ClusterJob:
        record = self._folder / f"{run.path.name}.json"
        earlier = self._earlier(record)
        if earlier is not None and earlier.poll() is None:
            return earlier
        self._executor.update_parameters(name=run.path.name)
        places = str(run.path.absolute()), str(log.absolute())
        work = RunJob(str(TRAIN), tuple(words), *places, self._processes)
        job = self._executor.submit(work)
        write_json(record, {"cluster": self._cluster, "job": str(job.job_id)})
        return ClusterJob(job)

    def _earlier(self, record: Path) -> ClusterJob | None:
        """The job that an earlier command has submitted, which may wait or run still."""
        try:
            stored = json.loads(record.read_text(encoding="utf-8"))
            if stored["cluster"] != self._cluster or self._cluster != "slurm":
                return None
            return ClusterJob(self._submitit.SlurmJob(self._folder / "%j", stored["job"]))
        except (OSError, ValueError, KeyError):
            return None


def parsed_options(texts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as a dictionary; whole numbers become such.

    Raises:
        UserError: a text is not of that form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise UserError(f"--cluster-options {text!r} is not NAME=VALUE, such as timeout_min=600")
        found[name] = int(value) if value.isdecimal() else value
    return found
