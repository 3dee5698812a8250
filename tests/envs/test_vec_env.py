import gc
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor

from common.errors import UserError
from envs import GAMES, ProcgenVecEnv, native, normalized_score
from envs.games import EXPLORATION_LEVELS
from envs.native import NO_OP, NUM_ACTIONS, NativeEnv
from helpers import assert_same, play


@contextmanager
def make(*arguments: Any, **options: Any) -> Iterator[ProcgenVecEnv]:
    env = ProcgenVecEnv(*arguments, **{"num_threads": 2, **options})
    try:
        yield env
    finally:
        env.close()


def random_actions(env: ProcgenVecEnv, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(NUM_ACTIONS, size=(steps, env.num_envs))


def first_frame(game: str, level: int, mode: str = "easy") -> np.ndarray:
    with make([game], 1, mode, level_seeds=[level], num_threads=0) as env:
        return env.reset()["rgb"][0]


# Levels, seeds, games


def test_spaces_and_first_observation():
    with make("easy6", num_envs=12) as env:
        observation = env.reset()
        assert env.num_envs == 12
        assert env.action_space.n == 15
        for key, space in env.observation_space.spaces.items():
            assert observation[key].shape == (12, *space.shape)
            assert observation[key].dtype == space.dtype
            assert all(space.contains(value) for value in observation[key])


def test_same_level_same_first_frame_other_level_other_frame():
    with make(["maze"], 3, levels="7:8") as same, make(["maze"], 3, levels="8:9", seed=5) as other:
        frames, others = same.reset()["rgb"], other.reset()["rgb"]
    assert (frames == frames[0]).all()
    assert (others == others[0]).all()
    assert (frames[0] != others[0]).any()


@pytest.mark.parametrize("num_threads", [0, 3])
def test_same_seed_and_actions_same_sequence_whatever_the_threads(num_threads):
    with (
        make("starpilot,leaper", 6, seed=3) as a,
        make("starpilot,leaper", 6, seed=3, num_threads=num_threads) as b,
    ):
        np.testing.assert_array_equal(a.reset()["rgb"], b.reset()["rgb"])
        actions = random_actions(a, 150)
        steps = play(a, actions)
        assert_same(steps, play(b, actions))
    assert sum(step["dones"].sum() for step in steps) > 5


def test_other_seed_other_levels():
    with make(["maze"], 16, seed=1) as a, make(["maze"], 16, seed=2) as b:
        assert a.current_levels != b.current_levels


def test_seed_restarts_the_draws_at_the_next_reset():
    with make(["maze"], 8, seed=1) as a, make(["maze"], 8, seed=9) as b:
        b.reset()
        assert b.seed(1) == [1] * 8
        assert b.current_levels != a.current_levels
        np.testing.assert_array_equal(a.reset()["rgb"], b.reset()["rgb"])
        assert a.current_levels == b.current_levels
        assert b.current_seed == 1
        np.testing.assert_array_equal(a.reset()["rgb"], b.reset()["rgb"])


def test_a_random_seed_can_be_asked_for():
    with make(["maze"], 8) as env:
        seeds = env.seed(None)
        assert len(set(seeds)) == 1
        env.reset()
        assert env.current_seed == seeds[0]


def test_games_are_dealt_round_robin():
    games = ["maze", "bigfish", "heist"]
    with make(games, 6, levels="3:4") as env:
        frames = env.reset()["rgb"]
        assert env.get_attr("game") == games * 2
        assert env.game_of_env.tolist() == [0, 1, 2, 0, 1, 2]
        assert [info["game"] for info in env.reset_infos] == games * 2
    for i, game in enumerate(games * 2):
        np.testing.assert_array_equal(frames[i], first_frame(game, 3))


@pytest.mark.parametrize(("mode", "levels", "low", "high"), [
    ("easy", "train", 0, 200), ("memory", "train", 0, 500),
    ("easy", "test2", 1200, 1400), ("hard", "30:40", 30, 40),
])  # fmt: skip
def test_levels_are_drawn_from_the_whole_split(mode, levels, low, high):
    with make(["maze"], 64, mode, levels) as env:
        drawn = set()
        for _ in range(8):
            env.reset()
            drawn |= set(env.current_levels)
    assert low <= min(drawn) < low + (high - low) / 10
    assert high - (high - low) / 10 <= max(drawn) < high


def test_all_levels_go_beyond_every_split():
    with make(["maze"], 8, levels="all") as env:
        assert max(env.current_levels) > 100_000


def test_modes_are_played():
    frames = [first_frame("dodgeball", 3, mode) for mode in GAMES["dodgeball"].modes]
    assert len({frame.tobytes() for frame in frames}) == 4


def test_exploration_mode_plays_the_level_of_each_game_for_ever():
    games = ["coinrun", "maze", "leaper"]
    expected = [EXPLORATION_LEVELS[game] for game in games]
    with make(games, 3, "exploration", levels="0:10") as env:
        frames = env.reset()["rgb"]
        assert env.current_levels == expected
        ended = [info for step in play(env, np.full((502, 3), NO_OP)) for info in step["infos"] if info]
        assert {info["game"] for info in ended} >= {"maze", "leaper"}
        assert all(info["level_seed"] == EXPLORATION_LEVELS[info["game"]] for info in ended)
        env.seed(5)
        np.testing.assert_array_equal(env.reset()["rgb"], frames)
        with pytest.raises(UserError, match="exploration"):
            env.play_levels([0], [3])
    for game, frame in zip(games, frames, strict=True):
        library_env = native._env_class()(1, game, distribution_mode="exploration", num_threads=0)
        np.testing.assert_array_equal(library_env.observe()[1]["rgb"][0], frame)
        library_env.close()


# Fixed levels


def test_fixed_levels_are_played_again_and_again():
    levels = [3, 1500, 2**31 - 2, 3]
    with make(["starpilot"], level_seeds=levels) as env:
        frames = env.reset()["rgb"]
        assert env.num_envs == 4
        assert env.current_levels == levels
        np.testing.assert_array_equal(frames[0], frames[3])
        ended = np.zeros(4, dtype=int)
        for step in play(env, np.full((400, 4), NO_OP)):
            infos = step["infos"]
            for i in np.flatnonzero(step["dones"]):
                ended[i] += 1
                assert infos[i]["level_seed"] == infos[i]["prev_level_seed"] == levels[i]
                np.testing.assert_array_equal(step["rgb"][i], frames[i])
        assert ended.min() >= 3
        np.testing.assert_array_equal(env.reset()["rgb"], frames)
        env.seed(77)
        np.testing.assert_array_equal(env.reset()["rgb"], frames)


def test_a_level_plays_the_same_in_any_place_of_any_instance():
    with (
        make(["chaser"], 1, levels="5:6", seed=8) as one,
        make("maze,chaser", level_seeds=[0, 1, 2, 5]) as many,
    ):
        one.reset()
        many.reset()
        for action in np.random.default_rng(1).integers(NUM_ACTIONS, size=150):
            a = one.step(np.array([action]))
            b = many.step(np.array([0, 0, 0, action]))
            np.testing.assert_array_equal(a[0]["rgb"][0], b[0]["rgb"][3])
            assert (a[1][0], a[2][0]) == (b[1][3], b[2][3])


def test_play_levels_changes_the_chosen_ones_only():
    with make("maze,starpilot", 6, seed=2) as env, make("maze,starpilot", 6, seed=2) as untouched:
        for each in (env, untouched):
            each.reset()
            before = play(each, random_actions(each, 20))[-1]
        observation = env.play_levels([1, 4], [12, 900])
        np.testing.assert_array_equal(observation["rgb"][1], first_frame("starpilot", 12))
        np.testing.assert_array_equal(observation["rgb"][4], first_frame("maze", 900))
        others = [0, 2, 3, 5]
        np.testing.assert_array_equal(observation["rgb"][others], before["rgb"][others])
        np.testing.assert_array_equal(observation["reward"][others], before["reward"][others])
        assert (observation["reward"][[1, 4]] == 0).all()
        assert [env.current_levels[i] for i in (1, 4)] == [12, 900]

        actions = random_actions(env, 200, seed=1)
        length = 0
        for changed, same in zip(play(env, actions), play(untouched, actions), strict=True):
            np.testing.assert_array_equal(changed["rgb"][others], same["rgb"][others])
            assert [changed["infos"][i] for i in others] == [same["infos"][i] for i in others]
            length += 1
            if changed["dones"][1]:
                assert changed["infos"][1]["episode"]["l"] == length
                assert changed["infos"][1]["level_seed"] == 12
                length = 0
        assert length < 200, "the environment never ended an episode"


def test_play_levels_clears_the_reward_observation_there():
    with make(["jumper"], level_seeds=[9, 9]) as env:
        assert env.step(np.full(2, NO_OP))[0]["reward"].tolist() == [[1], [1]]
        assert env.play_levels([1], [3])["reward"].tolist() == [[1], [0]]


@pytest.mark.parametrize(("indices", "levels", "message"), [
    ([0, 1], [5], "1 level seeds for 2 environments"), ([0, 0], [1, 2], "listed twice"), ([4], [1], "do not exist"),
    ([-1], [1], "do not exist"), ([0], [-1], "level seeds must be"),
])  # fmt: skip
def test_play_levels_refuses_what_does_not_exist(indices, levels, message):
    with make(["maze"], 4) as env, pytest.raises(UserError, match=message):
        env.play_levels(indices, levels)


# Episodes


def test_statistics_equal_those_of_a_loop_over_environments():
    with make("starpilot,chaser,fruitbot", 9, seed=4) as env:
        env.reset()
        returns, lengths, levels = [0.0] * 9, [0] * 9, env.current_levels
        episodes, previous = 0, np.zeros(9)
        for action in random_actions(env, 300):
            observation, rewards, dones, infos = env.step(action)
            for i in range(9):
                returns[i] += float(rewards[i])
                lengths[i] += 1
                assert observation["reward"].dtype == np.float32
                assert observation["reward"][i, 0] == max(-1.0, min(1.0, float(rewards[i])))
                assert bool(infos[i]) == bool(dones[i])
                if dones[i]:
                    info = infos[i]
                    game = env.games[i % 3]
                    assert info["game"] == game
                    assert info["episode"]["r"] == pytest.approx(returns[i])
                    assert info["episode"]["l"] == lengths[i]
                    assert info["normalized_return"] == pytest.approx(
                        normalized_score(game, "easy", returns[i])
                    )
                    assert info["prev_level_seed"] == levels[i]
                    assert not info["TimeLimit.truncated"]
                    returns[i], lengths[i], levels[i] = 0.0, 0, info["level_seed"]
                    episodes += 1
            assert levels == env.current_levels
            previous = np.maximum(previous, np.abs(rewards))
        assert episodes > 20
        assert previous.max() > 1, "no reward was large enough to be clipped"


def test_completed_levels_and_deaths_are_told_apart():
    # On easy jumper, 19 of the 200 training levels end after one step: in 4 the player lands on the goal.
    with make(["jumper"], level_seeds=range(200)) as env:
        env.reset()
        _, rewards, dones, infos = env.step(np.full(200, NO_OP))
        ended = np.flatnonzero(dones)
        assert len(ended) == 19
        for i in ended:
            won = rewards[i] == 10
            assert infos[i]["prev_level_complete"] is bool(won)
            assert infos[i]["TimeLimit.truncated"] is False
            assert infos[i]["episode"]["l"] == 1
            assert infos[i]["normalized_return"] == pytest.approx(1 if won else -3 / 7)
        assert (rewards[ended] == 10).sum() == 4


def test_reset_in_the_middle_starts_episodes_and_the_step_limit_truncates():
    with make("maze,leaper", 8) as env:
        env.reset()
        play(env, np.full((10, 8), NO_OP))
        old = env.current_levels
        observation = env.reset()
        assert sum(a != b for a, b in zip(old, env.current_levels, strict=True)) >= 6
        for i, level in enumerate(env.current_levels):
            np.testing.assert_array_equal(observation["rgb"][i], first_frame(env.games[i % 2], level))
        levels = env.current_levels
        steps = play(env, np.full((500, 8), NO_OP))
        assert not any(step["dones"].any() for step in steps[:-1])
        for i, info in enumerate(steps[-1]["infos"]):
            assert info["TimeLimit.truncated"] is True
            assert info["prev_level_complete"] is False
            assert info["prev_level_seed"] == levels[i]
            assert (info["episode"]["l"], info["episode"]["r"]) == (500, 0)


def test_a_long_episode_is_not_truncated_at_a_thousand_steps():
    # bossfight is cut off at 4000 steps; on this level a player who stands still lives for more than 1000.
    with make(["bossfight"], level_seeds=[23], num_threads=0) as env:
        env.reset()
        (info,) = (step["infos"][0] for step in play(env, np.full((1100, 1), NO_OP)) if step["dones"][0])
    assert info["episode"]["l"] == 1094
    assert info["TimeLimit.truncated"] is False


def test_a_level_completed_in_the_last_step_is_not_truncated():
    with make(["jumper"], level_seeds=[9, 11], num_threads=0) as env:
        env._time_limit[:] = 1
        env.reset()
        infos = env.step(np.full(2, NO_OP))[3]
        assert [info["prev_level_complete"] for info in infos] == [True, False]
        assert [info["TimeLimit.truncated"] for info in infos] == [False, True]


def test_every_reset_draws_new_levels():
    with make(["maze"], 32) as env:
        draws = []
        for _ in range(3):
            env.reset()
            draws.append(env.current_levels)
        assert draws[0] != draws[1] != draws[2] != draws[0]
        assert [info["level_seed"] for info in env.reset_infos] == draws[2]


def test_the_reward_observation_is_zero_after_reset_but_not_after_an_episode():
    with make(["jumper"], level_seeds=range(200)) as env:
        observation, rewards, dones, _ = env.step(np.full(200, NO_OP))
        assert dones.any()
        np.testing.assert_array_equal(observation["reward"][dones, 0], rewards[dones] / 10)
        assert rewards[dones].max() == 10
        assert (env.reset()["reward"] == 0).all()


def test_reset_drops_a_step_in_progress():
    with make(["maze"], 4) as env:
        env.reset()
        env.step_async(np.full(4, NO_OP))
        env.reset()
        last = play(env, np.full((500, 4), NO_OP))[-1]
        assert last["dones"].all()
        assert last["infos"][0]["episode"]["l"] == 500


# Stepping


def test_step_async_does_not_wait_for_the_step(monkeypatch):
    calls: list[str] = []
    for name in ("act", "observe"):
        method = getattr(NativeEnv, name)

        def spy(self, *args, _name=name, _method=method):
            calls.append(_name)
            return _method(self, *args)

        monkeypatch.setattr(NativeEnv, name, spy)
    with make(["maze"], 4) as env:
        env.reset()
        calls.clear()
        env.step_async(np.full(4, NO_OP))
        assert calls == ["act"]
        env.step_wait()
        assert calls == ["act", "observe"]


def test_what_was_returned_never_changes():
    with make("starpilot,chaser", 4, render_mode="rgb_array") as env:
        kept, copies = [], []

        def keep(*arrays: np.ndarray) -> None:
            kept.extend(arrays)
            copies.extend(array.copy() for array in arrays)

        keep(*env.reset().values(), *env.get_images())
        for action in random_actions(env, 12):
            observation, rewards, dones, _ = env.step(action)
            keep(*observation.values(), rewards, dones, *env.get_images())
        state = env.get_state()
        keep(*(value for value in state.values() if isinstance(value, np.ndarray)))
        keep(*env.play_levels([0], [5]).values())
        play(env, random_actions(env, 5))
        keep(*env.reset().values())
        env.set_state(state)
        env.step(np.full(4, NO_OP))
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_writing_into_an_observation_does_not_change_the_next_one():
    with make(["jumper"], level_seeds=range(200)) as env:
        observation = env.step(np.full(200, NO_OP))[0]
        expected = observation["reward"].copy()
        observation["reward"][:] = -7
        np.testing.assert_array_equal(env.observe()["reward"], expected)


@pytest.mark.parametrize("actions", [
    [0, 0, 15], [-1, 0, 0], [0, 0], [0.0, 1.0, 2.0], [[0, 1, 2]],
])  # fmt: skip
def test_actions_that_do_not_exist(actions):
    with make(["maze"], 3) as env:
        env.reset()
        with pytest.raises(UserError, match="actions must be"):
            env.step(np.array(actions))


def test_steps_must_be_collected_in_order():
    with make(["maze"], 2) as env:
        env.reset()
        with pytest.raises(RuntimeError, match="without a step"):
            env.step_wait()
        env.step_async(np.zeros(2, dtype=int))
        for call in (env.get_state, env.observe, lambda: env.step_async(np.zeros(2, dtype=int))):
            with pytest.raises(RuntimeError, match="middle of a step"):
                call()
        env.step_wait()


# Rendering and the rest of the VecEnv interface


def test_images_show_the_current_step_of_each_environment():
    with make("maze,bigfish", 4, render_mode="rgb_array") as env:
        env.reset()
        images = env.get_images()
        assert [image.shape for image in images] == [(512, 512, 3)] * 4
        for image, small in zip(images, env.observe()["rgb"], strict=True):
            shrunk = image.reshape(64, 8, 64, 8, 3).mean(axis=(1, 3))
            assert np.abs(shrunk - small).mean() < 20
        env.step(np.full(4, 7))
        assert any((a != b).any() for a, b in zip(images, env.get_images(), strict=True))
        assert env.render().shape == (1024, 1024, 3)
        np.testing.assert_array_equal(env.env_method("render", indices=3)[0], env.get_images()[3])


def test_without_render_mode_there_are_no_images():
    with make(["maze"], 2) as env:
        assert env.get_images() == [None, None]
        with pytest.warns(UserWarning, match="no `render_mode`"):
            assert env.render() is None


def test_attributes():
    with make("maze,bigfish", 4, seed=6) as env:
        assert env.get_attr("game", [1, -1]) == ["bigfish", "bigfish"]
        assert env.get_attr("render_mode") == [None] * 4
        assert env.get_attr("current_seed", 0) == [6]
        assert not env.has_attr("nonsense")
        env.set_attr("difficulty", 3, indices=[1, 2])
        assert env.get_attr("difficulty", [2, 1]) == [3, 3]
        with pytest.raises(AttributeError, match="not set in environments"):
            env.get_attr("difficulty")
        with pytest.raises(AttributeError, match="cannot be changed"):
            env.set_attr("mode", "hard")
        with pytest.raises(AttributeError, match="no method 'jump'"):
            env.env_method("jump")
        assert env.env_method("get_wrapper_attr", "game", indices=[0]) == ["maze"]
        assert env.env_is_wrapped(Monitor) == [True] * 4
        assert env.env_is_wrapped(VecMonitor, indices=[0]) == [False]


def test_reset_options_are_refused():
    with make(["maze"], 2) as env:
        env.set_options()
        env.set_options([{}, {}])
        with pytest.raises(UserError, match="play_levels"):
            env.set_options({"level_seed": 3})


def test_close_twice():
    with make(["maze"], 2) as env:
        env.step_async(np.zeros(2, dtype=int))
        env.close()


def test_an_environment_that_nobody_closed_can_be_collected_at_any_time() -> None:
    """The garbage collector may come while cffi holds its lock."""
    env = ProcgenVecEnv("maze", 1, num_threads=0)
    lock = env._native._env._ffi._lock
    done = threading.Event()
    holder = [env]
    del env

    def collect() -> None:
        holder.clear()
        gc.collect()
        done.set()

    with lock:
        threading.Thread(target=collect, daemon=True).start()
        assert done.wait(timeout=20)


def test_a_closed_environment_says_so():
    env = ProcgenVecEnv(["maze"], 2, num_threads=0)
    env.reset()
    env.close()
    with pytest.raises(ClosedEnvironmentError, match="has been closed: make a new one"):
        env.step(np.zeros(2, dtype=int))


def test_pickling_says_what_to_do_instead():
    with make(["maze"], 2) as env, pytest.raises(TypeError, match="make it in the process that plays it"):
        pickle.dumps(env)
