"""Makes the runs of a plan: each is a process of ``train.py``, one after another or several side by side.

A run is held by a lock that its process shares, so that a suite that was killed and started again waits for a run that
is still being made instead of making it twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import experiments
from common.files import open_regular
from experiments.stopping import handling_signals
from experiments.suites.plan import Plan, PlannedRun
from records.lock import LockHeld, RunLock
from records.state import Phase, RunState, state_of

TRAIN = Path(experiments.__file__).resolve().parent.parent / "train.py"
"""The program of a checkout; an installed package has none."""
LOGS = "logs"
POLL_SECONDS = 0.5


@dataclass
class Job:
    """A run of the plan and what has become of it.

    Attributes:
        elsewhere: whether a process of another suite's command is making it.
        failure: what its process ended with, where that was an error.
        started_at: environment steps that it had when this command started it; None if it did not.
    """

    planned: PlannedRun
    state: RunState
    process: subprocess.Popen[bytes] | None = None
    lock: RunLock | None = field(default=None, repr=False)
    device: str | None = None
    elsewhere: bool = False
    failure: str | None = None
    started_at: int | None = None

    @property
    def waiting(self) -> bool:
        """Whether it is still to be made."""
        return self.process is None and self.failure is None and self.state.phase is not Phase.FINISHED


def jobs_of(plan: Plan) -> list[Job]:
    """The runs of `plan` as they are now."""
    return [Job(planned, state_of(planned.run, planned.config)) for planned in plan.runs]


class Runner:
    """Makes the runs of a plan that are missing.

    Args:
        jobs: how many runs at once.
        devices: to give to the runs in turn; "auto" leaves the choice to train.py.
    """

    def __init__(self, plan: Plan, jobs: int = 1, devices: Sequence[str] = ("auto",)) -> None:
        self.plan = plan
        self.at_once = jobs
        self.devices = tuple(devices)
        self.jobs = jobs_of(plan)
        self._stop: int | None = None

    def run(self, on_change: Callable[[Runner], None] = lambda runner: None) -> int:
        """Make what is missing; `on_change` is called several times a second.

        Returns:
            0; 1 if a run failed; 128 + the number of the signal that stopped the suite.
        """
        self.plan.write_record()
        with handling_signals(self._request_stop):
            try:
                while self._advance():
                    on_change(self)
                    time.sleep(POLL_SECONDS)
                on_change(self)
            finally:
                self._send(signal.SIGTERM)
        if self._stop is not None:
            return 128 + self._stop
        return 1 if any(job.failure for job in self.jobs) else 0

    @property
    def running(self) -> list[Job]:
        """Those with a process of this command."""
        return [job for job in self.jobs if job.process is not None]

    def _request_stop(self, number: int, frame: object) -> None:
        """Ask every run to save and stop; a second signal kills them, and they go on from their last checkpoints."""
        again, self._stop = self._stop is not None, number
        self._send(signal.SIGKILL if again else signal.SIGTERM)

    def _send(self, number: int) -> None:
        for job in self.running:
            assert job.process is not None
            job.process.send_signal(number)

    def _advance(self) -> bool:
        """See what has ended, start what can be started; whether anything is left to wait for."""
        for job in self.running:
            self._check(job)
        for job in self.jobs:
            if job.elsewhere or job.process is not None:
                job.state = state_of(job.planned.run, job.planned.config)
        if self._stop is not None:
            return bool(self.running)
        for job in self.jobs:
            if job.waiting and len(self.running) < self.at_once:
                self._start(job)
        return any(job.waiting or job.process is not None for job in self.jobs)

    def _check(self, job: Job) -> None:
        assert job.process is not None
        assert job.lock is not None
        code = job.process.poll()
        if code is None:
            return
        job.process = None
        job.lock.release()
        job.state = state_of(job.planned.run, job.planned.config)
        if job.state.phase is not Phase.FINISHED and self._stop is None:
            job.failure = self._reason(job, code)

    def _reason(self, job: Job, code: int) -> str:
        with contextlib.suppress(OSError):
            with open_regular(self.log_of(job.planned)) as file:
                lines = file.read().decode("utf-8", "replace").splitlines()
            said = [line.strip() for line in lines if line.strip()]
            if said:
                return f"code {code}: {said[-1]}"
        return f"code {code}"

    def log_of(self, planned: PlannedRun) -> Path:
        """What the processes of a run have printed."""
        return self.plan.directory / LOGS / f"{planned.name}.log"

    def _start(self, job: Job) -> None:
        planned, logs = job.planned, self.plan.directory / LOGS
        logs.mkdir(exist_ok=True)
        lock = RunLock(logs / f"{planned.name}.lock")
        try:
            lock.acquire()
        except LockHeld:
            job.elsewhere = True
            return
        job.elsewhere = False
        # Somebody else may have made it since it was last looked at.
        job.state = state_of(planned.run, planned.config)
        if job.state.phase is Phase.FINISHED:
            lock.release()
            return
        job.lock = lock
        # A run that was killed before its first checkpoint is there, and begins anew when it is continued.
        fresh = not planned.run.config_file.is_file()
        words = [*planned.command] if fresh else ["--resume", str(planned.run)]
        if fresh:
            planned.write_config()
        if fresh and self.devices != ("auto",):
            in_use = [other.device for other in self.running]
            job.device = min(self.devices, key=in_use.count)
            words += ["--device", job.device]
        job.started_at = job.state.saved
        with open_regular(self.log_of(planned), "ab", follow=False) as log:
            job.process = subprocess.Popen(
                [
                    sys.executable,
                    *([str(TRAIN)] if TRAIN.exists() else ["-m", "experiments.program"]),
                    *words,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                pass_fds=(lock.fileno(),),
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
