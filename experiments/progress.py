"""How far a run is: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback

LINE_SECONDS = 10.0
WINDOW_SECONDS = 60.0
"""The speed is that of the last whole rollouts of about a minute: it counts acting and learning alike."""


logger = logging.getLogger(__name__)


class TrainingProgress(BaseCallback):
    """Base of both forms: knows steps, speed and time left.

    Args:
        total_steps: environment steps at which the run ends.
        console: where it is shown.
    """

    def __init__(self, total_steps: int, console: Console) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.console = console
        self._marks: deque[tuple[float, int]] = deque()
        self._shown_to_nobody = False

    @property
    def steps(self) -> int:
        """Environment steps made."""
        return self.model.num_timesteps

    @property
    def steps_per_second(self) -> float | None:
        """The present speed; None in the first rollout."""
        (first_time, first_steps), (last_time, last_steps) = self._marks[0], self._marks[-1]
        return (last_steps - first_steps) / (last_time - first_time) if last_time > first_time else None

    def describe(self) -> str:
        """Steps, speed and time left as text."""
        speed = self.steps_per_second
        parts = [f"{self.steps:,}/{self.total_steps:,} steps"]
        if speed:
            left = max(0, self.total_steps - self.steps) / speed
            parts += [f"{speed:,.0f} steps/s", f"{duration(left)} left"]
        return "  ".join(parts)

    def _mark(self) -> None:
        now = time.monotonic()
        self._marks.append((now, self.steps))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW_SECONDS:
            self._marks.popleft()

    def _show(self, action: Callable[[], None]) -> None:
        """Do it, unless what it is shown on has gone: a terminal that was closed, a pipe, a log on a full disk."""
        if self._shown_to_nobody:
            return
        try:
            action()
        except OSError as error:
            self._shown_to_nobody = True
            logger.warning(
                "warning: progress cannot be shown any more (%s): training goes on", error.strerror or error
            )

    def _on_training_start(self) -> None:
        self._marks.clear()
        self._mark()
        self._show(self._start)

    def _on_rollout_start(self) -> None:
        self._mark()

    def _on_step(self) -> bool:
        self._show(self._update)
        return True

    def _on_training_end(self) -> None:
        self._mark()
        self._show(self._finish)

    def _start(self) -> None:
        """Show the beginning."""

    def _update(self) -> None:
        """Called after every step of the environments."""

    def _finish(self) -> None:
        """Show the end."""

    def close(self) -> None:
        """Leave the terminal as it was, also after an error."""


class LineProgress(TrainingProgress):
    """A plain line every ten seconds, for logs."""

    _shown = 0.0

    def _start(self) -> None:
        self._shown = time.monotonic()

    def _update(self) -> None:
        if time.monotonic() - self._shown >= LINE_SECONDS:
            self._line()

    def _finish(self) -> None:
        self._line()

    def _line(self) -> None:
        self._shown = time.monotonic()
        share = min(1.0, self.steps / self.total_steps)
        games = returns_text(self.model.episode_returns)  # type: ignore[attr-defined]  # ours, not any BaseAlgorithm
        line = "  ".join(filter(None, [f"{share:4.0%}", self.describe(), games]))
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()


class BarProgress(TrainingProgress):
    """A bar that moves, with the mean return of each game below it."""

    def __init__(self, total_steps: int, console: Console) -> None:
        super().__init__(total_steps, console)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}"),
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None
        self._live: Live | None = None
        self._refreshed = 0.0

    def _start(self) -> None:
        self._task = self._bar.add_task("", total=self.total_steps)
        self._live = Live(self._picture(), console=self.console, auto_refresh=False)
        self._live.start(refresh=True)

    def _picture(self) -> Group:
        games = returns_text(self.model.episode_returns)  # type: ignore[attr-defined]  # ours, not any BaseAlgorithm
        return Group(self._bar, Text(f"returns   {games or 'no episode has ended yet'}", style="dim"))

    def _update(self) -> None:
        # Refreshed here, not from rich's thread, which would compete with torch for the interpreter.
        if time.monotonic() - self._refreshed >= 0.25:
            self._refresh()

    def _refresh(self) -> None:
        assert self._live is not None
        assert self._task is not None
        self._refreshed = time.monotonic()
        self._bar.update(self._task, completed=min(self.steps, self.total_steps), description=self.describe())
        self._live.update(self._picture(), refresh=True)

    def _finish(self) -> None:
        self._refresh()
        self.close()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def training_progress(total_steps: int, console: Console) -> TrainingProgress:
    """The form that suits `console`."""
    return (BarProgress if console.is_terminal else LineProgress)(total_steps, console)


def returns_text(returns: Mapping[str, float]) -> str:
    """Mean returns by game in one line."""
    return "  ".join(f"{game} {value:.2f}" for game, value in returns.items())


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours and days where there are any.

    >>> duration(3725)
    '1:02:05'
    """
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
