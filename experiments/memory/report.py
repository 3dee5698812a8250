"""Tables and curves of cells that were made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from common.files import atomic_write
from evaluation.report.plots import draw_band, draw_panels
from experiments.memory.grid import Planned
from experiments.memory.results import Results
from experiments.memory.tasks import ANSWERS, TASKS
from experiments.memory.training import LEVELS, WINDOW, Outcome, Window

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


def readings_table(members: Sequence[Row]) -> str:
    """What was seen in the cores of one task, in Markdown: after the first fifty updates, and at the end."""
    names = _reading_names(members)
    lines = [
        _line(["core", *names]),
        _line(["---", *["---:"] * len(names)]),
        *(
            _line([row.label, *(_first_and_last(row, name) for name in names)])
            for row in members
            if _reading_names([row])
        ),
    ]
    return "\n".join(lines) if names else ""


def _reading_names(members: Sequence[Row]) -> list[str]:
    windows = (window for row in members for one in row.outcomes for window in one.windows)
    return list(dict.fromkeys(_without_layer(tag) for window in windows for tag in window.readings))


def _without_layer(tag: str) -> str:
    """A tag without the number of its layer.

    >>> _without_layer("gradient/layer1/q")
    'gradient/q'
    """
    return re.sub(r"layer[0-9]+/", "", tag)


def _read(window: Window, name: str) -> float:
    """The mean of a reading over layers; not a number where there is none."""
    found = [value for tag, value in window.readings.items() if _without_layer(tag) == name]
    return float(np.mean(found)) if found else math.nan


def _first_and_last(row: Row, name: str) -> str:
    """Means over seeds."""
    values = [np.mean([_read(one.windows[place], name) for one in row.outcomes]) for place in (0, -1)]
    return "" if math.isnan(values[0]) else " → ".join(f"{value:.3g}" for value in values)


def accuracy_curves(every: Sequence[Row]) -> str:
    """Accuracy against updates, a panel for each task, as SVG."""

    def draw(task: str, axes: Axes) -> None:
        _draw(axes, [row for row in every if row.task == task], _labels(every), _accuracy_at)
        axes.axhline(1 / ANSWERS, color="0.6", linewidth=0.8, linestyle=":")
        axes.set_ylim(0, 1.03)

    panels = [(task, partial(draw, task)) for task in _tasks(every)]
    return draw_panels(panels, "updates", "accuracy", "memory", shared=False)


def reading_curves(members: Sequence[Row]) -> str | None:
    """What was seen in the cores of one task against updates, a panel for each reading; None if nothing was."""

    def draw(name: str, axes: Axes) -> None:
        seen = [row for row in members if name in _reading_names([row])]
        _draw(axes, seen, _labels(members), lambda outcome, update: _read(_until(outcome, update), name))

    panels = [(name, partial(draw, name)) for name in _reading_names(members)]
    return draw_panels(panels, "updates", "mean over layers", "readings", shared=False) if panels else None


def _labels(every: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.label for row in every))


def _draw(
    axes: Axes, members: Sequence[Row], labels: Sequence[str], value: Callable[[Outcome, int], float]
) -> None:
    for row in members:
        updates = sorted({window.update for outcome in row.outcomes for window in outcome.windows})
        values = np.array([[value(outcome, update) for update in updates] for outcome in row.outcomes])
        draw_band(axes, np.array(updates), values, labels.index(row.label), row.label)


def _until(outcome: Outcome, update: int) -> Window:
    """The stretch that ends at `update`, or else the last one before it: where training ended early, all stays."""
    before = [window for window in outcome.windows if window.update <= update]
    return before[-1] if before else outcome.windows[0]


def _accuracy_at(outcome: Outcome, update: int) -> float:
    return _until(outcome, update).accuracy


def write_page(directory: Path, title: str, every: Sequence[Row]) -> Path:
    """Write tables and curves into `directory`; returns the page."""
    files = {CURVES: accuracy_curves(every)}
    text = [
        f"# {title}\n",
        f"![Accuracy against updates]({CURVES})\n",
        f"Accuracies are those of fifty updates each: of each seed, or mean and range; chance is {1 / ANSWERS:g}. "
        "Where training ended early, they stay. Time is that of one processor.\n",
        tables(every),
    ]
    for task in _tasks(every):
        members = [row for row in every if row.task == task]
        picture = reading_curves(members)
        if picture is not None:
            name = _inside(task)
            files[name] = picture
            text += [
                f"## Inside the cores: {task}\n",
                "After the first fifty updates → at the end; means over layers and seeds. Gradients are norms by block "
                "of W_0's columns; docs/metrics.md explains the others.\n",
                f"{readings_table(members)}\n",
                f"![Inside the cores against updates]({name})\n",
            ]
    for name, content in {**files, PAGE: "\n".join(text)}.items():
        with atomic_write(directory / name) as file:
            file.write(content)
    return directory / PAGE


def _inside(task: str) -> str:
    """Of the picture of what was seen in the cores of a task."""
    return f"inside-{task}.svg"
