"""The 16 ProcGen games: modes, score ranges, step limits, and the task sets of the papers.

Score ranges are those of Cobbe et al., "Leveraging Procedural Generation to Benchmark Reinforcement Learning"
(arXiv 1912.01588, appendix); modes and step limits are those of the native library, which ends the process
when asked for a game or a mode that it lacks. Hence `game_problems`, to be called first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import unknown_name

MODES: tuple[str, ...] = ("easy", "hard", "extreme", "memory", "exploration")

Number = TypeVar("Number", float, NDArray[np.float64])


@dataclass(frozen=True)
class ScoreRange:
    """Episode return of a trivial player (`low`) and of the best possible one (`high`)."""

    low: float
    high: float


@dataclass(frozen=True)
class Game:
    """One game: the `modes` it has, score ranges, and the number of steps after which an episode is cut off.

    `time_limit` is that of all modes but memory mode, which may have its own (`memory_time_limit`).
    """

    name: str
    modes: tuple[str, ...]
    easy: ScoreRange
    hard: ScoreRange
    time_limit: int = 1000
    memory_time_limit: int | None = None

    def limit(self, mode: str) -> int:
        """Steps after which an episode in `mode` is cut off."""
        if mode == "memory" and self.memory_time_limit is not None:
            return self.memory_time_limit
        return self.time_limit

    def score_range(self, mode: str) -> ScoreRange:
        """The range for `mode`: only easy and hard have published ones, the other modes use those of hard."""
        return self.easy if mode == "easy" else self.hard


# The one level that exploration mode plays, on hard difficulty: chosen by the authors of ProcGen because the
# goal is hard to reach by chance.
EXPLORATION_LEVELS: dict[str, int] = {
    "caveflyer": 1259048185,
    "climber": 1561126160,
    "coinrun": 1949448038,
    "heist": 876640971,
    "jumper": 1434825276,
    "leaper": 1318677581,
    "maze": 158988835,
    "ninja": 1123500215,
}
_MEMORY = frozenset({"caveflyer", "dodgeball", "heist", "jumper", "maze", "miner"})
_EXTREME = frozenset({"chaser", "dodgeball", "leaper", "starpilot"})


def _game(
    name: str,
    easy: tuple[float, float],
    hard: tuple[float, float],
    time_limit: int = 1000,
    memory_time_limit: int | None = None,
) -> Game:
    has = {
        "easy": True,
        "hard": True,
        "extreme": name in _EXTREME,
        "memory": name in _MEMORY,
        "exploration": name in EXPLORATION_LEVELS,
    }
    modes = tuple(mode for mode in MODES if has[mode])
    return Game(name, modes, ScoreRange(*easy), ScoreRange(*hard), time_limit, memory_time_limit)


GAMES: dict[str, Game] = {
    game.name: game
    for game in (
        _game("bigfish", easy=(1, 40), hard=(0, 40), time_limit=6000),
        _game("bossfight", easy=(0.5, 13), hard=(0.5, 13), time_limit=4000),
        _game("caveflyer", easy=(3.5, 12), hard=(2, 13.4)),
        _game("chaser", easy=(0.5, 13), hard=(0.5, 14.2)),
        _game("climber", easy=(2, 12.6), hard=(1, 12.6)),
        _game("coinrun", easy=(5, 10), hard=(5, 10)),
        _game("dodgeball", easy=(1.5, 19), hard=(1.5, 19)),
        _game("fruitbot", easy=(-1.5, 32.4), hard=(-0.5, 27.2)),
        _game("heist", easy=(3.5, 10), hard=(2, 10)),
        _game("jumper", easy=(3, 10), hard=(1, 10), memory_time_limit=2000),
        _game("leaper", easy=(3, 10), hard=(1.5, 10), time_limit=500),
        _game("maze", easy=(5, 10), hard=(4, 10), time_limit=500),
        _game("miner", easy=(1.5, 13), hard=(1.5, 20)),
        _game("ninja", easy=(3.5, 10), hard=(2, 10)),
        _game("plunder", easy=(4.5, 30), hard=(3, 30), time_limit=4000),
        _game("starpilot", easy=(2.5, 64), hard=(1.5, 35)),
    )
}

# easy6 and memory4: the multi-task sets of Irie et al. (arXiv 2202.05780).
TASK_SETS: dict[str, tuple[str, ...]] = {
    "easy6": ("bigfish", "fruitbot", "maze", "leaper", "plunder", "starpilot"),
    "memory4": ("dodgeball", "heist", "maze", "miner"),
    "all16": tuple(GAMES),
}


def expand_games(games: str | Iterable[str]) -> tuple[str, ...]:
    """The list of games meant by `games`: names of games or of task sets, as a list or separated by commas.

    Unknown names are kept for `game_problems` to report.

    >>> expand_games("memory4,bigfish")
    ('dodgeball', 'heist', 'maze', 'miner', 'bigfish')
    """
    items = [games] if isinstance(games, str) else list(games)
    names = [name.strip() for item in items for name in str(item).split(",")]
    return tuple(game for name in names if name for game in TASK_SETS.get(name, (name,)))


def game_problems(games: Sequence[str], mode: str) -> list[str]:
    """What forbids playing `games` in `mode`: one line for each problem, none if they can be played."""
    problems: list[str] = []
    if not games:
        problems.append(
            f"no games: name at least one of {', '.join(GAMES)} or a task set ({', '.join(TASK_SETS)})"
        )
    if mode not in MODES:
        problems.append(unknown_name("mode", mode, MODES))
    for name in dict.fromkeys(games):
        count = list(games).count(name)
        if count > 1:
            problems.append(
                f"game {name!r} is listed {count} times: list it once (games share the environments equally)"
            )
        if name not in GAMES:
            problems.append(unknown_name("game", name, [*GAMES, *TASK_SETS]))
        elif mode in MODES and mode not in GAMES[name].modes:
            having = ", ".join(game.name for game in GAMES.values() if mode in game.modes)
            problems.append(
                f"game {name!r} has no {mode} mode: it has {', '.join(GAMES[name].modes)}"
                f" (games with {mode} mode: {having})"
            )
    return problems


def score_range(game: str, mode: str) -> ScoreRange:
    """Score range of `game` in `mode` (memory, extreme and exploration: the constants of hard)."""
    return GAMES[game].score_range(mode)


def normalized_score(game: str, mode: str, value: Number) -> Number:
    """(R - low) / (high - low) of episode returns `value` (a number or an array of any shape)."""
    bounds = score_range(game, mode)
    return (value - bounds.low) / (bounds.high - bounds.low)
