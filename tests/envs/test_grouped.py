from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from common.errors import UserError
from envs import ProcgenVecEnv, Task
from envs.grouped import GroupedVecEnv, group_seeds, grouped_procgen, tasks_at_once

GAMES = ("maze", "heist", "leaper")


def new_env(num_envs: int = 15, **options: Any) -> VecEnv:
    return grouped_procgen(GAMES, num_envs, num_threads=0, **options)


def steps(env: VecEnv, number: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [env.step(rng.integers(15, size=env.num_envs)) for _ in range(number)]


def test_environments_play_the_games_in_turn_in_whole_rounds() -> None:
    env = new_env(groups=2)
    assert isinstance(env, GroupedVecEnv)
    assert env.slices == (slice(0, 9), slice(9, 15))
    assert env.get_attr("game") == list(GAMES) * 5
    assert env.get_attr("game", [3, 10, -1]) == ["maze", "heist", "leaper"]
    assert env.env_is_wrapped(Monitor) == [True] * 15
    env.close()


@pytest.mark.parametrize(
    ("num_envs", "groups", "sizes"),
    [
        (15, 2, [9, 6]),
        (15, 4, [6, 3, 3, 3]),
        (15, 9, [3] * 5),
        (3, 2, [3]),
        (15, 1, [15]),
        (None, 2, [33, 33]),
    ],
)
def test_sizes_of_groups(num_envs: int | None, groups: int, sizes: list[int]) -> None:
    env = grouped_procgen(GAMES, num_envs, groups=groups, num_threads=0)
    members = env.groups if isinstance(env, GroupedVecEnv) else (env,)
    assert [member.num_envs for member in members] == sizes
    assert env.num_envs == sum(sizes)
    env.close()


def test_a_step_is_the_steps_of_its_groups() -> None:
    env = new_env(groups=2, seed=7)
    parts = [
        ProcgenVecEnv(GAMES, size, seed=seed, num_threads=0)
        for size, seed in zip((9, 6), group_seeds(7, 2), strict=True)
    ]
    observation = env.reset()
    expected = [part.reset() for part in parts]
    np.testing.assert_array_equal(observation["rgb"], np.concatenate([part["rgb"] for part in expected]))
    assert env.reset_infos == [info for part in parts for info in part.reset_infos]
    rng = np.random.default_rng(1)
    ended = 0
    for _ in range(520):
        actions = rng.integers(15, size=15)
        observation, rewards, dones, infos = env.step(actions)
        first, second = (part.step(actions[own]) for part, own in zip(parts, env.slices, strict=True))
        for name in ("rgb", "reward"):
            np.testing.assert_array_equal(
                observation[name], np.concatenate([first[0][name], second[0][name]])
            )
        np.testing.assert_array_equal(rewards, np.concatenate([first[1], second[1]]))
        np.testing.assert_array_equal(dones, np.concatenate([first[2], second[2]]))
        for info, part in zip(infos, [*first[3], *second[3]], strict=True):
            assert info.keys() == part.keys()
            assert info.get("prev_level_seed") == part.get("prev_level_seed")
        ended += dones.sum()
    assert ended > 15
    for one in (env, *parts):
        one.close()


def test_groups_play_other_levels_than_each_other_and_than_another_seed() -> None:
    levels = []
    for seed in (0, 1):
        env = new_env(6, groups=2, seed=seed, levels="all")
        assert isinstance(env, GroupedVecEnv)
        env.reset()
        levels += [tuple(group.current_levels) for group in env.groups]
        env.close()
    assert len(set(levels)) == 4


def test_seed_starts_the_draws_again() -> None:
    env = new_env(6, groups=2)
    seen = []
    for _ in range(2):
        assert len(env.seed(5)) == 6
        seen.append(env.reset()["rgb"])
        steps(env, 3)
    np.testing.assert_array_equal(*seen)
    env.close()


def test_replay_from_a_state_is_exact() -> None:
    env, other = new_env(groups=2), new_env(groups=2, seed=3)
    env.reset()
    other.reset()
    steps(env, 30)
    state = env.get_state()
    expected = steps(env, 40)
    observation = other.set_state(state)
    assert observation["rgb"].shape == (15, 64, 64, 3)
    for one, again in zip(expected, steps(other, 40), strict=True):
        np.testing.assert_array_equal(one[0]["rgb"], again[0]["rgb"])
        np.testing.assert_array_equal(one[1], again[1])
    env.close()
    other.close()


def test_a_state_of_other_groups_is_refused() -> None:
    two, three, one = (new_env(groups=groups) for groups in (2, 3, 1))
    for env, state, words in (
        (two, three.get_state(), "has 3 groups of environments, this one has 2"),
        (two, one.get_state(), "has 0 groups of environments, this one has 2"),
        (one, two.get_state(), "not an environment state"),
    ):
        with pytest.raises(UserError, match=words):
            env.set_state(state)
    for env in (two, three, one):
        env.close()


def test_attributes_and_methods_reach_their_environments() -> None:
    env = new_env(groups=2)
    env.set_attr("colour", "red", [0, 9, 14])
    assert env.get_attr("colour", [9, 14, 0]) == ["red"] * 3
    with pytest.raises(AttributeError):
        env.get_attr("colour", 10)
    assert env.env_method("get_wrapper_attr", "game", indices=[1, 14]) == ["heist", "leaper"]
    env.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 16}, "16"),
        ({"groups": 0}, "groups must be at least 1"),
        ({"mode": "memory"}, "leaper"),
        ({"num_envs": 0}, "0"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        new_env(**options)


def test_unknown_games_are_named() -> None:
    with pytest.raises(UserError, match="did you mean maze"):
        grouped_procgen(["mase"], 4, groups=2)


def test_groups_must_fit_together() -> None:
    with pytest.raises(ValueError, match="at least one"):
        GroupedVecEnv([])
    procgen = ProcgenVecEnv("maze", 1, num_threads=0)
    with pytest.raises(ValueError, match="same observation"):
        GroupedVecEnv([procgen, DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])])
    with pytest.raises(UserError, match="3 actions for 1"):
        GroupedVecEnv([procgen]).step_async(np.zeros(3, dtype=int))
    procgen.close()


def test_tasks_that_one_native_instance_can_play_share_it() -> None:
    env = tasks_at_once([Task("maze"), Task("heist")], 6, seed=3, num_threads=0)
    assert isinstance(env, ProcgenVecEnv)
    assert (env.games, env.current_seed) == (("maze", "heist"), 3)
    env.close()


def test_tasks_on_levels_of_their_own_are_groups() -> None:
    tasks = [Task("maze"), Task("maze", "hard", "7:8"), Task("heist", "easy", "5:6")]
    env = tasks_at_once(tasks, 6, seed=3, num_threads=0)
    assert isinstance(env, GroupedVecEnv)
    assert [group.num_envs for group in env.groups] == [2, 2, 2]
    assert env.get_attr("game") == ["maze", "maze", "maze", "maze", "heist", "heist"]
    assert env.get_attr("mode") == ["easy", "easy", "hard", "hard", "easy", "easy"]
    assert env.get_attr("current_levels", [2, 4]) == [[7, 7], [5, 5]]
    assert env.get_attr("current_seed", [0, 2, 4]) == group_seeds(3, 3)
    env.close()


def test_tasks_have_as_many_environments_each() -> None:
    with pytest.raises(UserError, match="7 environments cannot be shared equally by 2 tasks: use 6 or 8"):
        tasks_at_once([Task("maze"), Task("maze", "hard")], 7)
