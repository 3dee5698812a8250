"""Agents inside Stable-Baselines3: its callbacks, wrappers, evaluation and loggers, unchanged."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor, VecVideoRecorder

import agents
from agents import ALGORITHMS, IMPALA, PPO, Agent, ImpalaConfig
from common.errors import UserError
from policies import PolicyConfig

NUM_ENVS, UNROLL = 6, 10
ROLLOUT = NUM_ENVS * UNROLL

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]


def make(algorithm: str, policy: PolicyConfig, env: Any, **more: Any) -> Agent:
    sizes: dict[str, Any] = {
        "impala": {"rollout_steps": UNROLL},
        "appo": {"rollout_steps": UNROLL},
        "ppo": {"rollout_steps": UNROLL, "minibatches": 2},
    }
    return ALGORITHMS[algorithm](policy, env, device="cpu", **{"seed": 0, **sizes[algorithm], **more})


@pytest.fixture(params=list(ALGORITHMS))
def agent(request: pytest.FixtureRequest, procgen: MakeEnv, tiny: Tiny) -> Agent:
    return make(request.param, tiny("srwm"), procgen(num_envs=NUM_ENVS))


def test_evaluate_policy(agent: Agent, procgen: MakeEnv) -> None:
    returns, lengths = evaluate_policy(agent, procgen(seed=9), n_eval_episodes=9, return_episode_rewards=True)
    assert len(returns) == 9
    again = evaluate_policy(agent, procgen(seed=9), n_eval_episodes=9, return_episode_rewards=True)
    assert (returns, lengths) == again


def test_evaluation_does_not_change_what_training_draws(procgen: MakeEnv, tiny: Tiny) -> None:
    weights = []
    for evaluate in (False, True):
        agent = make("impala", tiny("srwm"), procgen(num_envs=NUM_ENVS))
        agent.learn(ROLLOUT)
        if evaluate:
            evaluate_policy(agent, procgen(seed=9), n_eval_episodes=6, deterministic=False)
        agent.learn(ROLLOUT, reset_num_timesteps=False)
        weights.append(agent.policy.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_eval_callback_keeps_the_best_model(agent: Agent, procgen: MakeEnv, tmp_path: Path) -> None:
    callback = EvalCallback(
        procgen(seed=9),
        n_eval_episodes=6,
        eval_freq=UNROLL,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "log"),
        verbose=0,
    )
    agent.learn(2 * ROLLOUT, callback)
    best = agents.load(tmp_path / "best" / "best_model")
    assert type(best) is type(agent)
    assert len(np.load(tmp_path / "log" / "evaluations.npz")["timesteps"]) == 2
    score, _ = evaluate_policy(best, procgen(seed=9), n_eval_episodes=6)
    assert isinstance(score, float)


def test_checkpoint_callback(agent: Agent, tmp_path: Path) -> None:
    agent.learn(2 * ROLLOUT, CheckpointCallback(UNROLL, str(tmp_path), name_prefix="model"))
    files = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [path.name for path in files] == ["model_60_steps.zip", "model_120_steps.zip"]
    loaded = agents.load(files[0])
    # Saved at the last step of the first rollout, before learning from it: as at that rollout's start.
    assert loaded.num_timesteps == 0
    assert agents.load(files[1]).num_timesteps == ROLLOUT


@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`")
def test_vec_monitor(procgen: MakeEnv, tiny: Tiny) -> None:
    monitored = VecMonitor(procgen(num_envs=NUM_ENVS))
    agent = make("impala", tiny(), monitored)
    agent.learn(20 * ROLLOUT)
    assert monitored.episode_count > 0
    # The games of the wrapped environment are still known.
    assert set(agent.episode_returns) <= {"dodgeball", "bigfish", "fruitbot"}
    assert agent.episode_returns


def test_exact_continuation_through_a_wrapper(procgen: MakeEnv, tiny: Tiny, tmp_path: Path) -> None:
    agent = make("impala", tiny("lstm"), procgen(num_envs=NUM_ENVS))
    agent.learn(2 * ROLLOUT)
    agent.save(tmp_path / "two")
    agent.learn(ROLLOUT, reset_num_timesteps=False)

    class Transparent(VecEnvWrapper):
        def reset(self) -> Any:
            return self.venv.reset()

        def step_wait(self) -> Any:
            return self.venv.step_wait()

    other = IMPALA.load(
        tmp_path / "two", env=Transparent(procgen(num_envs=NUM_ENVS)), device="cpu", force_reset=False
    )
    other.learn(ROLLOUT, reset_num_timesteps=False)
    for name, tensor in agent.policy.state_dict().items():
        assert torch.equal(tensor, other.policy.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of moviepy's dependencies
def test_vec_video_recorder(tiny: Tiny, procgen: MakeEnv, tmp_path: Path) -> None:
    env = procgen("bigfish", num_envs=2, render_mode="rgb_array")
    recorder = VecVideoRecorder(env, str(tmp_path), lambda step: step == 0, video_length=5)
    agent = IMPALA(tiny(), recorder, seed=0, device="cpu", rollout_steps=4)
    agent.learn(16)
    (video,) = tmp_path.glob("*.mp4")
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) >= 5
    assert frames[0].std() > 5


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")  # Stable-Baselines3's choice of bar
def test_set_logger_and_progress_bar(
    agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = configure(str(tmp_path), ["csv"])
    agent.set_logger(logger)
    agent.learn(3 * ROLLOUT, progress_bar=True)
    logger.close()
    assert "180/180" in capsys.readouterr().out
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["time/total_timesteps"]) for row in rows] == [60, 120, 180]
    for tag in ("train/loss", "train/entropy", "train/grad_norm", "train/explained_variance", "time/sps"):
        assert all(np.isfinite(float(row[tag])) for row in rows), tag
    assert all(float(row["core/layer0/shift_norm"]) > 0 for row in rows)


def test_log_interval_counts_from_the_beginning_of_the_run(
    procgen: MakeEnv, tiny: Tiny, tmp_path: Path
) -> None:
    """So that a run that was continued has the entries of one that was not interrupted."""
    agent = make("impala", tiny(), procgen(num_envs=NUM_ENVS))
    logger = configure(str(tmp_path), ["csv"])
    agent.set_logger(logger)
    agent.learn(3 * ROLLOUT, log_interval=2)
    agent.learn(3 * ROLLOUT, log_interval=2, reset_num_timesteps=False)
    logger.close()
    with (tmp_path / "progress.csv").open() as file:
        assert [int(row["time/total_timesteps"]) for row in csv.DictReader(file)] == [120, 240, 360]


class StopAfter(BaseCallback):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def _on_step(self) -> bool:
        self.left -= 1
        return self.left > 0


def test_a_callback_stops_training(agent: Agent) -> None:
    agent.learn(10 * ROLLOUT, StopAfter(UNROLL + 3))
    assert agent.num_timesteps == NUM_ENVS * (UNROLL + 3)
    agent.learn(ROLLOUT, reset_num_timesteps=False)
    assert agent.num_timesteps == NUM_ENVS * (2 * UNROLL + 3)


# predict


def rollout_by_predict(agent: Agent, env: VecEnv, steps: int, batch: bool) -> np.ndarray:
    """Greedy actions of all slots (steps, slots), predicted for all at once or one slot at a time."""
    observation: Any = env.reset()
    starts = np.ones(env.num_envs, dtype=bool)
    states: Any = None if batch else [None] * env.num_envs
    actions = []
    for _ in range(steps):
        if batch:
            chosen, states = agent.predict(observation, states, starts, deterministic=True)
        else:
            chosen = np.empty(env.num_envs, dtype=np.int64)
            for slot in range(env.num_envs):
                single = {key: value[slot] for key, value in observation.items()}
                chosen[slot], states[slot] = agent.predict(
                    single, states[slot], starts[slot], deterministic=True
                )
        actions.append(chosen)
        observation, _, starts, _ = env.step(chosen)
    return np.stack(actions)


def test_predict_one_by_one_is_predict_of_all(procgen: MakeEnv, tiny: Tiny) -> None:
    agent = make("impala", tiny("srwm"), procgen(num_envs=NUM_ENVS))
    with torch.no_grad():  # actions that depend on what is seen
        agent.policy.encoder.linear.weight.mul_(10)
        agent.policy.actor.weight.mul_(10)
        agent.policy.actor.bias.zero_()
    together = rollout_by_predict(agent, procgen(num_envs=3, seed=4), 60, batch=True)
    alone = rollout_by_predict(agent, procgen(num_envs=3, seed=4), 60, batch=False)
    assert len(np.unique(together)) > 2
    np.testing.assert_array_equal(together, alone)


def test_predict_carries_and_clears_the_state(procgen: MakeEnv, tiny: Tiny) -> None:
    env = procgen(num_envs=3)
    agent = make("impala", tiny("srwm"), env)
    observation = env.reset()
    _, fresh = agent.predict(observation)
    _, carried = agent.predict(observation, fresh)
    _, cleared = agent.predict(observation, carried, np.array([True, False, True]))
    name = "layer0/shift"
    torch.testing.assert_close(cleared[name][[0, 2]], fresh[name][[0, 2]])
    assert not torch.allclose(cleared[name][1], fresh[name][1])
    assert not torch.allclose(carried[name], fresh[name])


def test_sampled_predictions_vary_and_greedy_ones_do_not(procgen: MakeEnv, tiny: Tiny) -> None:
    env = procgen(num_envs=6)
    agent = make("impala", tiny(), env)
    observation = env.reset()
    greedy = {tuple(agent.predict(observation, deterministic=True)[0]) for _ in range(5)}
    sampled = {tuple(agent.predict(observation)[0]) for _ in range(5)}
    assert len(greedy) == 1
    assert len(sampled) > 1


# Environments


def test_a_single_gymnasium_environment(tiny: Tiny) -> None:
    import envs  # noqa: F401  # registers the games

    env = gymnasium.make("Procgen/bigfish-v0")
    agent = IMPALA(tiny(), env, seed=0, device="cpu", rollout_steps=10)
    agent.learn(40)
    assert agent.num_timesteps == 40
    env.close()


def test_an_agent_with_the_default_number_of_environments(procgen: MakeEnv) -> None:
    """The README's shortest example: 66 environments for six games, in three equal batches."""
    env = procgen("easy6", num_envs=None)
    agent = IMPALA("feedforward", env, device="cpu")
    assert env.num_envs == 66
    assert agent.config == ImpalaConfig()
    assert agent.config.batches_per_pass(66) == 3


