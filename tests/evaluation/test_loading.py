from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents import IMPALA, Agent
from common.errors import UserError
from envs import ProcgenVecEnv
from evaluation.loading import TrainingInfo, find_checkpoint, load_agent, training_info
from policies import policy_config


def test_the_newest_checkpoint_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="holds no checkpoints"):
        find_checkpoint(tmp_path / "run")
    for step in (900, 12_000, 3_000):
        (folder / f"step_{step:012d}.ckpt").touch()
    (folder / "notes.txt").touch()
    assert find_checkpoint(tmp_path / "run") == folder / "step_000000012000.ckpt"
    assert find_checkpoint(folder / "step_000000000900.ckpt") == folder / "step_000000000900.ckpt"
    with pytest.raises(UserError, match="does not exist"):
        find_checkpoint(tmp_path / "rnu")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (
            {"games": ["maze", "heist"], "mode": "memory", "levels": "0:9", "num_envs": 4},
            TrainingInfo(("maze", "heist"), "memory", "0:9"),
        ),
        ({"evaluation_greedy": False}, TrainingInfo(evaluation_greedy=False)),
        ({}, TrainingInfo((), "easy", "train")),
        ({"games": "maze", "mode": 3, "levels": None}, TrainingInfo((), "easy", "train")),
    ],
)
def test_what_an_agent_was_trained_on(stored: dict[str, Any], expected: TrainingInfo) -> None:
    assert training_info(cast(Agent, SimpleNamespace(experiment=stored))) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused_by_name(value: float, tmp_path: Path) -> None:
    env = ProcgenVecEnv("maze", 2, num_threads=0)
    agent = IMPALA("feedforward", env, seed=0, rollout_steps=2, device="cpu")
    env.close()
    agent.policy.critic.bias.data[:] = value
    agent.save(tmp_path / "broken.ckpt")
    problems: list[str] = []
    load_agent(str(tmp_path / "broken.ckpt"), "cpu", problems)
    (problem,) = problems
    assert "holds weights that are not numbers (critic.bias): use an earlier checkpoint" in problem


@pytest.mark.parametrize(("units", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_an_agent_trained_elsewhere_plays_in_what_this_machine_has_units_for(
    units: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = ProcgenVecEnv("maze", 2, num_threads=0)
    agent = IMPALA(policy_config("feedforward", precision="bfloat16"), env, seed=0, device="cpu")
    env.close()
    agent.save(tmp_path / "trained.ckpt")
    monkeypatch.setattr("policies.precision.has_bfloat16_units", lambda device: units)
    loaded = load_agent(str(tmp_path / "trained.ckpt"), "cpu", [])
    assert loaded is not None
    assert loaded.agent.policy.encoder.precision == expected
