"""Files that appear whole or not at all, files of settings, and files that are what they should be."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from common.errors import UserError

# Standard since Python 3.11; before, the package it was taken from.
_toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

PARTIAL_PREFIX, PARTIAL_SUFFIX = ".", ".partial"
"""Of the names of files that are being written; what a crash leaves behind can be deleted."""
MAX_TEXT = 64 << 20
"""Bytes of a file of settings, scores or notes: no such file is larger."""
MAX_DEPTH = 32
"""Tables and lists within one another in such a file."""
MAX_DIGITS = 400
"""Of a number in such a file; the largest floating-point number has 309."""


# Files that are what they should be


def open_regular(path: Path, mode: str = "rb", *, follow: bool = True) -> IO[bytes]:
    """Open a file, and nothing but a file: a pipe, a terminal or a device may never end, or never begin.

    Args:
        path: the file.
        mode: "rb" to read, "rb+" to read and write in place, "ab" to append (the file is made if need be).
        follow: whether `path` may be a link to a file. What is to be written here should not be.

    Raises:
        OSError: it cannot be opened, or is not a file.
    """
    access = {"rb": os.O_RDONLY, "rb+": os.O_RDWR, "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT}[mode]
    flags = access | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        # A link that is not followed, a pipe that nobody reads, a socket.
        raise OSError(error.errno, "is not a regular file", str(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, mode, buffering=0 if mode == "rb+" else -1)


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """The text in a file.

    Raises:
        OSError: it cannot be read, is not a file, or is longer than `limit` bytes.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"is longer than {limit >> 20} MB", str(path))
    return data.decode("utf-8").replace("\r\n", "\n")


# Writing


def partial_path(path: Path) -> Path:
    """A name beside `path` for what is to become it, different each time.

    Raises:
        IsADirectoryError: `path` has no name, as "." and "/".
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
    return path.with_name(f"{PARTIAL_PREFIX}{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", *, durable: bool = True) -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` when the block ends without an error.

    Args:
        path: what is there stays until the new file is whole; its directory must exist. A link is replaced, not
            followed.
        mode: "w" for UTF-8 text, "wb" for bytes.
        durable: flush the file and its name to the disk, so that they survive a power failure.

    Raises:
        OSError: it cannot be written; what was at `path` is untouched. A device or a pipe is never replaced.
    """
    partial = partial_path(path)
    with contextlib.suppress(FileNotFoundError):
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
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


def write_json(path: Path, data: Any) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(data, indent=2) + "\n")


# Settings, scores, notes


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, or its numbers or its nesting are larger than anything of ours.
    """
    try:
        return _checked(json.loads(text, parse_int=_whole_number))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        OSError: it cannot be read, or is not a file.
        ValueError: it is not JSON.
    """
    return parse_json(read_text(path))


def read_data(path: Path) -> Any:
    """What a file holds: TOML where its name ends so, else JSON.

    Raises:
        UserError: it cannot be read, or is neither.
    """
    kind = "TOML" if path.suffix == ".toml" else "JSON"
    try:
        text = read_text(path)
        return _checked(_toml.loads(text)) if kind == "TOML" else parse_json(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be used: it is not text") from None
    except RecursionError:
        raise UserError(f"{path} cannot be used: it is nested too deeply") from None
    except ValueError as error:  # of which the errors of both formats are
        raise UserError(f"{path} cannot be used: not {kind}, {error}") from error


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _checked(data: Any) -> Any:
    """`data`, which is nested no deeper than `MAX_DEPTH`."""
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [item for part in level for item in _parts(part)]
        if not level:
            return data
    raise ValueError("it is nested too deeply")


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
