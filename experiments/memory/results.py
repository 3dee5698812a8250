"""What came out of cells, in a file that grows by a line with each: what is in it need not be made again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.config import assign, plain, read
from experiments.memory.settings import Cell
from experiments.memory.training import Outcome, Window
from records.directory import versions

FILE = "results.jsonl"


class Results:
    """The outcomes of cells in the directory `directory`, which is made with the first of them.

    Several processes may add to the same directory. What is not a whole line, since a process was killed while it
    wrote, or is of a cell with settings that are no longer known, is left alone and counts for nothing.
    """

    def __init__(self, directory: Path) -> None:
        self.file = directory / FILE
        self._made_with: dict[str, Any] | None = None
        self.outcomes: dict[Cell, Outcome] = {}
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        for cell, outcome in filter(None, map(_parsed, lines)):
            self.outcomes[cell] = outcome

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """Keep the outcome of `cell`, in the file too."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._made_with = self._made_with or versions()
        line = {"cell": plain(cell), "outcome": _to_json(outcome), "made_with": self._made_with}
        torn = self.file.is_file() and not self.file.read_bytes().endswith(b"\n")
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{os.linesep if torn else ''}{json.dumps(line)}\n")
        self.outcomes[cell] = outcome


def _to_json(outcome: Outcome) -> dict[str, Any]:
    numbers = {name: value for name, value in vars(outcome).items() if name != "windows"}
    return {**numbers, "windows": [vars(window) for window in outcome.windows]}


def _parsed(line: str) -> tuple[Cell, Outcome] | None:
    """The cell and outcome of a line; None if it is not one."""
    wrong: list[str] = []
    try:
        data = json.loads(line)
        numbers = {name: value for name, value in data["outcome"].items() if name != "windows"}
        outcome = read(Outcome(), numbers, wrong)
        windows = tuple(read(Window(), window, wrong) for window in data["outcome"]["windows"])
        cell = assign(Cell(), data["cell"], wrong)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return None if wrong else (cell, replace(outcome, windows=windows))
