"""Tables and curves of cells that were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from common.files import atomic_write
from evaluation.report.plots import draw_band, draw_panels
from experiments.memory.grid import Planned
from experiments.memory.results import Results
from experiments.memory.tasks import ANSWERS, TASKS
from experiments.memory.training import LEVELS, WINDOW, Outcome

PAGE, CURVES = "memory.md", "curves.svg"
COLUMNS = 6
"""How many of the accuracies on the way a table shows."""


@dataclass(frozen=True)
class Row:
    """Cells that differ in their seed alone, and what came out of them."""

    task: str
    label: str
    outcomes: tuple[Outcome, ...]


def rows(planned: Sequence[Planned], results: Results) -> list[Row]:
    """The rows of all tasks, in the order planned, of the cells that were made."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for one in planned:
        if one.cell in results.outcomes:
            found.setdefault((one.cell.task, one.label), []).append(results.outcomes[one.cell])
    return [Row(*key, tuple(outcomes)) for key, outcomes in found.items()]


def tables(every: Sequence[Row]) -> str:
    """A Markdown table for each task."""
    return "\n".join(_table(task, [row for row in every if row.task == task]) for task in _tasks(every))


def _tasks(every: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.task for row in every))


def _table(task: str, members: Sequence[Row]) -> str:
    ends = {window.update for row in members for outcome in row.outcomes for window in outcome.windows}
    updates = sorted(end for end in ends if end % WINDOW == 0 or end == max(ends))
    shown = updates if len(updates) <= COLUMNS else [updates[i] for i in _spread(len(updates))]
    head = [
        *("core", "parameters"),
        *(f"to {update}" for update in shown),
        *("end", "twice as long"),
        *(f"{level} after" for level in LEVELS),
        "ms/update",
    ]
    lines = [
        f"## {task}",
        f"{TASKS[task].summary[0].upper()}{TASKS[task].summary[1:]}.",
        "",
        _line(head),
        _line(["---", *["---:"] * (len(head) - 1)]),
        *(_line([row.label, *_numbers(row, shown)]) for row in members),
        "",
    ]
    return "\n".join(lines)


def _spread(count: int) -> list[int]:
    """Places of the accuracies shown: the last one, and others at equal distances before it."""
    return [round((number + 1) * count / COLUMNS) - 1 for number in range(COLUMNS)]


def _line(entries: Sequence[str]) -> str:
    return f"| {' | '.join(entries)} |"


def _numbers(row: Row, shown: Sequence[int]) -> list[str]:
    return [
        f"{row.outcomes[0].parameters:,}",
        *(_shares([_accuracy_at(outcome, update) for outcome in row.outcomes]) for update in shown),
        _shares([outcome.test for outcome in row.outcomes]),
        _shares([outcome.twice for outcome in row.outcomes]),
        *(_each([outcome.reached.get(str(level)) for outcome in row.outcomes]) for level in LEVELS),
        f"{1000 * np.mean([outcome.seconds / outcome.windows[-1].update for outcome in row.outcomes]):.0f}",
    ]


def _shares(values: Sequence[float]) -> str:
    """Accuracies of the seeds, or their mean and range where there are more than three."""
    if len(values) <= 3:
        return " / ".join(f"{value:.2f}" for value in values)
    return f"{np.mean(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _each(updates: Sequence[int | None]) -> str:
    return " / ".join("-" if update is None else str(update) for update in updates)


def curves(every: Sequence[Row]) -> str:
    """Accuracy against updates, a panel for each task, as SVG."""
    labels = list(dict.fromkeys(row.label for row in every))

    def draw(task: str, axes: Axes) -> None:
        for row in every:
            if row.task == task:
                draw_band(axes, *_curve(row.outcomes), labels.index(row.label), row.label)
        axes.axhline(1 / ANSWERS, color="0.6", linewidth=0.8, linestyle=":")
        axes.set_ylim(0, 1.03)

    panels = [(task, partial(draw, task)) for task in _tasks(every)]
    return draw_panels(panels, "updates", "accuracy", "memory", shared=False)


def _accuracy_at(outcome: Outcome, update: int) -> float:
    """Of the stretch that ends at `update`, or before it; where training ended early, the accuracy stays."""
    before = [window for window in outcome.windows if window.update <= update]
    return (before or outcome.windows)[max(0, len(before) - 1)].accuracy


def _curve(outcomes: Sequence[Outcome]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Updates (n,) and accuracies (seeds, n)."""
    updates = sorted({window.update for outcome in outcomes for window in outcome.windows})
    return np.array(updates), np.array(
        [[_accuracy_at(one, update) for update in updates] for one in outcomes]
    )


def write_page(directory: Path, title: str, every: Sequence[Row]) -> Path:
    """Write tables and curves into `directory`; returns the page."""
    text = [
        f"# {title}",
        "",
        f"![Accuracy against updates]({CURVES})",
        "",
        f"Accuracies are those of fifty updates each: of each seed, or mean and range; chance is {1 / ANSWERS:g}. "
        "Where training ended early, they stay. Time is that of one processor.",
        "",
        tables(every),
    ]
    for name, content in ((CURVES, curves(every)), (PAGE, "\n".join(text))):
        with atomic_write(directory / name) as file:
            file.write(content)
    return directory / PAGE
