"""Ctrl-C and SIGTERM: a run stops within seconds and saves; the second signal leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stable_baselines3.common.callbacks import BaseCallback

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal has asked the run to stop.

    Attributes:
        signal: the signal, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that ends because of the signal (130, 143); 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals as requests, in the main thread (other threads get none)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = number


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
