"""Where Stable-Baselines3's logger writes: a CSV file and a TensorBoard file that a resumed run continues.

A run that goes on from the checkpoint of step S makes the entries after S again, so those are dropped first. What
cannot be written (a full disk, a directory that is gone) is kept and tried again with the next entry: no log is worth
a run.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, Logger

from common.errors import UserError
from common.files import atomic_write, open_regular

STEP = "time/total_timesteps"
"""The column, and the tag, that holds the environment step."""
MAX_WAITING = 10_000
"""Entries that are kept while nothing can be written; then the oldest are lost."""
EVENT_FILES = "events.out.tfevents.*"
RECORD_FRAME = 16
"""Bytes of a record in an event file besides its message: its length (8) and two checksums (4 each)."""

logger = logging.getLogger(__name__)


def make_logger(progress_file: Path, tensorboard: Path, resume_step: int | None = None) -> Logger:
    """A logger that writes both, and nothing to the screen.

    `resume_step` is the environment step from which the run goes on; None for a new run.
    """
    writers = [CsvWriter(progress_file, resume_step), TensorBoardWriter(tensorboard, resume_step)]
    return Logger(folder=None, output_formats=list[KVWriter](writers))


def sync(log: Logger) -> None:
    """Flush what `log` has written to the disk, so that it survives a power failure as a checkpoint does."""
    for writer in log.output_formats:
        if isinstance(writer, PatientWriter):
            writer.sync()


def _numbers(key_values: Mapping[str, Any]) -> dict[str, float | int]:
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in key_values.items()
        if isinstance(value, (int, float, np.integer, np.floating))
    }


class PatientWriter(KVWriter):
    """Appends entries to a file; those that cannot be written wait for the next one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0  # bytes up to the end of the last whole entry
        self._waiting: deque[tuple[int, dict[str, float | int]]] = deque(maxlen=MAX_WAITING)
        self._failing = False

    def write(self, key_values: dict[str, Any], key_excluded: Mapping[str, Any], step: int = 0) -> None:
        self._waiting.append((step, _numbers(key_values)))
        self._append_waiting()

    def _append_waiting(self) -> None:
        try:
            self._check_place()
            while self._waiting:
                self._append(*self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            if not self._failing:
                logger.warning(
                    "warning: could not write to %s (%s): training goes on, entries wait until it is possible",
                    *(self._path, error.strerror or error),
                )
            self._failing = True
            return
        if self._failing:
            logger.warning("%s can be written again", self._path)
        self._failing = False

    def sync(self) -> None:
        """Flush to the disk. Raises `OSError` if that fails; entries that still wait stay waiting."""
        if self._path.exists():
            with open_regular(self._path, "rb+", follow=False) as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Try once more to write what still waits."""
        if self._waiting:
            self._append_waiting()
        if self._waiting:
            logger.warning(
                "warning: %d entries are lost: %s still cannot be written", len(self._waiting), self._path
            )

    def _check_place(self) -> None:
        """Start anew where somebody deleted the file."""
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._size = 0
            self._begin()

    def _put(self, data: bytes) -> None:
        """Append `data` after the last whole entry: what an attempt left that failed half-way is overwritten."""
        with open_regular(self._path, "rb+", follow=False) as file:
            file.truncate(self._size)
            file.seek(self._size)
            rest = memoryview(data)
            while rest:  # a disk that is nearly full takes a part
                rest = rest[file.write(rest) :]
        self._size += len(data)

    @abstractmethod
    def _begin(self) -> None:
        """Make the file, without entries."""

    @abstractmethod
    def _append(self, step: int, numbers: Mapping[str, float | int]) -> None:
        """Write one entry, or raise `OSError`; then it is tried again."""


class CsvWriter(PatientWriter):
    """Rows of numbers under tags; a new tag adds a column, empty in the rows before."""

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        """Start `path` anew (with the first entry if it cannot be done now), or keep its rows up to `resume_step`."""
        super().__init__(path)
        self._columns: list[str] = []
        if resume_step is not None and path.exists():
            self._columns, rows = _read(path)
            self._rewrite(self._columns, [row for row in rows if _step(row) <= resume_step])
            return
        with contextlib.suppress(OSError):
            self._begin()

    def _begin(self) -> None:
        self._rewrite([], [])

    def _append(self, step: int, numbers: Mapping[str, float | int]) -> None:
        row = {STEP: step, **numbers}
        new = [key for key in row if key not in self._columns]
        if new:
            rows = _read(self._path)[1] if self._columns else []
            self._rewrite(sorted([*self._columns, *new], key=lambda key: (key != STEP, key)), rows)
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, restval="").writerow(row)
        self._put(text.getvalue().encode())

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        """Write the header and `rows`; the old file stays until the new one is whole."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        if columns:
            writer.writeheader()
        writer.writerows(rows)
        with atomic_write(self._path, "wb", durable=False) as file:
            file.write(text.getvalue().encode())
        self._columns, self._size = columns, self._path.stat().st_size


def read_progress(path: Path) -> list[dict[str, str]]:
    """The whole rows of a progress.csv, numbers as texts by tag; none if there is no such file.

    Raises:
        OSError: it cannot be read.
    """
    return _read(path)[1] if path.exists() else []


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows; a last row cut off by a crash is left out.

    Raises:
        OSError: it cannot be read, or is not a file.
        UserError: it is not a table of train.py.
    """
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8")
        whole = text[: text.rfind("\n") + 1]  # the last number of a row without an end may have lost digits
        reader = csv.DictReader(io.StringIO(whole, newline=""))
        rows = [row for row in reader if None not in row and None not in row.values()]
        return list(reader.fieldnames or []), rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not the log of a run ({error}): move it away") from error


def _step(row: Mapping[str, str]) -> float:
    try:
        return float(row[STEP])
    except (KeyError, ValueError):
        return float("inf")


class TensorBoardWriter(PatientWriter):
    """Scalars for TensorBoard, in one file however often the run is continued.

    TensorBoard's own writer belongs to a thread that dies of the first failed write, and starts a new file each time.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        """Start a file in `folder` (with the first entry where it cannot be done now), or continue the latest one;
        events beyond `resume_step` are cut off."""
        for path in folder.glob(EVENT_FILES):
            if resume_step is None:
                path.unlink()
                continue
            with open_regular(path, "rb+", follow=False) as file:
                file.truncate(_length_up_to(path, resume_step))
        files = sorted(path for path in folder.glob(EVENT_FILES) if path.stat().st_size)
        super().__init__(files[-1] if files else folder / f"events.out.tfevents.{time.time():.0f}.run")
        if files:
            self._size = self._path.stat().st_size
            return
        with contextlib.suppress(OSError):
            self._check_place()

    def _begin(self) -> None:
        self._path.touch()
        self._put_event(file_version="brain.Event:2")

    def _append(self, step: int, numbers: Mapping[str, float | int]) -> None:
        values = [{"tag": tag, "simple_value": float(number)} for tag, number in numbers.items()]
        self._put_event(step=step, summary={"value": values})

    def write_picture(self, tag: str, encoded: bytes, width: int, height: int, step: int) -> None:
        """Add a picture, which may move: a file as png or gif, of `width` x `height` pixels.

        Raises:
            OSError: it cannot be written; it is not tried again.
        """
        self._check_place()
        image = {"width": width, "height": height, "colorspace": 3, "encoded_image_string": encoded}
        self._put_event(step=step, summary={"value": [{"tag": tag, "image": image}]})

    def _put_event(self, **fields: Any) -> None:
        # Here, since it takes a while to load and only training needs it.
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **fields).SerializeToString())
        self._put(record.getvalue())


def _length_up_to(path: Path, step: int) -> int:
    """Bytes of the whole records at the beginning of an event file that belong to steps up to `step`."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.errors import OpError  # type: ignore[import-untyped]
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (  # type: ignore[import-untyped]
        PyRecordReader_New,
    )

    reader, end = PyRecordReader_New(str(path)), 0
    # The end, or a record that is cut off or damaged.
    with contextlib.suppress(OpError, DecodeError, MemoryError, OverflowError):
        while True:
            reader.GetNext()
            if Event.FromString(reader.record()).step > step:
                break
            end += len(reader.record()) + RECORD_FRAME
    return end
