from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv

from agents import IMPALA, PPO, Agent, CheckpointError, read_checkpoint, write_checkpoint
from agents.agent import EnvironmentFault
from agents.learner import MAX_SKIPS
from agents.numerics import LARGE, NotFinite, StateWatch, reset_where_not_finite
from common.errors import UserError
from helpers import same
from policies import Policy

SMALL: dict[type[Agent], dict[str, Any]] = {
    IMPALA: {"rollout_steps": 5, "batch_unrolls": 2},
    PPO: {"rollout_steps": 5, "minibatches": 2, "epochs": 2},
}
BOTH = pytest.mark.parametrize("algorithm", [IMPALA, PPO])


class StopIn(BaseCallback):
    """From the third rollout on, `asked` says yes at the `calls`-th time."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls
        self.rollouts = 0

    def _on_rollout_start(self) -> None:
        self.rollouts += 1

    def _on_step(self) -> bool:
        return True

    def asked(self) -> bool:
        self.left -= self.rollouts >= 3
        return self.left < 0


class TestStopInTheMiddleOfLearning:
    @BOTH
    @pytest.mark.parametrize("calls", [0, 3])
    def test_the_phase_is_undone_and_what_follows_is_as_if_it_had_not_begun(
        self,
        algorithm: type[Agent],
        calls: int,
        tiny: Callable[..., Any],
        procgen: Callable[..., Any],
        tmp_path: Path,
    ) -> None:
        agent = algorithm(tiny("srwm"), procgen(num_envs=6), seed=1, **SMALL[algorithm])
        stop = StopIn(calls)
        agent.stop_when = stop.asked
        agent.learn(5 * 30, stop)
        assert stop.rollouts == 3
        assert agent.checkpoint_step == 60
        agent.save(tmp_path / "stopped")
        straight = algorithm(tiny("srwm"), procgen(num_envs=6), seed=1, **SMALL[algorithm])
        straight.learn(5 * 30)
        resumed = algorithm.load(tmp_path / "stopped", procgen(num_envs=6), force_reset=False)
        resumed.learn(3 * 30, reset_num_timesteps=False)
        assert resumed.num_timesteps == straight.num_timesteps == 150
        assert same(resumed.policy.state_dict(), straight.policy.state_dict())
        ends = []
        for number, agent in enumerate((resumed, straight)):
            agent.save(tmp_path / f"end{number}")
            ends.append(read_checkpoint(tmp_path / f"end{number}"))
        assert same(*ends)

    def test_with_lag_too_it_stops_and_saves_the_start_of_a_rollout(
        self, tiny: Callable[..., Any], procgen: Callable[..., Any], tmp_path: Path
    ) -> None:
        agent = IMPALA(tiny("srwm"), procgen(num_envs=6), seed=1, rollout_lag=1, **SMALL[IMPALA])
        stop = StopIn(2)
        agent.stop_when = stop.asked
        agent.learn(10 * 30, stop)
        assert agent.num_timesteps < 300
        agent.save(tmp_path / "stopped")
        assert read_checkpoint(tmp_path / "stopped")["run"]["num_timesteps"] == agent.checkpoint_step
        resumed = IMPALA.load(tmp_path / "stopped", procgen(num_envs=6), force_reset=False)
        resumed.learn(90, reset_num_timesteps=False)

    @BOTH
    def test_any_error_undoes_it(
        self, algorithm: type[Agent], tiny: Callable[..., Any], toy: Callable[..., Any]
    ) -> None:
        agent = algorithm(tiny(), toy(4), seed=1, **SMALL[algorithm])
        agent.learn(20)
        before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
        updates, step = agent.learner.updates, agent.optimizer.step
        calls = 0

        def failing(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KeyboardInterrupt
            return step(*arguments)

        agent.optimizer.step = failing  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            agent.learn(20, reset_num_timesteps=False)
        assert same(agent.policy.state_dict(), before)
        assert agent.learner.updates == updates

    def test_a_checkpoint_asked_for_within_an_update_is_that_of_before_it(
        self, tiny: Callable[..., Any], toy: Callable[..., Any], tmp_path: Path
    ) -> None:
        agent = IMPALA(tiny(), toy(4), seed=1, **SMALL[IMPALA])
        agent.learn(20)
        agent.save(tmp_path / "before")
        step, calls = agent.optimizer.step, 0

        def saving(*arguments: Any) -> Any:
            nonlocal calls
            result = step(*arguments)
            calls += 1
            if calls == 1:
                agent.save(tmp_path / "within")
            return result

        agent.optimizer.step = saving  # type: ignore[method-assign]
        agent.learn(20, reset_num_timesteps=False)
        before, within = (read_checkpoint(tmp_path / name) for name in ("before", "within"))
        for content in (before, within):
            del content["learner"]["optimizer"]["param_groups"]  # the learning rate was set for what comes
        assert same(before["learner"], within["learner"])


class Poison(BaseCallback):
    """Makes the rewards of chosen rollouts not finite."""

    def __init__(self, agent: Agent, rollouts: set[int], value: float = float("nan")) -> None:
        super().__init__()
        self.rollout = 0
        transform = agent.actors.collector.transform

        transformed = transform.rollout

        def poisoned(*arguments: Any) -> Any:
            found = transformed(*arguments)
            return np.full_like(found, value) if self.rollout in rollouts else found

        transform.rollout = poisoned

    def _on_rollout_start(self) -> None:
        self.rollout += 1

    def _on_step(self) -> bool:
        return True


class TestNumbersThatAreNotFinite:
    @BOTH
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_stop_leaves_the_weights_of_before_and_a_bundle(
        self,
        algorithm: type[Agent],
        value: float,
        tiny: Callable[..., Any],
        toy: Callable[..., Any],
        tmp_path: Path,
    ) -> None:
        agent = algorithm(tiny(), toy(4), seed=1, reward_transform="none", **SMALL[algorithm])
        agent.diagnostics = tmp_path
        agent.learn(20)
        weights = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
        optimizer = deepcopy(agent.optimizer.state_dict()["state"])
        poison = Poison(agent, {1}, value)
        with pytest.raises(
            NotFinite, match=r"not finite: batch\.\w+.* \(at 40 steps, .*update was undone; see"
        ):
            agent.learn(40, poison, reset_num_timesteps=False)
        assert same(agent.policy.state_dict(), weights)
        assert same(agent.optimizer.state_dict()["state"], optimizer)
        assert agent.checkpoint_step == 20
        (path,) = tmp_path.glob("not_finite_*.ckpt")
        bundle = read_checkpoint(path)
        assert bundle["step"] == 40
        assert "the loss" in bundle["not_finite"]
        assert not all(tensor.isfinite().all() for tensor in bundle["batch"].values())
        assert same(bundle["policy"], weights)
        poison.rollout = 99
        agent.learn(20, reset_num_timesteps=False)  # and it can go on

    @BOTH
    def test_skip_goes_on_without_the_update_and_says_so(
        self,
        algorithm: type[Agent],
        tiny: Callable[..., Any],
        toy: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
        tmp_path: Path,
    ) -> None:
        agent = algorithm(tiny(), toy(4), seed=1, on_nan="skip", **SMALL[algorithm])
        agent.learn(100, Poison(agent, {2, 3}))
        assert len(caplog.records) == 2
        assert "going on without it" in caplog.text
        assert all(parameter.isfinite().all() for parameter in agent.policy.parameters())
        assert agent.learner.updates == 3 * (2 if algorithm is IMPALA else 4)
        agent.save(tmp_path / "a")
        assert algorithm.load(tmp_path / "a").learner.skipped == 2

    def test_skipping_for_ever_stops(
        self, tiny: Callable[..., Any], toy: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        agent = IMPALA(tiny(), toy(4), seed=1, on_nan="skip", **SMALL[IMPALA])
        with pytest.raises(NotFinite, match=f"so were {MAX_SKIPS} in a row"):
            agent.learn(10_000, Poison(agent, set(range(1000))))
        assert len(caplog.records) == MAX_SKIPS - 1

    def test_a_gradient_alone_is_noticed(self, tiny: Callable[..., Any], toy: Callable[..., Any]) -> None:
        agent = IMPALA(tiny(), toy(4), seed=1, **SMALL[IMPALA])
        parameter = agent.policy.actor.weight
        parameter.register_hook(lambda gradient: gradient * float("nan"))
        before = parameter.detach().clone()
        with pytest.raises(NotFinite, match=r"not finite: gradient of actor\.weight \("):
            agent.learn(20)
        assert torch.equal(parameter, before)

    def test_a_weight_that_becomes_infinite_is_noticed(
        self, tiny: Callable[..., Any], toy: Callable[..., Any]
    ) -> None:
        agent = IMPALA(tiny(), toy(4), seed=1, learning_rate=1e9, learning_rate_decay=False, **SMALL[IMPALA])
        before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
        with pytest.raises(NotFinite, match="not finite: "):
            agent.learn(100)
        assert all(tensor.isfinite().all() for tensor in agent.policy.state_dict().values())
        assert before.keys() == agent.policy.state_dict().keys()

    def test_a_state_stops_or_begins_anew(
        self, tiny: Callable[..., Any], toy: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        class Spoil(BaseCallback):
            def _on_rollout_start(self) -> None:
                agent = self.model
                if agent.num_timesteps == 20:
                    state = {
                        name: tensor.clone() for name, tensor in agent.actors.collector.core_state.items()
                    }
                    for tensor in state.values():
                        if tensor.is_floating_point():
                            tensor[1] = float("nan")
                    agent.actors.collector.core_state = state

            def _on_step(self) -> bool:
                return True

        config = {"rollout_steps": 5, "batch_unrolls": 2}
        agent = IMPALA(tiny("srwm", reset="never"), toy(4), seed=1, **config)
        with pytest.raises(NotFinite, match="not finite: state "):
            agent.learn(60, Spoil())
        agent = IMPALA(tiny("srwm", reset="never"), toy(4), seed=1, on_nan="skip", **config)
        agent.learn(100, Spoil())
        assert len(caplog.records) == 2 - 1
        assert all(
            t.isfinite().all() for t in agent.actors.collector.core_state.values() if t.is_floating_point()
        )

    def test_another_word_than_stop_and_skip_is_refused(
        self, tiny: Callable[..., Any], toy: Callable[..., Any]
    ) -> None:
        with pytest.raises(UserError, match="unknown on_nan 'ignore'"):
            IMPALA(tiny(), toy(4), on_nan="ignore", **SMALL[IMPALA])


def test_only_spoilt_streams_begin_anew() -> None:
    state = {"w": torch.ones(3, 2, 2), "count": torch.tensor([[1], [2], [3]])}
    fresh = {"w": torch.zeros(3, 2, 2), "count": torch.zeros(3, 1, dtype=torch.int64)}
    assert reset_where_not_finite(state, fresh) is state
    state["w"][1, 0, 1] = float("inf")
    got = reset_where_not_finite(state, fresh)
    assert got["w"].sum((1, 2)).tolist() == [4, 0, 4]
    assert got["count"].flatten().tolist() == [1, 0, 3]


def test_the_state_is_watched(caplog: pytest.LogCaptureFixture) -> None:
    watch = StateWatch()
    for size, messages in ((1.0, 0), (LARGE, 0), (2 * LARGE, 1), (3 * LARGE, 1), (11 * LARGE, 2), (1.0, 2)):
        assert watch.check({"layer0/shift": torch.tensor([[size, 0.0]]), "steps": torch.tensor([5])}) == []
        assert len(caplog.records) == messages
    assert "layer0/shift is 1.1e+05" in caplog.text
    assert watch.check({"a": torch.tensor([float("nan")]), "b": torch.tensor([float("-inf")])}) == [
        "state a",
        "state b",
    ]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_states_stay_float32_under_mixed_precision(
    core: str, precision: str, tiny: Callable[..., Any]
) -> None:
    policy = Policy(tiny(core, precision=precision), (8, 8, 3), 3)
    state = policy.initial_state(2)
    rgb = torch.zeros(4, 2, 8, 8, 3, dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        output = policy(rgb, torch.zeros(4, 2, 1), state, torch.zeros(4, 2, dtype=torch.bool))
    for name, tensor in output.state.items():
        assert tensor.dtype == state[name].dtype, name
        assert not tensor.is_floating_point() or tensor.dtype is torch.float32, name


def _telling_frames(module: str) -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location("toys", module)
    assert spec is not None
    assert spec.loader is not None
    toys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toys)
    return toys.TellingFrames()


@pytest.mark.parametrize("lag", [0, 1])
def test_a_process_of_the_environments_that_is_killed_ends_learning_and_the_agent_can_be_saved(
    lag: int, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    module = str(Path(__file__).parent / "conftest.py")
    # Forked, since that is fast. Only the first one: the others keep the pipes of those after them open.
    env = SubprocVecEnv([partial(_telling_frames, module)] * 2, start_method="fork")

    class Kill(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 26:
                os.kill(env.processes[0].pid, signal.SIGKILL)
            return True

    agent = IMPALA(tiny(), env, seed=1, rollout_steps=5, batch_unrolls=2, rollout_lag=lag)
    try:
        with pytest.raises(EnvironmentFault, match="environments died after"):
            agent.learn(200, Kill())
        agent.save(tmp_path / "saved")
        assert (
            read_checkpoint(tmp_path / "saved")["run"]["num_timesteps"]
            == agent.checkpoint_step
            == (30 if lag else 20)
        )
    finally:
        for process in env.processes:
            process.kill()
            process.join()
        for remote in env.remotes:
            remote.close()


@pytest.mark.parametrize(
    "change",
    [
        {"core": {"name": "srwm", "width": 2**20, "heads": 2}},
        {"core": {"name": "srwm", "layers": 10**9}},
        {"core": {"name": "lstm", "hidden": 10**6}},
        {"encoder": {"channels": [10**7]}},
        {"encoder": {"channels": [4] * 10_000}},
        {"encoder": {"hidden": 10**9}},
    ],
)
def test_a_network_larger_than_its_weights_is_refused_before_it_is_made(
    change: dict[str, Any], tiny: Callable[..., Any], toy: Callable[..., Any], tmp_path: Path
) -> None:
    agent = IMPALA(tiny("srwm"), toy(4), seed=1)
    agent.save(tmp_path / "a")
    content = read_checkpoint(tmp_path / "a.ckpt")
    write_checkpoint(tmp_path / "b", {**content, "policy_config": {**content["policy_config"], **change}})
    with pytest.raises(CheckpointError, match=r"b\.ckpt does not fit: ") as refusal:
        IMPALA.load(tmp_path / "b.ckpt")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "part", ["learner", "policy_config", "config", "run", "image_shape", "num_actions", "seed", "experiment"]
)
@pytest.mark.parametrize("value", [None, 5, "x", [], {}, [1, 2]])
def test_content_of_another_form_is_one_line(
    part: str, value: Any, tiny: Callable[..., Any], toy: Callable[..., Any], tmp_path: Path
) -> None:
    agent = IMPALA(tiny(), toy(2), seed=1)
    agent.save(tmp_path / "a")
    content = read_checkpoint(tmp_path / "a.ckpt")
    for damaged in (
        {**content, part: value},
        {**content, "learner": {**content["learner"], "policy": value}},
        {**content, "learner": {**content["learner"], "optimizer": value}},
    ):
        with contextlib.suppress(CheckpointError):
            IMPALA.from_content(damaged, "a.ckpt")
