"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

PARTIAL_PREFIX, PARTIAL_SUFFIX = ".", ".partial"
"""Of the names of files that are being written; what a crash leaves behind can be deleted."""


def partial_path(path: Path) -> Path:
    """A name beside `path` for what is to become it, different each time."""
    return path.with_name(f"{PARTIAL_PREFIX}{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", *, durable: bool = True) -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` when the block ends without an error.

    Args:
        path: what is there stays until the new file is whole; its directory must exist.
        mode: "w" for UTF-8 text, "wb" for bytes.
        durable: flush the file and its name to the disk, so that they survive a power failure.

    Raises:
        OSError: it cannot be written; what was at `path` is untouched.
    """
    partial = partial_path(path)
    try:
        # Not from `tempfile`, whose files nobody else may ever read: these follow the umask.
        with partial.open(mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make names in `directory` survive a power failure, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
