"""How far an evaluation or a recording is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

LINE_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """How far something is.

    Attributes:
        done: Episodes or frames that are done.
        total: How many there are.
        what: What is being done.
        seconds_left: How long it will take, where more is known about it than the counts tell.
    """

    done: int
    total: int
    what: str
    seconds_left: float | None = None


Report = Callable[[Progress], None]
"""Is called whenever there is progress."""


def no_report(progress: Progress) -> None:
    """A `Report` that shows nothing."""


class _TimeLeft(ProgressColumn):
    """What `Progress.seconds_left` says, or else what the speed so far suggests."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        seconds = task.fields["seconds_left"]
        seconds = task.time_remaining if seconds is None else seconds
        return Text("-:--:--" if seconds is None else str(timedelta(seconds=round(seconds))))


@contextmanager
def show_progress(console: Console, title: str, unit: str) -> Iterator[Report]:
    """Within this context, what it gives can be passed as `report` to `evaluate` and `record`.

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
            _TimeLeft(),
            TextColumn("{task.description}"),
        )
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None, seconds_left=None)

            def show(now: Progress) -> None:
                bar.update(
                    task,
                    completed=now.done,
                    total=now.total,
                    description=now.what,
                    seconds_left=now.seconds_left,
                )

            yield show
        return
    shown = time.monotonic()

    def report(now: Progress) -> None:
        nonlocal shown
        if time.monotonic() - shown >= LINE_SECONDS:
            shown = time.monotonic()
            line = f"{title}: {now.done}/{now.total} {unit}  {now.what}"
            console.print(line, highlight=False, soft_wrap=True)

    yield report
