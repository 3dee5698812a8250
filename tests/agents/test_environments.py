"""Agents and the environments they are given, one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

import agents
from agents import IMPALA, PPO, CheckpointError, PPOConfig, read_checkpoint, write_checkpoint
from common.errors import UserError
from policies import PolicyConfig

NUM_ENVS, UNROLL = 6, 8
ROLLOUT = NUM_ENVS * UNROLL

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]


@pytest.fixture
def trained(tiny: Tiny, procgen: MakeEnv) -> PPO:
    """An agent after some episodes of dodgeball, bigfish and fruitbot."""
    settings = {"rollout_steps": UNROLL, "minibatches": 1, "epochs": 1}
    agent = PPO(tiny("srwm"), procgen(), seed=0, **settings)
    agent.learn(6 * ROLLOUT)
    return agent


def counts(agent: Any) -> dict[str, float]:
    """How many returns of each game the statistics of rewards have seen."""
    statistics = agent.actors.collector.transform.state()["statistics"]
    return {game: values["count"] for game, values in statistics.items()}


def assert_same_weights(one: Any, other: Any) -> None:
    for name, tensor in one.policy.state_dict().items():
        assert torch.equal(tensor, other.policy.state_dict()[name]), name


class Transparent(VecEnvWrapper):
    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()


# Loading


def test_loading_into_more_environments_keeps_the_scale_of_rewards(
    trained: PPO, procgen: MakeEnv, tmp_path: Path
) -> None:
    trained.save(tmp_path / "a")
    loaded = PPO.load(tmp_path / "a", procgen(num_envs=12))
    assert counts(loaded) == counts(trained)
    assert loaded.episode_returns == trained.episode_returns


def test_loading_into_other_games_keeps_what_is_common(
    trained: PPO, procgen: MakeEnv, tmp_path: Path
) -> None:
    trained.save(tmp_path / "a")
    loaded = PPO.load(tmp_path / "a", procgen(("maze", "bigfish")))
    found = counts(loaded)
    assert found["bigfish"] == counts(trained)["bigfish"] > 2 * UNROLL
    assert "maze" not in found
    assert set(loaded.episode_returns) <= {"bigfish"}  # the others are remembered, not reported
    loaded.learn(ROLLOUT, reset_num_timesteps=False)
    assert loaded.num_timesteps == 7 * ROLLOUT


def test_loading_and_saving_loses_nothing(trained: PPO, procgen: MakeEnv, tmp_path: Path) -> None:
    trained.save(tmp_path / "a")
    agents.load(tmp_path / "a").save(tmp_path / "b")
    content, again = (read_checkpoint(tmp_path / name) for name in ("a", "b"))
    assert again["run"].keys() == content["run"].keys()
    trained.learn(ROLLOUT, reset_num_timesteps=False)
    resumed = agents.load(tmp_path / "b", procgen(seed=5), force_reset=False)
    resumed.learn(ROLLOUT, reset_num_timesteps=False)
    assert_same_weights(resumed, trained)

    agents.load(tmp_path / "a", procgen()).save(
        tmp_path / "c"
    )  # new episodes, but all that was learned of old ones
    run = read_checkpoint(tmp_path / "c")["run"]
    assert "env" not in run
    for name in ("num_timesteps", "episodes"):
        assert run[name] == content["run"][name]
    statistics = [each["collector"]["rewards"]["statistics"] for each in (run, content["run"])]
    assert statistics[0] == statistics[1]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"games": ("dodgeball", "bigfish", "maze")}, "games 'dodgeball,bigfish,fruitbot', this environment"),
        ({"num_envs": 9}, "continues 6 environments, not 9"),
        ({"mode": "hard"}, "mode 'easy', this environment has 'hard'"),
        ({"levels": "test1"}, "levels_start 0, this environment has 1000"),
    ],
)
def test_exact_continuation_elsewhere_is_refused_in_one_line(
    other: dict[str, Any], words: str, trained: PPO, procgen: MakeEnv, tmp_path: Path
) -> None:
    trained.save(tmp_path / "a")
    with pytest.raises(UserError, match=words) as refusal:
        PPO.load(tmp_path / "a", procgen(**other), force_reset=False)
    assert "\n" not in str(refusal.value)
    PPO.load(tmp_path / "a", procgen(**other)).learn(1)  # but a fresh start there is fine


def test_exact_continuation_without_environment_states_is_refused(
    tiny: Tiny, toy: MakeEnv, tmp_path: Path
) -> None:
    agent = IMPALA(tiny(), toy(4), seed=0, rollout_steps=5)
    agent.save(tmp_path / "new")
    agent.learn(20)
    agent.save(tmp_path / "old")
    for name in ("new", "old"):
        with pytest.raises(CheckpointError, match="no environment states: load it with force_reset=True"):
            IMPALA.load(tmp_path / name, toy(4), force_reset=False)
        IMPALA.load(tmp_path / name, toy(4)).learn(20)


def test_images_or_actions_of_another_form_are_refused(trained: PPO, toy: MakeEnv, tmp_path: Path) -> None:
    trained.save(tmp_path / "a")
    with pytest.raises(
        CheckpointError, match=r"a was trained with images \(64, 64, 3\) and 15 actions.*8.* 3 act"
    ):
        PPO.load(tmp_path / "a", toy(6))


def test_a_checkpoint_of_another_network_is_refused(trained: PPO, tiny: Tiny, tmp_path: Path) -> None:
    trained.save(tmp_path / "a")
    content = read_checkpoint(tmp_path / "a")
    content["policy_config"]["encoder"]["hidden"] = 8
    write_checkpoint(tmp_path / "b", content)
    with pytest.raises(CheckpointError, match="b does not fit: ") as refusal:
        agents.load(tmp_path / "b")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("part", ["config", "learner", "run", "policy_config", "image_shape", "seed"])
def test_a_checkpoint_that_lacks_a_part_is_refused(trained: PPO, part: str, tmp_path: Path) -> None:
    trained.save(tmp_path / "a")
    content = read_checkpoint(tmp_path / "a")
    del content[part]
    write_checkpoint(tmp_path / "b", content)
    with pytest.raises(CheckpointError, match=f"b does not fit: it has no {part}"):
        agents.load(tmp_path / "b")


def test_an_unknown_algorithm_is_refused(tmp_path: Path) -> None:
    for content in ({}, {"algorithm": "dqn"}):
        write_checkpoint(tmp_path / "a", content)
        with pytest.raises(CheckpointError, match="unknown algorithm"):
            agents.load(tmp_path / "a")
        with pytest.raises(CheckpointError, match=r"holds \w+ training, not PPO"):
            PPO.load(tmp_path / "a")


def test_a_checkpoint_of_another_kind_of_device_is_readable(trained: PPO, tmp_path: Path) -> None:
    """The random states of a GPU's generators are shorter than those of a CPU's."""
    trained.save(tmp_path / "a")
    content = read_checkpoint(tmp_path / "a")
    for name in ("acting", "predicting"):
        content["run"]["random"][name] = torch.zeros(16, dtype=torch.uint8)
    write_checkpoint(tmp_path / "b", content)
    assert agents.load(tmp_path / "b", device="cpu").num_timesteps == 6 * ROLLOUT


def test_what_the_trainer_stores_comes_back(trained: PPO, tmp_path: Path) -> None:
    trained.experiment = {"games": ["a", "b"], "lr": 0.1, "none": None}
    trained.save(tmp_path / "a")
    assert agents.load(tmp_path / "a").experiment == trained.experiment
    text = json.dumps(read_checkpoint(tmp_path / "a")["config"])
    assert PPOConfig(**json.loads(text)) == trained.config


def test_a_checkpoint_is_always_whole(trained: PPO, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="always whole"):
        trained.save(tmp_path / "a", exclude=["policy"])


# set_env


def test_an_agent_without_environments_can_be_given_some(
    trained: PPO, procgen: MakeEnv, tmp_path: Path
) -> None:
    trained.save(tmp_path / "a")
    loaded = PPO.load(tmp_path / "a")
    loaded.set_env(procgen(num_envs=9))
    assert counts(loaded) == counts(trained)
    loaded.learn(72, reset_num_timesteps=False)
    assert loaded.num_timesteps == 6 * ROLLOUT + 72
    loaded.predict(loaded.get_env().reset())


def test_it_can_even_continue_exactly(trained: PPO, procgen: MakeEnv, tmp_path: Path) -> None:
    trained.save(tmp_path / "a")
    loaded = PPO.load(tmp_path / "a")
    loaded.set_env(procgen(seed=3), force_reset=False)
    trained.learn(ROLLOUT, reset_num_timesteps=False)
    loaded.learn(ROLLOUT, reset_num_timesteps=False)
    assert_same_weights(loaded, trained)


def test_other_games_are_known_by_their_names(trained: PPO, procgen: MakeEnv, tmp_path: Path) -> None:
    before = counts(trained)
    trained.set_env(procgen(("bigfish", "dodgeball"), seed=4))
    trained.save(tmp_path / "a")
    assert "env" not in read_checkpoint(tmp_path / "a")["run"]  # those of the old games
    trained.learn(8 * ROLLOUT, reset_num_timesteps=False)
    after = counts(trained)
    assert after["fruitbot"] == before["fruitbot"]  # remembered
    for game in ("bigfish", "dodgeball"):
        assert after[game] - before[game] == pytest.approx(8 * UNROLL * 3)
    assert set(trained.episode_returns) <= {"bigfish", "dodgeball"}


def test_a_wrapper_around_the_present_environments_changes_nothing(tiny: Tiny, procgen: MakeEnv) -> None:
    runs = []
    for wrap in (False, True):
        env = procgen()
        agent = IMPALA(tiny("lstm"), env, seed=0, rollout_steps=UNROLL, reward_transform="normalize")
        agent.learn(2 * ROLLOUT)
        if wrap:
            agent.set_env(Transparent(env), force_reset=False)
        agent.learn(2 * ROLLOUT, reset_num_timesteps=False)
        runs.append(agent)
    assert_same_weights(*runs)


def test_hyperparameters_must_fit_the_new_environments(tiny: Tiny, procgen: MakeEnv, tmp_path: Path) -> None:
    agent = IMPALA(tiny(), procgen(), seed=0, rollout_steps=UNROLL, batch_unrolls=3)
    agent.save(tmp_path / "a")
    with pytest.raises(UserError, match="3 does not divide 4"):
        IMPALA.load(tmp_path / "a").set_env(procgen(("maze",), num_envs=4))


# Environments of other kinds


class Remote(DummyVecEnv):
    """As a SubprocVecEnv, whose processes die when asked for an attribute that their environments lack."""

    def has_attr(self, attr_name: str) -> bool:
        return hasattr(self.envs[0].unwrapped, attr_name)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        if not self.has_attr(attr_name):
            raise EOFError
        return super().get_attr(attr_name, indices)


def test_environments_in_other_processes_need_not_know_games(tiny: Tiny, toy: MakeEnv) -> None:
    make_one = toy(1).envs[0].__class__  # Monitor
    agent = IMPALA(tiny(), Remote([lambda: make_one(toy(1).envs[0])] * 3), seed=0, rollout_steps=5)
    agent.learn(60)
    assert set(agent.episode_returns) == {"env"}


def test_actions_must_start_at_0(tiny: Tiny, toy: MakeEnv) -> None:
    env = toy(2)
    env.action_space = gymnasium.spaces.Discrete(3, start=1)
    with pytest.raises(UserError, match="start at 0"):
        IMPALA(tiny(), env)


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8),
        gymnasium.spaces.Dict(rgb=gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)),
        gymnasium.spaces.Dict(
            rgb=gymnasium.spaces.Box(0.0, 1.0, (8, 8, 3), np.float32),
            reward=gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32),
        ),
        gymnasium.spaces.Dict(
            rgb=gymnasium.spaces.Box(0, 255, (64,), np.uint8),
            reward=gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32),
        ),
    ],
)
def test_observations_of_another_form_are_refused(tiny: Tiny, toy: MakeEnv, space: Any) -> None:
    env = toy(2)
    env.observation_space = space
    with pytest.raises(UserError, match="observations must be Dict"):
        IMPALA(tiny(), env)


def test_hyperparameters_of_another_algorithm_are_refused(tiny: Tiny, toy: MakeEnv) -> None:
    with pytest.raises(UserError, match="impala takes hyperparameters as ImpalaConfig, not PPOConfig"):
        IMPALA(tiny(), toy(4), PPOConfig())  # type: ignore[arg-type]


def test_everything_wrong_with_hyperparameters_is_named_at_once(tiny: Tiny, toy: MakeEnv) -> None:
    with pytest.raises(UserError, match=r"'lr'.*; .*'gamma'"):
        IMPALA(tiny(), toy(4), lr=1.0, gamma=1.0)
