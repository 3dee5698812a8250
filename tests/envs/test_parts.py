"""Parts of environments, which processes share a run in, against the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from envs import ProcgenVecEnv, grouped_procgen
from helpers import play

GAMES = ("dodgeball", "bigfish", "fruitbot")
STEPS = 60


def cut(steps: list[dict[str, Any]], envs: slice | list[int]) -> list[dict[str, Any]]:
    numbers = np.arange(len(steps[0]["dones"]))[envs]
    return [{key: [value[number] for number in numbers] for key, value in step.items()} for step in steps]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        for key in theirs:
            np.testing.assert_equal(list(mine[key]), list(theirs[key]))


@pytest.mark.parametrize(("num_envs", "count"), [(6, 2), (6, 3), (3, 3)])
def test_each_part_plays_what_it_plays_in_the_whole(num_envs: int, count: int) -> None:
    """Whole rounds of the games or not, and again after `seed`, which an agent calls before its first reset."""
    actions = np.random.default_rng(1).integers(15, size=(STEPS, num_envs))
    whole = ProcgenVecEnv(GAMES, num_envs, seed=4, num_threads=0)
    whole.seed(9)
    whole.reset()
    expected = play(whole, actions)
    whole.close()
    assert any(step["dones"].any() for step in expected)
    own = num_envs // count
    for index in range(count):
        envs = slice(index * own, (index + 1) * own)
        part = ProcgenVecEnv(GAMES, num_envs, seed=4, num_threads=0, part=(index, count))
        assert part.num_envs == own
        assert part.get_attr("game") == [GAMES[env % 3] for env in range(num_envs)][envs]
        part.seed(9)
        part.reset()
        same(play(part, actions[:, envs]), cut(expected, envs))
        part.close()


def test_fixed_levels_are_those_of_the_whole() -> None:
    levels = [11, 12, 13, 14]
    for index in range(2):
        part = ProcgenVecEnv(["maze"], 4, num_threads=0, level_seeds=levels, part=(index, 2))
        part.reset()
        assert part.current_levels == levels[2 * index : 2 * index + 2]
        part.close()


def test_a_part_continues_from_its_state() -> None:
    actions = np.random.default_rng(2).integers(15, size=(20, 2))
    part, other = (ProcgenVecEnv(GAMES, 6, num_threads=0, part=(1, 3)) for _ in range(2))
    part.reset()
    play(part, actions)
    other.set_state(part.get_state())
    same(play(other, actions), play(part, actions))
    part.close()
    other.close()


def test_groups_are_cut_one_by_one() -> None:
    """Each process has its part of every group, whose levels are those of the group in one process."""
    whole = grouped_procgen(GAMES, 12, groups=2, seed=3, num_threads=0)
    whole.reset()
    actions = np.random.default_rng(3).integers(15, size=(STEPS, 12))
    expected = play(whole, actions)
    whole.close()
    for index in range(2):
        envs = [*range(3 * index, 3 * index + 3), *range(6 + 3 * index, 9 + 3 * index)]
        part = grouped_procgen(GAMES, 12, groups=2, seed=3, num_threads=0, part=(index, 2))
        part.reset()
        same(play(part, actions[:, envs]), cut(expected, envs))
        part.close()


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 0)])
def test_a_part_that_does_not_exist_is_refused(part: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="does not exist"):
        ProcgenVecEnv(["maze"], 4, part=part)


def test_environments_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(
        UserError, match="4 environments cannot be cut into 3 equal parts: use a multiple of 3"
    ):
        ProcgenVecEnv(["maze"], 4, part=(0, 3))
