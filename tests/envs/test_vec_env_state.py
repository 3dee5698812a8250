import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from envs import ProcgenVecEnv
from helpers import assert_same, play

GAMES = "starpilot,chaser,maze"
ROOT = Path(__file__).resolve().parents[2]
OTHER_PROCESS = """
import runpy, sys, numpy as np
sys.path.append("tests/support")
test = runpy.run_path("tests/envs/test_vec_env_state.py")
with np.load(sys.argv[1] + "/state.npz") as file:
    state = {key: value if value.ndim else value.item() for key, value in file.items()}
_, replayed = test["replay_elsewhere"](state, state.pop("steps"))
keys = ("rgb", "reward", "rewards", "dones")
arrays = {key: np.stack([step[key] for step in replayed]) for key in keys}
np.savez(sys.argv[1] + "/replay.npz", **arrays, infos=repr([step["infos"] for step in replayed]))
"""


def actions(steps: int, num_envs: int = 6) -> np.ndarray:
    return np.random.default_rng(3).integers(15, size=(steps, num_envs))


def new_env(seed: int = 1, **options: Any) -> ProcgenVecEnv:
    return ProcgenVecEnv(GAMES, **{"num_envs": 6, "seed": seed, "num_threads": 1, **options})


def replay_elsewhere(state: dict[str, Any], steps: np.ndarray) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    env = new_env(seed=99)
    observation = env.set_state(state)
    return observation, play(env, steps)


def test_replay_is_exact_here_in_a_fresh_instance_and_in_another_process(tmp_path):
    env = new_env()
    env.reset()
    last = play(env, actions(60))[-1]
    state = env.get_state()
    steps = actions(200)[60:]
    reference = play(env, steps)
    assert sum(step["dones"].sum() for step in reference) > 5

    observation = env.set_state(state)
    np.testing.assert_array_equal(observation["rgb"], last["rgb"])
    np.testing.assert_array_equal(observation["reward"], last["reward"])
    assert_same(play(env, steps), reference)

    observation, replayed = replay_elsewhere(state, steps)
    np.testing.assert_array_equal(observation["reward"], last["reward"])
    assert_same(replayed, reference)

    np.savez(tmp_path / "state.npz", **{key: np.asarray(value) for key, value in state.items()}, steps=steps)
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, str(tmp_path)], cwd=ROOT, check=True, timeout=120)
    with np.load(tmp_path / "replay.npz") as replay:
        for key in ("rgb", "reward", "rewards", "dones"):
            np.testing.assert_array_equal(replay[key], np.stack([step[key] for step in reference]))
        assert str(replay["infos"]) == repr([step["infos"] for step in reference])


def test_taking_a_state_changes_nothing():
    a, b = new_env(), new_env()
    a.reset(), b.reset()
    first = play(a, actions(30))
    a.get_state()
    assert_same(first + play(a, actions(30)), play(b, actions(30)) + play(b, actions(30)))


def test_a_state_is_plain_data():
    state = new_env().get_state()
    for key, value in state.items():
        assert isinstance(key, str)
        assert isinstance(value, (int, str, np.ndarray)), key
        assert not isinstance(value, np.ndarray) or value.dtype.kind in "uif", key


def test_resets_and_seeds_to_come_are_part_of_the_state():
    for prepare in (lambda env: None, lambda env: env.seed(5), lambda env: env.reset()):
        a, b = new_env(), new_env(seed=7)
        prepare(a)
        b.set_state(a.get_state())
        for _ in range(2):
            np.testing.assert_array_equal(a.reset()["rgb"], b.reset()["rgb"])
            assert a.current_levels == b.current_levels
        assert a.current_seed == b.current_seed


def test_fixed_levels_are_part_of_the_state():
    a, b = new_env(), new_env(seed=7)
    a.reset()
    a.play_levels([0, 4], [11, 1000])
    b.set_state(a.get_state())
    b.seed(3)
    b.reset()
    assert [b.current_levels[i] for i in (0, 4)] == [11, 1000]


@pytest.mark.parametrize("other", [
    {"games": "starpilot,maze,chaser"}, {"mode": "hard"}, {"levels": "test1"}, {"num_envs": 3},
    {"twist": "blank 2 of 4"},
])  # fmt: skip
def test_a_state_of_another_environment_is_refused(other):
    options = {"games": GAMES, "num_envs": 6, "num_threads": 0, **other}
    state = ProcgenVecEnv(**options).get_state()
    env = new_env()
    env.reset()
    before = env.get_state()
    with pytest.raises(UserError, match="environment state has"):
        env.set_state(state)
    np.testing.assert_array_equal(env.get_state()["native"], before["native"])


def test_a_damaged_state_is_refused():
    env = new_env()
    state = env.get_state()
    flipped = state["native"].copy()
    flipped[1000] ^= 1
    shifted = state["native_sizes"] + np.array([1, -1, 0, 0, 0, 0])
    for damage in ({"native": flipped}, {"native": state["native"][:-9]}, {"native_sizes": shifted}):
        with pytest.raises(UserError, match="damaged"):
            env.set_state({**state, **damage})
    with pytest.raises(UserError, match=r"not an environment state.*native"):
        env.set_state({"games": GAMES})
