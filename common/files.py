"""Files that appear whole or not at all, and files of settings."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from common.errors import UserError

# Standard since Python 3.11; before, the package it was taken from.
_toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

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


def write_json(path: Path, data: Any) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(data, indent=2) + "\n")


def read_data(path: Path) -> Any:
    """What a file holds: TOML where its name ends so, else JSON.

    Raises:
        UserError: it cannot be read, or is neither.
    """
    kind = "TOML" if path.suffix == ".toml" else "JSON"
    try:
        text = path.read_text(encoding="utf-8")
        return _toml.loads(text) if kind == "TOML" else json.loads(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be used: it is not text") from None
    except ValueError as error:  # of which the errors of both formats are
        raise UserError(f"{path} cannot be used: not {kind}, {error}") from error
