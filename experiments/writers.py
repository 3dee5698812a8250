"""Where Stable-Baselines3's logger writes: a CSV file and TensorBoard files that a resumed run continues.

A run that goes on from the checkpoint of step S makes the entries after S again, so those are dropped.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, Logger

STEP = "time/total_timesteps"
"""The column, and the tag, that holds the environment step."""


def make_logger(progress_file: Path, tensorboard: Path, resume_step: int | None = None) -> Logger:
    """A logger that writes both, and nothing to the screen.

    Args:
        progress_file: the CSV file.
        tensorboard: the folder for TensorBoard.
        resume_step: environment step from which the run goes on; None for a new run.
    """
    writers: list[KVWriter] = [
        CsvWriter(progress_file, resume_step),
        TensorBoardWriter(tensorboard, resume_step),
    ]
    return Logger(folder=None, output_formats=writers)


def _numbers(key_values: Mapping[str, Any]) -> dict[str, float | int]:
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in key_values.items()
        if isinstance(value, (int, float, np.integer, np.floating))
    }


class CsvWriter(KVWriter):
    """Rows of numbers under tags; a new tag adds a column, empty in the rows before."""

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        """Start `path` anew, or keep its rows up to `resume_step`."""
        self._path = path
        self._columns: list[str] = []
        rows: list[dict[str, str]] = []
        if resume_step is not None and path.exists():
            self._columns, rows = _read(path)
            rows = [row for row in rows if _step(row) <= resume_step]
        self._rewrite(rows)

    def write(self, key_values: dict[str, Any], key_excluded: Mapping[str, Any], step: int = 0) -> None:
        row = {STEP: step, **_numbers(key_values)}
        new = [key for key in row if key not in self._columns]
        if new:
            rows = _read(self._path)[1] if self._columns else []
            self._columns = sorted([*self._columns, *new], key=lambda key: (key != STEP, key))
            self._rewrite(rows)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Write the header and `rows`; the old file stays until the new one is whole."""
        partial = self._path.with_name(f".{self._path.name}.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            if self._columns:
                writer.writeheader()
            writer.writerows(rows)
        os.replace(partial, self._path)

    def close(self) -> None:
        pass


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows; a last row cut off by a crash is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if None not in row and None not in row.values()]
        return list(reader.fieldnames or []), rows


def _step(row: Mapping[str, str]) -> float:
    try:
        return float(row[STEP])
    except (KeyError, ValueError):
        return float("inf")


class TensorBoardWriter(KVWriter):
    """Scalars for TensorBoard."""

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        """Write below `folder`; TensorBoard then hides what older files hold beyond `resume_step`."""
        # Here, since it takes a second to load and only training needs it.
        from torch.utils.tensorboard import SummaryWriter

        purge_step = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, key_values: dict[str, Any], key_excluded: Mapping[str, Any], step: int = 0) -> None:
        for key, value in _numbers(key_values).items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
