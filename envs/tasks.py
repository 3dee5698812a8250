"""Tasks: what an agent is asked to play at one time, a game in a mode on some levels."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import UserError
from envs.games import GAMES, game_problems
from envs.levels import Levels, parse_levels

_MODE, _LEVELS = "easy", "train"


@dataclass(frozen=True)
class Task:
    """A game in a mode on some levels, those by name or as a range "A:B".

    >>> str(Task("climber")), str(Task("climber", "easy", "3:4"))
    ('climber', 'climber/easy/3:4')
    """

    game: str
    mode: str = _MODE
    levels: str = _LEVELS

    def __str__(self) -> str:
        parts = [self.game]
        if (self.mode, self.levels) != (_MODE, _LEVELS):
            parts.append(self.mode)
        if self.levels != _LEVELS:
            parts.append(self.levels)
        return "/".join(parts)

    @property
    def level_range(self) -> Levels:
        """The levels themselves. Raises `UserError` if there are no such levels."""
        return parse_levels(self.levels, self.mode)

    def problems(self) -> list[str]:
        """What forbids playing it, a line each."""
        found = game_problems([self.game], self.mode)
        try:
            parse_levels(self.levels, self.mode)
        except UserError as error:
            found.append(str(error))
        return [f"task {self}: {problem}" for problem in found]


def parse_task(text: str, mode: str = _MODE, levels: str = _LEVELS) -> Task:
    """The task that `text` names: ``game``, ``game/mode`` or ``game/mode/levels``.

    Args:
        text: such as "climber", "climber/hard" or "climber/easy/3:4".
        mode: where the text names none.
        levels: where the text names none.

    Raises:
        UserError: it has another form, or no such game, mode or levels exist.
    """
    parts = text.strip().split("/")
    if len(parts) > 3 or not all(parts):
        raise UserError(
            f"task {text!r} is not of the form GAME, GAME/MODE or GAME/MODE/LEVELS: write {next(iter(GAMES))}, "
            "climber/hard or climber/easy/3:4"
        )
    task = Task(*[*parts, *(mode, levels)[len(parts) - 1 :]])
    for problem in task.problems():
        raise UserError(problem)
    return task
