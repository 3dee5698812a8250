from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import IMPALA
from agents.vtrace import VTrace
from benchmarks import impala_ingredients as program
from benchmarks.impala_ingredients import Normalizing
from envs import ProcgenVecEnv
from policies import ImpalaEncoderConfig, PolicyConfig, core_config

SMALL = PolicyConfig(core_config("feedforward"), ImpalaEncoderConfig(hidden=8, channels=(4,)))


def test_advantages_are_normalized_and_nothing_else() -> None:
    env = ProcgenVecEnv("starpilot", 4, num_threads=0)
    agents = [kind(SMALL, env, seed=0, rollout_steps=10) for kind in (Normalizing, IMPALA)]
    generator = torch.Generator().manual_seed(0)
    targets, advantages = (torch.randn(10, 4, generator=generator) for _ in range(2))
    estimates = VTrace(targets, advantages, 3.0 * advantages + 1.0)
    log_probs = torch.full((10, 4), -1.0)  # so that the loss at a step is its advantage
    batch: Any = None  # of which the policy's loss needs nothing
    ours, plain = (agent.learner.policy_loss(log_probs, batch, estimates) for agent in agents)  # type: ignore[attr-defined]
    torch.testing.assert_close(plain, 3.0 * advantages + 1.0)
    torch.testing.assert_close(ours, (advantages - advantages.mean()) / advantages.std())
    env.close()


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
