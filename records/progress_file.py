"""progress.csv of a run: one row of numbers for each entry of the log."""

from __future__ import annotations

import csv
import io
from pathlib import Path


def read_progress(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows; a last row cut off by a crash is left out.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]  # the last number of a row without an end may have lost digits
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    rows = [row for row in reader if None not in row and None not in row.values()]
    return list(reader.fieldnames or []), rows
