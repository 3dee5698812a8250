"""Checkpoints that are whole, checksum included, and say something else than an agent wrote."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import agents
from agents import IMPALA, CheckpointError, read_checkpoint, write_checkpoint
from agents.checkpoint import MAX_DEPTH, MAX_ELEMENTS, VERSION
from agents.content import SCHEMA
from agents.schema import Array, Items, Named, NumberOr, Optional, Schema, Table, Text, Whole
from benchmarks.faults.mutations import File, mutated, refusal
from common.errors import UserError
from envs import ProcgenVecEnv
from policies import ImpalaEncoderConfig, PolicyConfig
from small_cores import small_core

MakeEnv = Callable[..., Any]


@pytest.fixture(scope="module")
def env() -> Any:
    made = ProcgenVecEnv(["bigfish", "dodgeball"], 2, num_threads=0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(env: ProcgenVecEnv, tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy = PolicyConfig(
        small_core("srwm", width=8, heads=2, feedforward=8, layers=1, hidden=8),
        ImpalaEncoderConfig(hidden=8, channels=(4,)),
    )
    agent = IMPALA(policy, env, seed=0, rollout_steps=4, reward_transform="normalize", rollout_lag=1)
    agent.learn(16)
    path = tmp_path_factory.mktemp("whole") / "whole.ckpt"
    agent.save(path)
    return path


@settings(max_examples=30)
@given(seed=st.integers(0, 2**63))
def test_wrong_values_are_refused_in_a_line_or_work(seed: int, whole: Path, env: ProcgenVecEnv) -> None:
    path = whole.with_name("mutated.ckpt")
    path.write_bytes(mutated(File.read(whole.read_bytes()), Random(seed)))
    refusal(path, env)  # raises for everything else


def content_of(whole: Path) -> dict[str, Any]:
    return read_checkpoint(whole)


CHANGES: dict[str, tuple[tuple[str, ...], Any]] = {
    "no algorithm": (("algorithm",), None),
    "algorithm is a list": (("algorithm",), ["impala"]),
    "experiment is null": (("experiment",), None),
    "experiment is a number": (("experiment",), 3),
    "steps are negative": (("run", "num_timesteps"), -1),
    "steps are a text": (("run", "num_timesteps"), "3"),
    "reset is enormous": (("policy_config", "reset"), "1" + "0" * 400),
    "span is enormous": (("policy_config", "bptt_span"), 10**30),
    "weights are whole numbers": (
        ("learner", "policy", "actor.weight"),
        torch.ones(15, 8, dtype=torch.int64),
    ),
    "weights are flags": (("learner", "policy", "critic.bias"), torch.ones(1, dtype=torch.bool)),
    "weights are none": (("learner", "policy"), None),
    "optimizer of another shape": (("learner", "optimizer", "state", "0", "square_avg"), torch.ones(3)),
    "optimizer of nothing": (("learner", "optimizer", "state", "0"), {}),
    "optimizer of other weights": (("learner", "optimizer", "state", "99"), {}),
    "generator of another kind": (("learner", "shuffling"), torch.zeros(3, dtype=torch.uint8)),
    "images of no size": (("image_shape",), [0, 64, 3]),
    "a seed that is too large": (("seed",), 2**63),
    "a seed below zero": (("seed",), -1),
    "a seed that is a text": (("seed",), "\x1b[2J"),
    "rollouts beyond all memory": (("config", "rollout_steps"), 10**9),
    "a task that is no number": (("run", "task"), "first"),
    "fewer than no steps at changes of the task": (("run", "consolidation_steps"), -1),
    "no such method of continual learning": (("retention", "name"), "ewcc"),
    "settings of it that are not there": (("retention", "config"), {"strength": 1}),
    "settings of it that are impossible": (("retention", "config", "ewc_strength"), -1.0),
    "a method and nothing that it keeps": (("retention", "name"), "ewc"),
    "what methods draw from": (("learner", "replaying"), torch.zeros(3, dtype=torch.uint8)),
    "a window without end": (("run", "episodes", "windows"), {"bigfish": [[0.0, 1, 0.0]] * 101}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_refused_by_name(name: str, whole: Path, env: ProcgenVecEnv, tmp_path: Path) -> None:
    content = content_of(whole)
    (*way, last), value = CHANGES[name]
    place = content
    for key in way:
        place = place[key]
    place[last] = value
    path = write_checkpoint(tmp_path / "a.ckpt", content)
    with pytest.raises(UserError) as raised:
        agents.load(path, env)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1200


def test_settings_of_the_optimizer_come_from_the_configuration(
    whole: Path, env: ProcgenVecEnv, tmp_path: Path
) -> None:
    """What a file says of them is not looked at: `maximize` would train backwards, a text would end the program."""
    content = content_of(whole)
    for group in content["learner"]["optimizer"]["param_groups"]:
        group |= {"lr": "x", "maximize": True, "params": [0] * 1000}
    agent = agents.load(write_checkpoint(tmp_path / "a.ckpt", content), env, learning_rate=0.25)
    (group,) = agent.optimizer.param_groups
    assert not group["maximize"]
    assert len(group["params"]) == len(list(agent.policy.parameters()))
    agent.learn(8, reset_num_timesteps=False)


def test_an_older_file_says_nothing_of_continual_learning(
    whole: Path, env: ProcgenVecEnv, tmp_path: Path
) -> None:
    """It goes on as the agent that wrote it would have."""
    content = content_of(whole)
    del content["retention"], content["learner"]["replaying"], content["policy_config"]["tasks"]
    del content["run"]["task"], content["run"]["consolidation_steps"]
    older = write_checkpoint(tmp_path / "older.ckpt", content)
    weights = []
    for path in (whole, older):
        agent = agents.load(path, env, force_reset=False)
        agent.learn(16, reset_num_timesteps=False)
        weights.append(torch.cat([p.detach().flatten() for p in agent.policy.parameters()]))
    assert agent.retention.name == "none"
    assert torch.equal(*weights)


def test_what_is_written_is_what_the_schema_says(whole: Path) -> None:
    SCHEMA.check(content_of(whole), "")
    content = content_of(whole)
    del content["learner"]["skipped"]
    with pytest.raises(ValueError, match="it has no learner/skipped"):
        SCHEMA.check(content, "")


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (Whole(0, 5), [0, 5], [-1, 6, 1.0, True, None, "1"]),
        (Text(), ["", "a" * 1000], ["a" * 1001, 1, None]),
        (
            Array(("float32",), 1),
            [torch.ones(2), np.ones(2, np.float32)],
            [torch.ones(1, 1), torch.ones(2).int(), [1.0]],
        ),
        (NumberOr(Array(("float32",))), [1, 0.5, torch.ones(1)], ["1", None, True]),
        (Optional(Whole()), [None, 1], [-1]),
        (Items(Whole(), most=2, least=1), [[1], [1, 2]], [[], [1, 2, 3], ["a"], {}]),
        (Named(Whole()), [{}, {"x": 1}], [{"x": -1}, [], None]),
        (
            Table({"a": Whole()}, {"b": Text()}),
            [{"a": 1}, {"a": 1, "b": "", "c": []}],
            [{}, {"a": 1, "b": 2}, 3],
        ),
    ],
)
def test_schemas(schema: Schema, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        schema.check(value, "place")
    for value in bad:
        with pytest.raises(ValueError, match=r"place|it has no|content"):
            schema.check(value, "place")


def file_with(header: str, data: bytes = b"") -> bytes:
    raw = struct.pack("<24sIQ", b"procgen-srwm checkpoint\n", VERSION, len(header)) + header.encode() + data
    return raw + hashlib.sha256(raw).digest()


@pytest.mark.parametrize(
    "header",
    [
        '{"tensors": [], "content": {"x": [' + "[]," * 3_000_000 + "[]]}}",
        '{"tensors": [' + '["bool", [0]],' * 400_000 + '["bool", [0]]], "content": {}}',
        '{"tensors": [["bool", [0' + f",{MAX_ELEMENTS}" * 65_000 + ']]], "content": {}}',
        '{"tensors": [["bool", [0' + ",281474976710655" * 5 + ']]], "content": {}}',
        '{"tensors": [], "content": ' + '{"a": ' * (MAX_DEPTH + 2) + "1" + "}" * (MAX_DEPTH + 2) + "}",
        '{"tensors": [], "content": {"a": ' + "9" * 200 + "}}",
        '{"tensors": [["uint8", [0]]], "content": {}}',
        '{"tensors": [["uint8", [0]]], "content": {"a": {"$tensor": "0", "as": "bytes"}, '
        '"b": {"$tensor": "0", "as": "bytes"}}}',
    ],
)
def test_headers_are_bounded_before_they_are_believed(header: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(file_with(header))
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAX_DEPTH + 1):
        deep = {"a": deep}
    for content in (deep, {"a": 10**200}, {"a": [[]] * 600_000}):
        with pytest.raises(ValueError, match=r"cannot hold|at most"):
            write_checkpoint(tmp_path / "a.ckpt", content)
    assert list(tmp_path.iterdir()) == []


def test_names_that_no_file_has(tmp_path: Path) -> None:
    for name in ("a" * 300, "a\0b"):
        with pytest.raises(CheckpointError):
            agents.load(tmp_path / name)
