from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from agents import IMPALA
from benchmarks import impala_ingredients as program
from benchmarks.impala_ingredients import Mixture, Settings
from envs import ProcgenVecEnv
from policies import EncoderConfig, PolicyConfig, core_config

SMALL = PolicyConfig(core_config("feedforward"), EncoderConfig(channels=(4,), hidden=8))


def agent_with(settings: Settings) -> IMPALA:
    agent_class = type("Mixture", (Mixture,), {"settings": settings})
    env = ProcgenVecEnv("starpilot", 4, num_threads=0)
    agent = agent_class(SMALL, env, seed=0, rollout_steps=10, trace_lambda=0.9)
    assert isinstance(agent, IMPALA)
    return agent


def test_advantages_are_normalized_and_nothing_else() -> None:
    agent, plain = (agent_with(Settings(Path("x"), normalize_advantages=flag)) for flag in (True, False))
    agent.learn(40)
    batch = agent._stores[0].batch
    arguments = (batch, batch.log_probs - 0.1, batch.values, batch.values[-1])
    ours, theirs = agent._estimates(*arguments), plain._estimates(*arguments)
    torch.testing.assert_close(ours.targets, theirs.targets)
    assert float(ours.advantages.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(ours.advantages.std()) == pytest.approx(1.0, abs=1e-3)
    slope = torch.corrcoef(torch.stack([ours.advantages.flatten(), theirs.advantages.flatten()]))[0, 1]
    assert float(slope) == pytest.approx(1.0, abs=1e-4)


def test_the_optimizer() -> None:
    assert isinstance(agent_with(Settings(Path("x"), adam=True)).optimizer, torch.optim.Adam)
    assert isinstance(agent_with(Settings(Path("x"))).optimizer, torch.optim.RMSprop)


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "policy_config", lambda name: SMALL)
    monkeypatch.setattr(program, "LOG_EVERY_STEPS", 3200)
    out = tmp_path / "curve.json"
    words = [
        "--steps",
        "6400",
        "--passes",
        "2",
        "--trace-lambda",
        "0.95",
        "--batch-unrolls",
        "64",
        "--json",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", ["x", *words])
    assert program.main() == 0
    record = json.loads(out.read_text())
    assert record["command"].startswith("python -m benchmarks.impala_ingredients --steps 6400")
    assert record["settings"]["trace_lambda"] == 0.95
    assert record["curve"]["steps"] == [3200.0, 6400.0]
    assert len(record["curve"]["return"]) == len(record["curve"]["entropy"]) == 2


def test_a_place_that_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--json", "nowhere/x.json"])
    assert program.run_command(program.main) == 2
    assert (
        capsys.readouterr().err
        == "error: --json nowhere/x.json cannot be written, there is no such directory\n"
    )
    monkeypatch.setattr(sys, "argv", ["x"])
    assert program.run_command(program.main) == 2
    assert "--json" in capsys.readouterr().err
