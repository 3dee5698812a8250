"""What every method must do, and every new one: nothing without strength, and the same after a kill as without."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback

import agents
from agents import ALGORITHMS, Agent, read_checkpoint
from agents.agent import Interrupted
from agents.retention import RETENTIONS, RetentionConfig, make_retention
from helpers import assert_same
from policies import CORES, PolicyConfig, TaskConfig

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]

METHODS = [name for name in RETENTIONS if name != "none"]
TOGETHER = ["ewc+si", "si+ewc", "clear+online_ewc", "xdg+si"]
SMALL: dict[str, dict[str, Any]] = {
    "impala": {"rollout_steps": 10},
    "appo": {"rollout_steps": 10, "passes": 2},
    "ppo": {"rollout_steps": 10, "minibatches": 2, "epochs": 1},
}
QUICK: dict[str, Any] = {"consolidation_rollouts": 1}


def begun(names: str, algorithm: str, policy: PolicyConfig, env: Any, **settings: Any) -> Agent:
    told = settings.pop("told", False)
    if told or any(RETENTIONS[name].needs_identity for name in names.split("+")):
        policy = replace(policy, tasks=TaskConfig(count=2, id="told", heads="per-task"))
    retain = RetentionConfig(**{**QUICK, **settings})
    return ALGORITHMS[algorithm](policy, env, retention=names, retain=retain, seed=0, **SMALL[algorithm])


class Save(BaseCallback):
    """Saves at a certain step, which may lie within a rollout."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__()
        self.path, self.step = path, step

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            self.model.save(self.path)
        return True


def two_tasks(agent: Agent, procgen: MakeEnv, **callbacks: Any) -> Agent:
    agent.learn(80, **callbacks)
    agent.change_task(procgen("maze", 4, seed=1), 1)
    return agent.learn(80, reset_num_timesteps=False, **callbacks)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("name", METHODS)
def test_an_inert_method_is_fine_tuning_bit_for_bit(
    name: str, algorithm: str, tiny: Tiny, procgen: MakeEnv
) -> None:
    found = []
    told = RETENTIONS[name].needs_identity
    for names, settings in (("none", {}), (name, RETENTIONS[name].inert)):
        agent = begun(names, algorithm, tiny("srwm"), procgen("bigfish", 4), told=told, **settings)
        two_tasks(agent, procgen)
        state = agent.learner.state()
        metrics = agent.learner.learn(agent.actors.stores[0].batch, 0)
        found.append(({k: state[k] for k in ("policy", "optimizer", "updates")}, metrics))
    assert_same(*found)


@pytest.mark.parametrize("core", list(CORES))
@pytest.mark.parametrize("name", METHODS)
def test_each_method_acts_with_each_core(name: str, core: str, tiny: Tiny, procgen: MakeEnv) -> None:
    """After a change of the task, weights are others than those of fine-tuning; without strength, they are those."""
    told = RETENTIONS[name].needs_identity
    weights = []
    for names, settings in (("none", {}), (name, RETENTIONS[name].inert), (name, {})):
        agent = begun(names, "impala", tiny(core), procgen("bigfish", 4), told=told, **settings)
        weights.append(dict(two_tasks(agent, procgen).policy.state_dict()))
    tuned, inert, acting = weights
    assert_same(tuned, inert)
    assert any(not tuned[key].equal(acting[key]) for key in tuned)
    assert all(tensor.isfinite().all() for tensor in acting.values())


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("names", METHODS + TOGETHER)
def test_a_run_that_was_killed_goes_on_exactly(
    names: str, algorithm: str, tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    """In the middle of the first task, at the change, and in the middle of the second."""
    agent = begun(names, algorithm, tiny("srwm"), procgen("bigfish", 4))
    agent.retention.use_directory(tmp_path / "replay")
    agent.learn(120, Save(tmp_path / "first", 60))
    agent.change_task(procgen("maze", 4, seed=1), 1)
    agent.save(tmp_path / "change")
    agent.learn(120, Save(tmp_path / "second", 200), reset_num_timesteps=False)
    agent.save(tmp_path / "end")
    end = read_checkpoint(tmp_path / "end.ckpt")

    for start in ("first", "change", "second"):
        env = procgen("bigfish", 4) if start == "first" else procgen("maze", 4, seed=1)
        other = agents.load(tmp_path / start, env, force_reset=False)
        other.retention.use_directory(tmp_path / "replay")
        if start == "first":
            other.learn(120 - other.num_timesteps, reset_num_timesteps=False)
            other.change_task(procgen("maze", 4, seed=1), 1)
        other.learn(240 - other.num_timesteps, reset_num_timesteps=False)
        other.save(tmp_path / "again")
        again = read_checkpoint(tmp_path / "again.ckpt")
        for part in ("learner", "run", "retention"):
            assert_same({**again[part], "total_timesteps": 0}, {**end[part], "total_timesteps": 0})


@pytest.mark.parametrize("names", METHODS + TOGETHER)
def test_what_is_broken_off_leaves_no_trace(names: str, tiny: Tiny, procgen: MakeEnv) -> None:
    """A phase of learning after its first update, and a consolidation in its second rollout."""
    agent = begun(names, "ppo", tiny("srwm"), procgen("bigfish", 4), consolidation_rollouts=2)
    two_tasks(agent, procgen)
    before = deepcopy(agent.learner.state())
    agent.learner.stop_asked = iter([False, False, True]).__next__  # asked twice in each update
    with pytest.raises(Interrupted):
        agent.learner.learn(agent.actors.stores[0].batch, 0)
    assert_same(agent.learner.state(), before)

    asked = iter(range(1000))
    agent.stop_when = lambda: next(asked) > 15  # at each of the 10 steps of a rollout
    if not agent.change_task(procgen("bigfish", 4, seed=2), 0):
        assert next(asked) > 15
        assert_same(agent.learner.state(), before)


@pytest.mark.parametrize("name", METHODS)
def test_settings_of_every_method_are_settings_of_a_run(name: str) -> None:
    """Their names are unique over all methods, since they share one dataclass."""
    known = {item.name for item in fields(RetentionConfig)}
    assert issubclass(RetentionConfig, RETENTIONS[name].config_class)
    assert set(RETENTIONS[name].inert) <= known
    assert make_retention(name).name == name


def test_names_of_settings_say_the_same_everywhere() -> None:
    """A setting that two methods have is the same setting of a common base."""
    owners: dict[str, set[type]] = {}
    for base in RetentionConfig.__mro__:
        for field in vars(base).get("__annotations__", {}):
            owners.setdefault(field, set()).add(base)
    assert {field: found for field, found in owners.items() if len(found) > 1} == {}
