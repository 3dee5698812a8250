"""One process to a run directory."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
import stat
import time
from pathlib import Path

from common.errors import UserError

logger = logging.getLogger(__name__)

_NOT_SUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}


class LockHeld(UserError):  # noqa: N818  (a fact)
    """Another process has the lock."""


class RunLock:
    """Held from ``with`` to its end, or to the end of the process however it ends: the kernel lets go of it.

    So a crash leaves no lock, only the file that names who had it. The lock is advisory (`flock`). On file systems
    that share locks between machines, such as NFS, it holds across them; where a file system has no locks, the run
    goes on without one and says so.

    The directory of the lock file must exist when the lock is taken.
    """

    supported = True  # whether the file system has locks; known once the lock has been taken

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            LockHeld: another process has it; the message says which.
            UserError: something else than a file lies in its place.
            OSError: the lock file cannot be written.
        """
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(descriptor, 1000)
                os.close(descriptor)
                raise LockHeld(
                    f"{self._path.parent} is in use{_described(owner)}: wait for it or stop it; two runs cannot share "
                    "a directory"
                ) from None
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    os.close(descriptor)
                    raise
                self.supported = False
                logger.warning(
                    "warning: no locks on this file system: start no second run in %s", self._path.parent
                )
            if _is_at(descriptor, self._path):
                break
            os.close(descriptor)  # somebody deleted the file between the two calls
        self.release()
        self._descriptor = descriptor
        facts = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(facts).encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds, only nobody can read whose it is

    def _open(self) -> int:
        """Open the lock file, and make it if need be. What is no file there, or a link, is left alone."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags, 0o666)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise
        raise UserError(f"{self._path} is not a regular file, as a lock is: delete it")

    def renew(self) -> None:
        """Take the lock again if its file has been deleted or replaced in the meantime; else do nothing.

        Raises:
            LockHeld: another process has it by now.
            OSError: the lock file cannot be written.
        """
        if self._descriptor is None or not _is_at(self._descriptor, self._path):
            self.acquire()

    def fileno(self) -> int:
        """For a process that shall inherit the lock, and hold it even if this one ends."""
        assert self._descriptor is not None
        return self._descriptor

    def release(self) -> None:
        """Let go of the lock. The file stays: deleting it would race with whoever waits for it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _described(owner: bytes) -> str:
    try:
        facts = json.loads(owner)
        return f" by process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (ValueError, TypeError, KeyError):
        return ""
