"""How far an evaluation or a recording is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evaluation.evaluator import Progress as Report

LINE_SECONDS = 10.0


@contextmanager
def show_progress(console: Console, title: str, unit: str) -> Iterator[Report]:
    """Within this context, what it gives can be passed as `progress` to `evaluate` and `record`.

    Args:
        console: where it is shown; the bar disappears at the end.
        title: what is going on, such as "evaluating".
        unit: what is counted, such as "episodes".
    """
    if console.is_terminal:
        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
        return
    shown = time.monotonic()

    def report(done: int, total: int, what: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= LINE_SECONDS:
            shown = time.monotonic()
            console.print(f"{title}: {done}/{total} {unit}  {what}", highlight=False, soft_wrap=True)

    yield report
