"""What ends a run early, signals and a watchdog, and what must not: an output that nobody reads any more.

After a signal a run stops within seconds and saves; the second signal leaves at once. The watchdog notices when nothing
moves any more, says what the run is doing then, saves it and ends it: a hang would otherwise look like a slow run, and
hold a machine until somebody looks. It reads counters that move anyway, and what each thread says that it is doing
(`common.stages`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

from stable_baselines3.common.callbacks import BaseCallback

from agents.exchange import Exchange
from common.stages import active_stages

SIGNALS = tuple(
    getattr(signal, name)
    # Ctrl-C and kill; a closed terminal; what clusters send before they kill.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
POLL_SECONDS = 5.0
EXIT_CODE = 1
"""Of a run that the watchdog ended."""

logger = logging.getLogger(__name__)


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within this context, `handler` gets the signals that ask a program to stop.

    Those that whoever started the program wants ignored stay so: ``nohup`` does that with SIGHUP.
    """
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class StopRequest:
    """Whether a signal has asked the run to stop, and which.

    Args:
        grace_seconds: after the first signal in which another one means the same. Launchers such as torchrun pass on
            what they get, so that a signal to all processes comes twice.
    """

    def __init__(self, grace_seconds: float = 0.0) -> None:
        self.signal: int | None = None
        self._grace_seconds = grace_seconds
        self._since = -math.inf

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that ends because of the signal (130, 143); 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

    def agree(self, exchange: Exchange) -> None:
        """Take up what processes that share the run have been asked; collective."""
        signals = [number for number in exchange.gather(self.signal) if number is not None]
        self.signal = signals[0] if signals else None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals as requests, in the main thread (other threads get none)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with handling_signals(self._take):
            yield

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = number, now
        elif now - self._since >= self._grace_seconds:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


class PatientStream:
    """A text stream that goes on where whoever read it has left: `| head`, a terminal that was closed, a full disk.

    What cannot be written from then on is lost; everything else is as it was in `stream`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`, or lose it."""
        with self._losing():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose what was to be flushed."""
        with self._losing():
            self._stream.flush()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # So that what the stream still holds does not fail again, at the latest when the process ends.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def patient_output() -> Iterator[None]:
    """Within this context, stdout and stderr are patient."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, PatientStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class Stopped(Exception):  # noqa: N818  (nothing is wrong)
    """What follows training was ended by a request."""


class Heartbeat:
    """Called whenever something has moved: counts for the watchdog, and ends what is going on after a request."""

    def __init__(self, request: StopRequest) -> None:
        self.count = 0
        self._request = request

    def __call__(self) -> None:
        """Raises `Stopped` after a request."""
        self.count += 1
        if self._request.asked:
            raise Stopped


class StopOnRequest(BaseCallback):
    """Ends `learn` at the next step of the environments after a request."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__()
        self._request = request

    def _on_step(self) -> bool:
        return not self._request.asked


class Watchdog:
    """Watches while it is entered with ``with``.

    Args:
        minutes: without movement until it acts; None never.
        signs: gives something that changes as long as the run moves.
        directory: for the stacks of all threads.
        save: called, in another thread than the run's, to save what can be saved; returns what to say about it.
        leave: called with the exit code at the end; ends the process at once.
    """

    def __init__(
        self,
        minutes: float | None,
        signs: Callable[[], object],
        directory: Path,
        save: Callable[[], str],
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._signs, self._directory, self._save, self._leave = signs, directory, save, leave
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self._seconds < math.inf:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        self._disarm()

    def _watch(self) -> None:
        pause = min(POLL_SECONDS, self._seconds / 4)
        last, still = self._signs(), 0.0
        while not self._done.is_set():
            self._arm()
            before = time.monotonic()
            if self._done.wait(pause):
                return
            # A machine or a process that was suspended did not hang in the meantime.
            still += min(time.monotonic() - before, 2 * pause)
            now = self._signs()
            if now != last:
                last, still = now, 0.0
            elif still >= self._seconds:
                if self._act(last):
                    return
                last, still = self._signs(), 0.0

    def _act(self, last: object) -> bool:
        """Say what is wrong, save, leave; False if it has moved again in the meantime."""
        what = ", ".join(active_stages()) or "something unknown"
        where = self._write_stacks()
        logger.error("error: nothing has moved for %.3g minutes, in: %s%s", self._seconds / 60, what, where)
        outcome = self._save()
        if self._signs() != last:
            logger.error("it moves again: going on")
            return False
        logger.error("%s; leaving, continue with --resume", outcome)
        self._leave(EXIT_CODE)
        return True

    def _write_stacks(self) -> str:
        path = self._directory / f"stuck_{time.strftime('%Y%m%d-%H%M%S')}.txt"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            return f" (its stacks could not be written: {error.strerror or error})"
        return f" (stacks of all threads: {path})"

    # Native code that never gives the interpreter back stops this thread too. For that case a timer in C, always set
    # anew, writes the stacks to stderr and ends the process.

    def _arm(self) -> None:
        with contextlib.suppress(Exception):  # stderr may be no file
            file = sys.__stderr__ or sys.stderr
            faulthandler.dump_traceback_later(2 * self._seconds + 2 * POLL_SECONDS, exit=True, file=file)

    def _disarm(self) -> None:
        if self._seconds < math.inf:
            faulthandler.cancel_dump_traceback_later()
