"""How far something is, shown live: a picture on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback

REDRAW_SECONDS = 0.25
LINE_SECONDS = 10.0
WINDOW_SECONDS = 60.0
"""The speed is that of the last whole rollouts of about a minute: it counts acting and learning alike."""

logger = logging.getLogger(__name__)


class Display:
    """Where something is shown that goes on.

    Args:
        picture: makes what a terminal shows.
        line: makes what is printed elsewhere.
        line_seconds: between two lines.
    """

    def __init__(
        self,
        console: Console,
        picture: Callable[[], RenderableType],
        line: Callable[[], str],
        line_seconds: float,
    ) -> None:
        self._console, self._picture, self._line = console, picture, line
        # Refreshed by us, not from rich's thread, which would compete with torch for the interpreter.
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._pause = line_seconds if self._live is None else REDRAW_SECONDS
        self._shown = -math.inf

    def begin(self) -> None:
        """Show the first picture; the first line comes later."""
        self._shown = time.monotonic()
        if self._live is not None:
            self.show()

    def update(self) -> None:
        """Show how far it is, unless that was done just now."""
        if time.monotonic() - self._shown >= self._pause:
            self.show()

    def show(self) -> None:
        """Show how far it is."""
        self._shown = time.monotonic()
        if self._live is None:
            self.say(self._line())
        else:
            self._live.start()
            self._live.update(self._picture(), refresh=True)

    def say(self, line: str) -> None:
        """Print `line`."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()

    def close(self) -> None:
        """Leave the terminal as it was, also after an error."""
        if self._live is not None:
            self._live.stop()


class TrainingProgress(BaseCallback):
    """Shows steps, speed, time left and the mean return of each game of a run that ends at `total_steps`."""

    def __init__(self, total_steps: int, console: Console) -> None:
        super().__init__()
        self.total_steps = total_steps
        self._display = Display(console, self._picture, self._line, LINE_SECONDS)
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
        self._show(self._display.begin)

    def _on_rollout_start(self) -> None:
        self._mark()

    def _on_step(self) -> bool:
        self._show(self._display.update)
        return True

    def _on_training_end(self) -> None:
        self._mark()
        self._show(self._display.show)
        self._show(self._display.close)

    def close(self) -> None:
        """Leave the terminal as it was, also after an error."""
        self._display.close()

    def _returns(self) -> str:
        returns = self.model.episode_returns  # type: ignore[attr-defined]  # ours, not any BaseAlgorithm
        return "  ".join(f"{game} {value:.2f}" for game, value in returns.items())

    def _line(self) -> str:
        share = min(1.0, self.steps / self.total_steps)
        return "  ".join(filter(None, [f"{share:4.0%}", self.describe(), self._returns()]))

    def _picture(self) -> Group:
        share = min(1.0, self.steps / self.total_steps)
        bar = Table.grid("", Column(ratio=1), "", "", padding=(0, 1), expand=True)
        bar.add_row("training", ProgressBar(1.0, share), f"{share:4.0%}", Text(self.describe(), no_wrap=True))
        return Group(bar, Text(f"returns   {self._returns() or 'no episode has ended yet'}", style="dim"))


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
