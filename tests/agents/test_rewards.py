from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.rewards import REWARD_TRANSFORMS, make_reward_transform
from common.errors import UserError

NUM_ENVS, DISCOUNT = 4, 0.97


def stream(seed: int, steps: int, num_envs: int = NUM_ENVS) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rewards as of a game, mostly 0 with some far outside [-1, 1], and episode ends."""
    rng = np.random.default_rng(seed)
    rewards = (rng.random((steps, num_envs)) < 0.3) * rng.normal(2.0, 20.0, (steps, num_envs))
    return list(zip(rewards.astype(np.float32), rng.random((steps, num_envs)) < 0.15, strict=True))


class Replay(gymnasium.Env[np.ndarray, np.int64]):
    """Plays a fixed stream of rewards and episode ends."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        self._steps = zip(rewards, dones, strict=True)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, done = next(self._steps)
        return np.zeros(1, np.float32), float(reward), bool(done), False, {}


MAZES = ("maze",) * NUM_ENVS


def test_normalize_with_one_game_is_vec_normalize() -> None:
    steps = stream(0, 300)
    steps[120][0][1] = 1e4
    rewards, dones = (np.array(part) for part in zip(*steps, strict=True))
    envs = [partial(Replay, rewards[:, env], dones[:, env]) for env in range(NUM_ENVS)]
    reference = VecNormalize(DummyVecEnv(envs), norm_obs=False, gamma=DISCOUNT)
    transform = make_reward_transform("normalize", NUM_ENVS, DISCOUNT)
    largest = 0.0
    for start in (0, 150):  # starting all environments anew forgets the returns so far, not the statistics
        reference.reset()
        transform.reset()
        for rewards, dones in steps[start : start + 150]:
            _, expected, _, _ = reference.step(np.zeros(NUM_ENVS, int))
            got = transform(rewards, dones, MAZES)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, expected)
            largest = max(largest, float(np.abs(got).max()))
    assert largest == 10.0  # the clip was crossed


def test_normalize_treats_games_apart() -> None:
    games = ("maze", "heist", "maze", "heist")
    steps = stream(1, 120)
    both = make_reward_transform("normalize", 4, DISCOUNT)
    alone = make_reward_transform("normalize", 2, DISCOUNT)
    for rewards, dones in steps:
        louder = rewards.copy()
        louder[[0, 2]] *= 1000.0  # what happens in another game
        got = both(louder, dones, games)
        expected = alone(rewards[[1, 3]], dones[[1, 3]], ("heist", "heist"))
        np.testing.assert_array_equal(got[[1, 3]], expected)


def test_normalize_gives_games_of_different_scale_the_same_scale() -> None:
    games = ("maze", "bigfish")
    transform = make_reward_transform("normalize", 2, DISCOUNT)
    rng = np.random.default_rng(2)
    got = np.array([
        transform(np.float32(rng.normal(size=2) * [1.0, 1000.0]), np.zeros(2, bool), games) for _ in range(3000)
    ])  # fmt: skip
    small, large = got[1000:].std(axis=0)
    assert large == pytest.approx(small, rel=0.2)


def test_normalize_continues_exactly_from_its_state() -> None:
    games = ("maze", "heist") * 2
    steps = stream(3, 100)
    transform = make_reward_transform("normalize", 4, DISCOUNT)
    for step in steps[:50]:
        transform(*step, games)
    state = transform.state()
    expected = [transform(*step, games) for step in steps[50:]]
    other = make_reward_transform("normalize", 4, DISCOUNT)
    other.load_state(state)  # the state is of before those steps, though they were made since
    np.testing.assert_array_equal([other(*step, games) for step in steps[50:]], expected)


def test_a_state_stays_what_it_was() -> None:
    transform = make_reward_transform("normalize", 2, DISCOUNT)
    transform(np.ones(2, np.float32), np.zeros(2, bool), ("maze", "maze"))
    state = transform.state()
    transform.reset()
    transform(np.ones(2, np.float32), np.zeros(2, bool), ("maze", "maze"))
    np.testing.assert_array_equal(state["returns"], [1.0, 1.0])


def test_normalize_takes_up_the_statistics_of_games_it_knows() -> None:
    """Training that goes on with other games or another number of environments keeps the scales it can use."""
    source = make_reward_transform("normalize", 2, DISCOUNT)
    for rewards, dones in stream(4, 100, num_envs=2):
        source(rewards * 100.0, dones, ("maze", "heist"))
    target = make_reward_transform("normalize", 3, DISCOUNT)
    target.load_state(source.state())
    one, _, unknown = target(np.ones(3, np.float32), np.zeros(3, bool), ("heist", "heist", "leaper"))
    assert abs(one) < 0.02  # scaled by the large returns seen before
    assert unknown > 0.9
    statistics = target.state()["statistics"]
    assert statistics["heist"]["count"] > 100
    assert statistics["maze"] == source.state()["statistics"]["maze"]  # kept: it may come back


def test_normalize_follows_a_stream_of_games() -> None:
    """Where an environment goes on with another game, its rewards count for that game from then on."""
    steps = stream(5, 90, num_envs=1)
    switching = make_reward_transform("normalize", 1, DISCOUNT)
    apart = {game: make_reward_transform("normalize", 1, DISCOUNT) for game in ("maze", "heist")}
    for number, (rewards, _) in enumerate(steps):
        games = ("maze",) if (number // 30) % 2 == 0 else ("heist",)
        dones = np.array([number % 30 == 29])  # a switch follows the end of an episode
        got = switching(rewards, dones, games)
        np.testing.assert_array_equal(got, apart[games[0]](rewards, dones, games))


def test_inputs_are_not_modified() -> None:
    rewards, dones = np.array([5.0, -3.0], np.float32), np.array([True, False])
    for name in REWARD_TRANSFORMS:
        make_reward_transform(name, 2, DISCOUNT)(rewards, dones, ("maze", "maze"))
    np.testing.assert_array_equal(rewards, [5.0, -3.0])
    np.testing.assert_array_equal(dones, [True, False])


def test_clip() -> None:
    transform = make_reward_transform("clip", 5, DISCOUNT)
    got = transform(np.array([10.0, 1.0, 0.25, -0.5, -7.0], np.float32), np.zeros(5, bool), MAZES)
    np.testing.assert_array_equal(got, np.array([1.0, 1.0, 0.25, -0.5, -1.0], np.float32))
    assert got.dtype == np.float32
    transform.load_state(transform.state())


def test_none() -> None:
    rewards = np.array([10.0, 0.25, -7.0], np.float32)
    transform = make_reward_transform("none", 3, DISCOUNT)
    np.testing.assert_array_equal(transform(rewards, np.ones(3, bool), MAZES), rewards)
    transform.load_state(transform.state())


def test_rewards_of_double_precision_become_single() -> None:
    for name in REWARD_TRANSFORMS:
        transform = make_reward_transform(name, 1, DISCOUNT)
        assert transform(np.array([0.5]), np.array([False]), ("maze",)).dtype == np.float32


def test_an_unknown_name_is_one_line_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"^unknown reward transform 'normalise': did you mean normalize\?.*clip"
    ):
        make_reward_transform("normalise", 1, DISCOUNT)
