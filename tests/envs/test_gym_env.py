import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordEpisodeStatistics

from common.errors import UserError
from envs import GAMES, ProcgenEnv, ProcgenVecEnv, environment_id
from envs.native import NO_OP


def levels_of(env, resets, **first):
    levels = [env.reset(**first)[1]["level_seed"]]
    return levels + [env.reset()[1]["level_seed"] for _ in range(resets - 1)]


@pytest.mark.parametrize("game", ["maze", "coinrun"])
def test_check_env(game):
    env = gymnasium.make(environment_id(game), render_mode="rgb_array")
    check_env(env.unwrapped)
    env.close()


def test_every_game_is_registered():
    for game in GAMES:
        spec = gymnasium.spec(environment_id(game))
        assert spec.kwargs == {"game": game}
        assert spec.max_episode_steps is None


def test_arguments_reach_the_game():
    env = gymnasium.make("Procgen/heist-v0", mode="memory", levels="30:32")
    assert set(levels_of(env, 8, seed=0)) == {30, 31}
    with pytest.raises(UserError, match="no memory mode"):
        gymnasium.make("Procgen/bigfish-v0", mode="memory")
    with pytest.raises(UserError, match="did you mean bigfish"):
        ProcgenEnv("bigfsh")


def test_the_seed_decides_the_levels():
    a, b = ProcgenEnv("maze"), ProcgenEnv("maze")
    assert levels_of(a, 6, seed=3) == levels_of(b, 6, seed=3) == levels_of(a, 6, seed=3)
    assert levels_of(a, 6, seed=4) != levels_of(b, 6, seed=3)
    assert levels_of(ProcgenEnv("maze"), 6) != levels_of(ProcgenEnv("maze"), 6)


def test_a_chosen_level_is_played_for_one_episode():
    env = ProcgenEnv("starpilot")
    drawn = levels_of(env, 4, seed=3)
    observation, info = env.reset(seed=3, options={"level_seed": 777})
    assert info == {"level_seed": 777}
    fixed = ProcgenVecEnv(["starpilot"], level_seeds=[777], num_threads=0)
    np.testing.assert_array_equal(observation["rgb"], fixed.reset()["rgb"][0])
    for ends in (True, False):
        done = False
        while ends and not done:
            _, _, terminated, truncated, info = env.step(NO_OP)
            done = terminated or truncated
        if ends:
            assert info["prev_level_seed"] == info["level_seed"] == 777
        assert env.reset()[1]["level_seed"] in drawn[1:3]
        assert env.reset(options={"level_seed": 777})[1]["level_seed"] == 777
    assert len(set(levels_of(env, 6))) > 3


def test_reset_options_that_do_not_exist():
    env = ProcgenEnv("maze")
    with pytest.raises(UserError, match="unknown reset options 'level'"):
        env.reset(options={"level": 3})
    with pytest.raises(UserError, match="level seeds must be"):
        env.reset(options={"level_seed": -1})


def test_an_episode_is_that_of_the_vectorised_environment():
    env, vec_env = ProcgenEnv("chaser"), ProcgenVecEnv(["chaser"], 1, seed=5, num_threads=0)
    observation, _ = env.reset(seed=5)
    expected = vec_env.reset()
    np.testing.assert_array_equal(observation["rgb"], expected["rgb"][0])
    rng = np.random.default_rng(0)
    episodes = 0
    while episodes < 3:
        action = rng.integers(15)
        last = observation
        observation, reward, terminated, truncated, info = env.step(action)
        expected, rewards, dones, infos = vec_env.step(np.array([action]))
        assert reward == rewards[0]
        assert isinstance(reward, float)
        assert (terminated or truncated) == dones[0]
        np.testing.assert_array_equal(observation["reward"], expected["reward"][0])
        if not terminated:
            np.testing.assert_array_equal(observation["rgb"], expected["rgb"][0])
            continue
        episodes += 1
        np.testing.assert_array_equal(observation["rgb"], last["rgb"])
        assert info["prev_level_seed"] == infos[0]["prev_level_seed"]
        assert info["normalized_return"] == infos[0]["normalized_return"]
        with pytest.raises(ResetNeeded):
            env.step(0)
        observation, info = env.reset()
        np.testing.assert_array_equal(observation["rgb"], expected["rgb"][0])
        assert observation["reward"] == 0
        assert info["level_seed"] == infos[0]["level_seed"]


def test_the_step_limit_truncates():
    env = RecordEpisodeStatistics(gymnasium.make("Procgen/leaper-v0"))
    env.reset(seed=0)
    for step in range(1, 501):
        _, _, terminated, truncated, info = env.step(NO_OP)
        assert (terminated, truncated) == (False, step == 500)
    assert info["episode"]["l"] == 500
    assert info["prev_level_complete"] is False


def test_reset_in_the_middle_starts_an_episode():
    env = ProcgenEnv("maze")
    env.reset(seed=0)
    levels = set()
    for _ in range(6):
        for _ in range(3):
            env.step(NO_OP)
        levels.add(env.reset()[1]["level_seed"])
    assert len(levels) > 3
    for step in range(1, 501):
        truncated = env.step(NO_OP)[3]
        assert truncated == (step == 500)


def test_render_shows_the_observation_even_at_the_end():
    env = ProcgenEnv("jumper", levels="9:10", render_mode="rgb_array")
    assert env.render() is None
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (512, 512, 3)
    assert env.step(NO_OP)[2]
    np.testing.assert_array_equal(env.render(), first)
    assert ProcgenEnv("maze").render() is None
