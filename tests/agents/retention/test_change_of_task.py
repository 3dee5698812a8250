"""One task after the other: what a change of the task does to the agent, and what of it a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import agents
from agents import IMPALA, PPO, Agent, AppoConfig
from agents.agent import Interrupted
from agents.retention import Retention, RetentionConfig, Rollouts, retention_problems
from common.errors import UserError
from helpers import assert_same
from policies import PolicyConfig, TaskConfig

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]

SMALL: dict[str, Any] = {"rollout_steps": 20, "seed": 0}
LAGGING: dict[str, Any] = {**SMALL, "rollout_lag": 1}


class Notes(Retention):
    """Writes down where tasks begin and end, and plays a rollout or two at each end."""

    needs_boundaries = True

    def __init__(self, rollouts: int = 2) -> None:
        super().__init__()
        self.rollouts = rollouts
        self.calls: list[tuple[str, int]] = []
        self.games: list[torch.Tensor] = []

    def begin_task(self, task: int) -> None:
        self.calls.append(("begin", task))

    def end_task(self, task: int, rollouts: Rollouts) -> None:
        self.calls.append(("end", task))
        self.games += [batch.rgb.clone() for batch in rollouts(self.rollouts)]


def test_a_method_is_told_and_plays_before_the_change(tiny: Tiny, procgen: MakeEnv) -> None:
    method = Notes()
    agent = IMPALA(tiny("srwm"), procgen("bigfish", 4), retention=method, **SMALL)
    agent.learn(160)
    weights = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    assert agent.change_task(procgen("maze", 4, seed=1), 1)
    assert method.calls == [("begin", 0), ("end", 0), ("begin", 1)]
    assert len(method.games) == 2
    assert not torch.equal(method.games[0], method.games[1])  # episodes went on
    assert_same(dict(agent.policy.state_dict()), weights)
    assert (agent.task, agent.num_timesteps, agent.consolidation_steps) == (1, 160, 160)
    agent.learn(160, reset_num_timesteps=False)
    assert agent.num_timesteps == 320


@pytest.mark.parametrize("settings", [SMALL, LAGGING])
def test_a_checkpoint_at_a_change_goes_on_exactly(
    settings: dict[str, Any], tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    agent = IMPALA(tiny("srwm"), procgen("bigfish", 4), retention=Notes(), **settings)
    agent.learn(160)
    agent.change_task(procgen("maze", 4, seed=1), 1)
    agent.save(tmp_path / "change")
    agent.learn(160, reset_num_timesteps=False)
    agent.save(tmp_path / "end")

    other = IMPALA.load(tmp_path / "change", procgen("maze", 4, seed=1), force_reset=False, retention=Notes())
    assert (other.task, other.consolidation_steps) == (1, 160)
    other.learn(160, reset_num_timesteps=False)
    other.save(tmp_path / "other")
    assert_same(
        agents.read_checkpoint(tmp_path / "other.ckpt"), agents.read_checkpoint(tmp_path / "end.ckpt")
    )


def test_without_consolidation_a_change_is_a_change_of_environments(tiny: Tiny, procgen: MakeEnv) -> None:
    changed, moved = (IMPALA(tiny("lstm"), procgen("bigfish", 4), **SMALL).learn(160) for _ in range(2))
    changed.change_task(procgen("maze", 4, seed=1), 1)
    moved.set_env(procgen("maze", 4, seed=1))
    for agent in (changed, moved):
        agent.learn(160, reset_num_timesteps=False)
    assert_same(dict(changed.policy.state_dict()), dict(moved.policy.state_dict()))


def test_a_stop_while_consolidating_leaves_the_end_of_the_task(
    tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    agent = IMPALA(tiny("srwm"), procgen("bigfish", 4), retention=Notes(), **SMALL)
    agent.learn(160)
    agent.save(tmp_path / "end")
    agent.stop_when = lambda: True
    before = agent.env
    assert not agent.change_task(procgen("maze", 4, seed=1), 1)
    assert (agent.env, agent.task) == (before, 0)
    agent.save(tmp_path / "stopped")
    assert_same(
        agents.read_checkpoint(tmp_path / "stopped.ckpt")["run"],
        agents.read_checkpoint(tmp_path / "end.ckpt")["run"],
    )
    with pytest.raises(Interrupted):
        agent.retention.end_task(0, agent._consolidation_rollouts)


def test_statistics_of_games_that_are_away_survive(tiny: Tiny, procgen: MakeEnv, tmp_path: Path) -> None:
    agent = PPO(tiny(), procgen("fruitbot", 4), rollout_steps=100, minibatches=2, epochs=1, seed=0).learn(
        1_600
    )
    away = agent.actors.statistics()
    assert away["episodes"]["windows"]["fruitbot"]
    agent.change_task(procgen("bigfish", 4, seed=1), 1)
    agent.learn(400, reset_num_timesteps=False)
    agent.save(tmp_path / "second")
    loaded = PPO.load(tmp_path / "second", procgen("bigfish", 4, seed=1), force_reset=False)
    for there in (agent, loaded):
        now = there.actors.statistics()
        assert now["episodes"]["windows"]["fruitbot"] == away["episodes"]["windows"]["fruitbot"]
        assert now["episodes"]["played"] == ["bigfish"]
        old, new = (s["collector"]["rewards"]["statistics"] for s in (away, now))
        assert new["fruitbot"] == old["fruitbot"]
    loaded.change_task(procgen("fruitbot", 4, seed=2), 0)
    assert loaded.actors.statistics()["collector"]["rewards"]["statistics"]["fruitbot"] == old["fruitbot"]


def test_state_is_carried_over_where_asked(tiny: Tiny, procgen: MakeEnv) -> None:
    agent = IMPALA(tiny("srwm", reset="never"), procgen("bigfish", 4), **SMALL).learn(160)
    shift = agent.actors.collector.core_state["layer0/shift"]
    agent.change_task(procgen("maze", 4, seed=1), 1, keep_state=True)
    assert torch.equal(agent.actors.collector.core_state["layer0/shift"], shift)
    agent.change_task(procgen("maze", 4, seed=2), 2)
    assert not agent.actors.collector.core_state["layer0/shift"].any()


def test_the_method_and_its_settings_are_in_the_checkpoint(tiny: Tiny, toy: MakeEnv, tmp_path: Path) -> None:
    retain = RetentionConfig(every=1000)
    agent: Agent = agents.APPO(tiny(), toy(4), AppoConfig(rollout_steps=5), retention="none", retain=retain)
    agent.save(tmp_path / "a")
    assert agents.load(tmp_path / "a").retention.config == retain
    content = agents.read_checkpoint(tmp_path / "a.ckpt")
    del content["retention"]  # as files of older releases are
    agents.write_checkpoint(tmp_path / "older", content)
    assert agents.load(tmp_path / "older").retention.name == "none"


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("nine", "unknown retention 'nine'"),
        ("none+none", "retention none+none: none cannot be combined with itself: name it once"),
    ],
)
def test_names_that_cannot_be(names: str, problem: str, tiny: Tiny, toy: MakeEnv) -> None:
    assert retention_problems(names)[0].startswith(problem)
    with pytest.raises(UserError, match=r"retention"):
        IMPALA(tiny(), toy(4), retention=names)


@pytest.mark.parametrize("retention", ["none", "wpl"])
@pytest.mark.parametrize("algorithm", [IMPALA, PPO])
def test_private_cores_are_left_alone_by_other_tasks(
    algorithm: type[Agent], retention: str, tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    """What tasks share is the encoder; and a checkpoint goes on exactly in the middle of the second task."""
    policy = tiny("srwm", tasks=TaskConfig(2, "told", "per-task", cores="per-task"))
    sizes = {"minibatches": 2} if algorithm is PPO else {}
    settings = {**SMALL, **sizes, "retention": retention}
    agent = algorithm(policy, procgen("bigfish", 4), **settings)
    agent.learn(160)
    before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    agent.change_task(procgen("maze", 4, seed=1), 1)
    agent.learn(160, reset_num_timesteps=False)
    agent.save(tmp_path / "middle")
    after = agent.policy.state_dict()
    for name, tensor in before.items():
        if name.startswith("core."):
            assert torch.equal(after[name], tensor) == name.startswith("core.cores.0."), name
    assert not torch.equal(after["encoder.linear.weight"], before["encoder.linear.weight"])
    agent.learn(160, reset_num_timesteps=False)
    agent.save(tmp_path / "end")
    other = algorithm.load(tmp_path / "middle", procgen("maze", 4, seed=1), force_reset=False)
    other.learn(160, reset_num_timesteps=False)
    other.save(tmp_path / "other")
    assert_same(
        agents.read_checkpoint(tmp_path / "other.ckpt"), agents.read_checkpoint(tmp_path / "end.ckpt")
    )
