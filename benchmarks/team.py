"""Functions that run in several processes at once, which find one another as those of torchrun do."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

PATIENCE = 600.0
"""Seconds after which processes that have not ended are taken to hang."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Team:
    """`size` processes that each call `work` with their number; a fork each, so that nothing is imported again.

    Args:
        folder: where what they print and return goes.
        environment: variables that they get besides those of torchrun.
    """

    def __init__(
        self,
        size: int,
        work: Callable[[int], Any],
        folder: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder, self._environment = folder, environment
        port = free_port()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pids: list[int] = []
        self._codes: dict[int, int] = {}
        for rank in range(size):
            pid = os.fork()
            if not pid:
                self._be(rank, size, port, work)
            self.pids.append(pid)

    def _be(self, rank: int, size: int, port: int, work: Callable[[int], Any]) -> None:
        place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **self._environment})
        code = 70
        try:
            target = os.open(self.folder / f"said{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(target, 1)
            os.dup2(target, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            logging.getLogger().handlers.clear()  # of whoever has forked us, such as pytest's
            found = work(rank)
            (self.folder / f"result{rank}").write_bytes(pickle.dumps(found))
            code = found if isinstance(found, int) else 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def kill(self, rank: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of them."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pids[rank], number)

    def wait(self) -> list[int]:
        """The exit codes of all. Raises TimeoutError for who hangs, after killing them."""
        end = time.monotonic() + PATIENCE
        while len(self._codes) < len(self.pids):
            self.poll()
            if time.monotonic() > end:
                for rank in range(len(self.pids)):
                    if rank not in self._codes:
                        self.kill(rank)
                raise TimeoutError(f"exit codes {self._codes}: {self.said()}")
            time.sleep(0.01)
        return [self._codes[rank] for rank in range(len(self.pids))]

    def poll(self) -> bool:
        """Whether any of them has ended."""
        for rank, pid in enumerate(self.pids):
            if rank not in self._codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self._codes[rank] = os.waitstatus_to_exitcode(status)
        return bool(self._codes)

    def has_ended(self, rank: int) -> bool:
        """Whether that one had ended when `poll` was last called."""
        return rank in self._codes

    def said(self) -> list[str]:
        """What each has printed."""
        return [(self.folder / f"said{rank}.txt").read_text() for rank in range(len(self.pids))]

    def result(self, rank: int) -> Any:
        """What `work` has returned in one of them."""
        return pickle.loads((self.folder / f"result{rank}").read_bytes())


def together(size: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` returns in each of `size` processes, which must all end well."""
    with TemporaryDirectory() as folder:
        team = Team(size, work, Path(folder))
        codes = team.wait()
        assert codes == [0] * size, f"{codes}: {team.said()}"
        return [team.result(rank) for rank in range(size)]
