"""What `auto` chooses, and where it is settled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import policies.precision
from agents import IMPALA, load
from agents.checkpoint import read_checkpoint
from envs import ProcgenVecEnv
from policies import Policy, PolicyConfig, policy_config
from policies.precision import resolved

CPU = torch.device("cpu")
PROCESSORS: dict[str, tuple[Mapping[str, object], str]] = {
    "with AVX-512's bfloat16": ({"avx512_f": True, "avx512_bf16": True}, "bfloat16"),
    "with AMX": ({"avx512_f": True, "amx_bf16": True}, "bfloat16"),
    "with AVX-512 alone": ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
    "that says nothing": ({}, "float32"),
}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_auto_is_bfloat16_where_there_are_units_for_it(
    processor: str, units_of_this_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    capabilities, expected = PROCESSORS[processor]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolved("auto", CPU) == expected
    assert resolved("float32", CPU) == "float32"
    assert resolved("bfloat16", CPU) == "bfloat16"


@pytest.mark.parametrize(("units", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_policy_is_built_with_what_was_settled(
    units: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies.precision, "has_bfloat16_units", lambda device: units)
    policy = Policy(policy_config("feedforward"), (16, 16, 3), 3)
    assert PolicyConfig().precision == "auto"
    assert (policy.encoder.precision, policy.config.precision) == (expected, expected)


def test_a_checkpoint_keeps_the_precision_of_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies.precision, "has_bfloat16_units", lambda device: True)
    config = policy_config("feedforward", encoder={"channels": (4,), "hidden": 8})
    env = ProcgenVecEnv("maze", 4, seed=0, num_threads=0)
    IMPALA(config, env, seed=0, device="cpu").save(tmp_path / "one.ckpt")
    env.close()
    monkeypatch.setattr(policies.precision, "has_bfloat16_units", lambda device: False)
    assert load(tmp_path / "one.ckpt").policy_config.precision == "bfloat16"
    assert read_checkpoint(tmp_path / "one.ckpt")["policy_config"]["precision"] == "bfloat16"
