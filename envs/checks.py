"""Everything that can be wrong with a request for environments, found before the native library is used."""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import UserError, shown
from envs.games import game_problems
from envs.levels import MAX_LEVEL, Levels, parse_levels
from envs.twists import twist_problems

MAX_SEED = 2**31 - 1
MAX_ENVS, MAX_THREADS = 16_384, 1024
"""Beyond these a number is a typing error."""
DEFAULT_NUM_ENVS = 64


def default_num_envs(num_games: int, level_seeds: Sequence[int] | None = None) -> int:
    """One environment for each of `level_seeds`, else 64 rounded up to a multiple of the number of games."""
    if level_seeds is not None:
        return len(level_seeds)
    return -(-DEFAULT_NUM_ENVS // max(num_games, 1)) * max(num_games, 1)


def level_seed_problems(level_seeds: Sequence[int]) -> list[str]:
    """What is wrong with explicit level seeds."""
    bad = [shown(seed) for seed in level_seeds if not 0 <= seed <= MAX_LEVEL]
    return [f"level seeds must be from 0 to {MAX_LEVEL}, not {', '.join(bad[:5])}"] if bad else []


def part_problems(num_envs: int, part: tuple[int, int]) -> list[str]:
    """What is wrong with one of so many equal parts, (index, count), of `num_envs` environments."""
    index, count = part
    if not 0 <= index < count:
        return [f"part {index} of {count} does not exist: give (index, count) with index from 0 to count - 1"]
    if num_envs % count:
        return [f"{num_envs} environments cannot be cut into {count} equal parts: use a multiple of {count}"]
    return []


def sharing_problems(num_envs: int, count: int, what: str) -> list[str]:
    """What is wrong with `num_envs` environments that so many games or tasks share; `what` names them."""
    if count < 1 or num_envs % count == 0:
        return []
    below = num_envs // count * count
    near = f"{below} or {below + count}" if below else f"{count}"
    return [f"{num_envs} environments cannot be shared equally by {count} {what}: use {near}"]


def environment_problems(
    games: Sequence[str],
    num_envs: int,
    mode: str = "easy",
    levels: str | Levels = "train",
    seed: int = 0,
    render_mode: str | None = None,
    num_threads: int = 4,
    level_seeds: Sequence[int] | None = None,
    twist: str | None = None,
) -> list[str]:
    """All contradictions in the arguments of a `ProcgenVecEnv` (games already expanded), one line each."""
    problems = [*game_problems(games, mode), *twist_problems(twist)]
    if num_envs < 1:
        problems.append(f"{shown(num_envs)} environments: at least {max(len(games), 1)} needed")
    elif num_envs > MAX_ENVS:
        problems.append(f"{shown(num_envs)} environments: at most {MAX_ENVS:,} are possible")
    else:
        problems += sharing_problems(num_envs, len(games), "games")
    if isinstance(levels, str):
        try:
            parse_levels(levels, mode)
        except UserError as error:
            problems.append(str(error))
    elif levels.start < 0 or levels.count < 0 or levels.start + levels.count > MAX_LEVEL + 1:
        problems.append(f"levels {levels.name!r} must lie between 0 and {MAX_LEVEL}")
    if not 0 <= seed <= MAX_SEED:
        problems.append(f"seed {shown(seed)} must be from 0 to {MAX_SEED}")
    if render_mode not in (None, "rgb_array"):
        problems.append(f"render mode {render_mode!r} does not exist: use 'rgb_array' or None")
    if not 0 <= num_threads <= MAX_THREADS:
        problems.append(
            f"num_threads is {shown(num_threads)}: use 0 (step in the calling thread) to {MAX_THREADS:,}"
        )
    if level_seeds is not None:
        problems += level_seed_problems(level_seeds)
        if len(level_seeds) != num_envs:
            problems.append(f"{len(level_seeds)} level seeds for {num_envs} environments: give one for each")
        if mode == "exploration":
            problems.append("exploration mode plays one level chosen by the game: leave the level seeds out")
    return problems
