"""Every callback that ships with Stable-Baselines3, as its documentation uses it, and the files that it writes."""

from __future__ import annotations

import inspect
import io
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common import callbacks
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecTransposeImage

import agents
from agents import ALGORITHMS, IMPALA, Agent
from common.errors import UserError
from policies import PolicyConfig

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]

NUM_ENVS, STEPS = 4, 5
ROLLOUT = NUM_ENVS * STEPS


@pytest.fixture(params=list(ALGORITHMS))
def agent(request: pytest.FixtureRequest, toy: MakeEnv, tiny: Tiny) -> Agent:
    sizes = {"minibatches": 2} if request.param == "ppo" else {}
    return ALGORITHMS[request.param](tiny("lstm"), toy(NUM_ENVS), seed=0, rollout_steps=STEPS, **sizes)


class Locals(BaseCallback):
    """Keeps what callbacks are shown after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        names = ("actions", "rewards", "dones", "infos", "new_obs")
        self.seen.append({name: self.locals[name] for name in names})
        return True


@pytest.mark.parametrize("lag", [0, 1])
def test_callbacks_see_each_step(lag: int, toy: MakeEnv, tiny: Tiny) -> None:
    agent = IMPALA(tiny("lstm"), toy(NUM_ENVS), seed=0, rollout_steps=STEPS, rollout_lag=lag)
    callback = Locals()
    batches = []
    learn = agent.learner.learn
    agent.learner.learn = lambda batch, step: (  # type: ignore[method-assign]
        batches.append((batch.actions.clone(), batch.dones.clone())) or learn(batch, step)
    )
    agent.learn(4 * ROLLOUT, callback)
    assert len(callback.seen) == 4 * STEPS
    actions, dones = (np.concatenate([batch[index].numpy() for batch in batches]) for index in (0, 1))
    np.testing.assert_array_equal([step["actions"] for step in callback.seen], actions)
    np.testing.assert_array_equal([step["dones"] for step in callback.seen], dones)
    for step in callback.seen:
        assert [("episode" in info) for info in step["infos"]] == step["dones"].tolist()
        assert set(np.unique(step["rewards"])) <= {0.0, 1.0}
        assert set(step["new_obs"]) == (set() if lag else {"rgb", "reward"})


def test_stop_training_on_max_episodes(agent: Agent) -> None:
    agent.learn(100 * ROLLOUT, StopTrainingOnMaxEpisodes(max_episodes=3))
    # Episodes last 5 to 8 steps, and 3 episodes are meant in each environment.
    assert 3 * 5 * NUM_ENVS <= agent.num_timesteps <= 3 * 9 * NUM_ENVS


class Rows(KVWriter):
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.rows.append(dict(key_values))

    def close(self) -> None:
        pass


def test_log_every_n_timesteps(agent: Agent) -> None:
    writer = Rows()
    agent.set_logger(Logger(None, [writer]))
    agent.learn(4 * ROLLOUT, LogEveryNTimesteps(2 * NUM_ENVS), log_interval=10**6)
    assert [row["time/total_timesteps"] for row in writer.rows] == list(range(8, 4 * ROLLOUT + 1, 8))


def test_every_n_timesteps_and_lists(agent: Agent) -> None:
    inner = Locals()
    agent.learn(2 * ROLLOUT, CallbackList([EveryNTimesteps(ROLLOUT, inner)]))
    assert len(inner.seen) == 0 or inner.n_calls == 2
    assert inner.n_calls == 2


def test_evaluation_and_what_follows_it(agent: Agent, toy: MakeEnv, tmp_path: Path) -> None:
    never = StopTrainingOnNoModelImprovement(max_no_improvement_evals=100)
    at_once = StopTrainingOnRewardThreshold(reward_threshold=-1.0)
    callback = EvalCallback(
        toy(2),
        callback_on_new_best=at_once,
        callback_after_eval=never,
        n_eval_episodes=2,
        eval_freq=STEPS,
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    agent.learn(10 * ROLLOUT, callback)
    assert agent.num_timesteps == ROLLOUT
    assert type(agents.load(tmp_path / "best_model")) is type(agent)


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_progress_bar(agent: Agent) -> None:
    agent.learn(ROLLOUT, progress_bar=True)
    assert agent.num_timesteps == ROLLOUT


def test_files_of_the_checkpoint_callback_are_found_under_the_names_it_gives(
    agent: Agent, tmp_path: Path
) -> None:
    agent.learn(2 * ROLLOUT, CheckpointCallback(STEPS, str(tmp_path), name_prefix="m"))
    loaded = type(agent).load(tmp_path / f"m_{2 * ROLLOUT}_steps")
    assert loaded.num_timesteps == ROLLOUT


def test_a_checkpoint_goes_into_an_open_file_and_comes_out_of_it(agent: Agent) -> None:
    agent.learn(ROLLOUT)
    file = io.BytesIO()
    agent.save(file)
    file.seek(0)
    loaded = agents.load(file)
    assert loaded.num_timesteps == ROLLOUT
    for name, tensor in agent.policy.state_dict().items():
        assert torch.equal(loaded.policy.state_dict()[name], tensor)
    with pytest.raises(UserError, match="the open file is not a whole checkpoint"):
        agents.load(io.BytesIO(file.getvalue()[:-1]))


def test_parameters_come_and_go_as_in_stable_baselines3(
    agent: Agent, toy: MakeEnv, tiny: Tiny, tmp_path: Path
) -> None:
    agent.learn(ROLLOUT)
    agent.save(tmp_path / "plain")
    others = [type(agent)(tiny("lstm"), toy(NUM_ENVS), agent.config, seed=9) for _ in range(2)]
    others[0].set_parameters(agent.get_parameters())
    others[1].set_parameters(str(tmp_path / "plain"))
    for other in others:
        for name, tensor in agent.policy.state_dict().items():
            assert torch.equal(other.policy.state_dict()[name], tensor)


def test_a_schedule_of_learning_rates(agent: Agent, toy: MakeEnv, tiny: Tiny, tmp_path: Path) -> None:
    def schedule(remaining: float) -> float:
        return 0.01 * remaining**2

    scheduled = type(agent)(tiny("lstm"), toy(NUM_ENVS), agent.config, learning_rate=schedule, seed=0)
    writer = Rows()
    scheduled.set_logger(Logger(None, [writer]))
    scheduled.learn(4 * ROLLOUT)
    assert [row["train/learning_rate"] for row in writer.rows] == pytest.approx(
        [0.01, 0.005625, 0.0025, 0.000625]
    )
    scheduled.save(tmp_path / "a")
    loaded = type(agent).load(tmp_path / "a", toy(NUM_ENVS), learning_rate=schedule)
    loaded.set_logger(Logger(None, [writer]))
    loaded.learn(ROLLOUT)
    assert writer.rows[-1]["train/learning_rate"] == 0.01


def test_policy_kwargs_are_fields_of_the_policy(toy: MakeEnv, tiny: Tiny) -> None:
    agent = IMPALA(
        "feedforward", toy(2), policy_kwargs={"reset": "50", "encoder": {"channels": [4], "hidden": 8}}
    )
    assert (agent.policy_config.reset, agent.policy_config.encoder.hidden) == ("50", 8)
    with pytest.raises(UserError, match="did you mean"):
        IMPALA("feedforward", toy(2), policy_kwargs={"rest": "50"})
    with pytest.raises(UserError, match="put them into the PolicyConfig"):
        IMPALA(tiny(), toy(2), policy_kwargs={"reset": "50"})


def test_channels_first_are_refused(procgen: MakeEnv, tiny: Tiny) -> None:
    with pytest.raises(UserError, match="VecTransposeImage puts channels first"):
        IMPALA(tiny(), VecTransposeImage(procgen(num_envs=3), skip=True))


def test_custom_objects_replace_what_is_stored(agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path / "a")
    loaded = type(agent).load(
        tmp_path / "a", custom_objects={"learning_rate": 0.125, "lr_schedule": None}, _init_setup_model=True
    )
    assert loaded.config.learning_rate == 0.125
    assert agents.load(tmp_path / "a", custom_objects={"discount": 0.5}).config.discount == 0.5
    assert type(agent).load(tmp_path / "a").config == agent.config


def test_a_model_can_be_set_up_later(toy: MakeEnv, tiny: Tiny) -> None:
    agent = IMPALA(tiny(), toy(2), rollout_steps=5, _init_setup_model=False)
    assert not hasattr(agent, "learner")
    agent._setup_model()
    agent.learn(10)
    assert agent.num_timesteps == 10


def test_no_directory_appears_unless_one_is_asked_for(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    agent.learn(ROLLOUT)
    agent.verbose = 1
    agent.learn(ROLLOUT)
    assert list(tmp_path.iterdir()) == []
    assert "total_timesteps" in capsys.readouterr().out
    agent.tensorboard_log = str(tmp_path / "logs")
    agent.learn(ROLLOUT)
    assert list(tmp_path.glob("logs/*/events.*"))
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path / "asked"))
    agent.tensorboard_log = None
    agent.learn(ROLLOUT)
    assert (tmp_path / "asked").is_dir()


def shipped_callbacks() -> dict[str, type[BaseCallback]]:
    """The callbacks of Stable-Baselines3 that can be used as they are."""
    found = {name: kind for name, kind in vars(callbacks).items() if inspect.isclass(kind)}
    bases = ("BaseCallback", "EventCallback")
    return {name: k for name, k in found.items() if issubclass(k, BaseCallback) and name not in bases}


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_every_callback_that_ships_runs_in_one_training(agent: Agent, toy: MakeEnv, tmp_path: Path) -> None:
    called: list[dict[str, Any]] = []
    improvement = callbacks.StopTrainingOnNoModelImprovement(100)
    threshold = callbacks.StopTrainingOnRewardThreshold(1e9)
    used: list[BaseCallback] = [
        CheckpointCallback(STEPS, str(tmp_path)),
        callbacks.ConvertCallback(lambda local, global_: called.append(local) or True),
        EvalCallback(toy(2), threshold, improvement, 2, STEPS, str(tmp_path), str(tmp_path), verbose=0),
        threshold,
        improvement,
        EveryNTimesteps(ROLLOUT, Locals()),
        LogEveryNTimesteps(ROLLOUT),
        StopTrainingOnMaxEpisodes(10**6),
        callbacks.ProgressBarCallback(),
    ]
    together = CallbackList([callback for callback in used if callback not in (threshold, improvement)])
    assert {type(callback).__name__ for callback in [*used, together]} == set(shipped_callbacks())
    agent.learn(4 * ROLLOUT, together)
    assert agent.num_timesteps == 4 * ROLLOUT
    assert all(callback.n_calls > 0 for callback in [*used, together])
    assert {"actions", "rewards", "dones", "infos", "new_obs", "self"} <= called[-1].keys()
    # A function, and a list, as `learn` takes them too.
    agent.learn(ROLLOUT, lambda local, global_: called.append(local) or True)  # type: ignore[arg-type]
    agent.learn(ROLLOUT, [Locals(), Locals()])


def test_pickling_says_what_to_do_instead(agent: Agent) -> None:
    with pytest.raises(TypeError, match="use save and load"):
        pickle.dumps(agent)