# What cannot be had


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"policy": "swrm"}, "did you mean srwm"),
        ({"policy": "lstm", "learnin_rate": 1.0}, "'learnin_rate': did you mean learning_rate"),
        ({"policy": "lstm", "batch_unrolls": 4}, "4 does not divide 6"),
        ({"policy": "lstm", "reward_transform": "clipp"}, "did you mean clip"),
        ({"policy": "lstm", "learning_rate": 0.0}, "learning_rate is 0.0: give more than 0"),
    ],
)
def test_impossible_agents(procgen: MakeEnv, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        IMPALA(env=procgen(num_envs=NUM_ENVS), device="cpu", **arguments)


def test_spaces_of_another_form() -> None:
    env = gymnasium.make("CartPole-v1")
    with pytest.raises(UserError, match="observations must be Dict"):
        IMPALA("lstm", env, device="cpu")


def test_learning_needs_an_environment(agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path / "agent")
    with pytest.raises(UserError, match="no environment to learn in"):
        agents.load(tmp_path / "agent").learn(1)


def test_checkpoints_of_the_other_algorithm_and_of_other_environments(
    procgen: MakeEnv, tiny: Tiny, tmp_path: Path
) -> None:
    agent = make("ppo", tiny("srwm"), procgen(num_envs=NUM_ENVS))
    agent.learn(ROLLOUT)
    agent.save(tmp_path / "agent")
    assert isinstance(agents.load(tmp_path / "agent.ckpt"), PPO)
    with pytest.raises(UserError, match="holds PPO training, not IMPALA"):
        IMPALA.load(tmp_path / "agent")
    with pytest.raises(UserError, match="continues 6 environments, not 12"):
        agents.load(tmp_path / "agent", env=procgen(num_envs=12), force_reset=False)
    with pytest.raises(UserError, match="games"):
        agents.load(
            tmp_path / "agent",
            env=procgen(("maze", "bigfish", "fruitbot"), num_envs=NUM_ENVS),
            force_reset=False,
        )
    # Other environments are welcome for a fresh start.
    other = agents.load(tmp_path / "agent", env=procgen(("maze",), num_envs=4))
    other.learn(4 * UNROLL, reset_num_timesteps=False)
    assert other.num_timesteps == ROLLOUT + 4 * UNROLL
