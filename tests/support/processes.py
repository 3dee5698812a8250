"""Functions that run in several processes at once, which find one another as those of torchrun do."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PATIENCE = 300.0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Team:
    """`size` processes that each call `work` with their number; a fork each, so that nothing is imported again."""

    def __init__(self, size: int, work: Callable[[int], Any], folder: Path) -> None:
        self.folder = folder
        port = free_port()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pids = []
        for rank in range(size):
            pid = os.fork()
            if not pid:
                self._be(rank, size, port, work)
            self.pids.append(pid)

    def _be(self, rank: int, size: int, port: int, work: Callable[[int], Any]) -> None:
        place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        code = 70
        try:
            target = os.open(self.folder / f"said{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(target, 1)
            os.dup2(target, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
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
        os.kill(self.pids[rank], number)

    def wait(self) -> list[int]:
        """The exit codes of all; who hangs is killed, and that is an error."""
        end, codes = time.monotonic() + PATIENCE, [None] * len(self.pids)  # type: list[int | None]
        while None in codes:
            for rank, pid in enumerate(self.pids):
                if codes[rank] is None:
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    codes[rank] = os.waitstatus_to_exitcode(status) if ended else None
            if time.monotonic() > end:
                for rank, pid in enumerate(self.pids):
                    if codes[rank] is None:
                        os.kill(pid, signal.SIGKILL)
                raise TimeoutError(f"exit codes {codes}: {self.said()}")
            time.sleep(0.01)
        return [code for code in codes if code is not None]

    def said(self) -> list[str]:
        return [(self.folder / f"said{rank}.txt").read_text() for rank in range(len(self.pids))]

    def result(self, rank: int) -> Any:
        return pickle.loads((self.folder / f"result{rank}").read_bytes())


def together(size: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` returns in each of `size` processes, which must all end well."""
    with TemporaryDirectory() as folder:
        team = Team(size, work, Path(folder))
        codes = team.wait()
        assert codes == [0] * size, f"{codes}: {team.said()}"
        return [team.result(rank) for rank in range(size)]
