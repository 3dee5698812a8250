from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents import ALGORITHMS
from common.errors import UserError
from envs import GAMES, MODES
from policies import CORES
from records.config import TrainConfig, from_json, to_json


def settings(**changes: object) -> TrainConfig:
    return from_json({"games": ["bigfish", "maze"], "num_envs": 32, **changes})


def test_a_good_configuration_has_no_problems() -> None:
    assert settings().problems() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"games": ["bigfsh"]}, "unknown game 'bigfsh': did you mean bigfish?"),
        ({"games": []}, "no games"),
        ({"twist": "blank 8 of 4"}, "twist 'blank 8 of 4': give blank K of P"),
        ({"mode": "meddium"}, "unknown mode 'meddium'"),
        ({"mode": "memory"}, "game 'bigfish' has no memory mode"),
        ({"num_envs": 33}, "33 environments cannot be shared equally by 2 games"),
        ({"num_envs": 0}, "0 environments"),
        ({"levels": "trian"}, "unknown levels 'trian': did you mean train?"),
        ({"levels": "5:5"}, "levels '5:5' are empty"),
        ({"seed": -1}, "seed -1"),
        ({"reset": "sometimes"}, "unknown reset rule 'sometimes'"),
        ({"bptt_span": 0}, "bptt_span is 0"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"total_steps": 0}, "total_steps is 0: give 1 or more"),
        ({"total_steps": 10**14}, "total_steps is 100000000000000: give at most 10,000,000,000,000"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps is -1"),
        ({"log_every_steps": 0}, "log_every_steps is 0"),
        ({"torch_threads": 0}, "torch_threads is 0"),
        ({"env_threads": -1}, "env_threads is -1"),
        ({"num_envs": 2 * 10**9}, "environments: at most 16,384 are possible"),
        ({"agent": {"rollout_steps": 10**9}}, "rollouts of 1,000,000,000 steps"),
        ({"device": "gpu"}, "unknown device 'gpu': use auto, cpu or cuda"),
        ({"device": "meta"}, "device 'meta' is not supported"),
        ({"evaluation_episodes": 0}, "evaluation_episodes is 0"),
        ({"evaluation_splits": []}, "no evaluation_splits"),
        ({"evaluation_splits": ["test9"]}, "evaluation_splits: unknown levels 'test9'"),
        ({"evaluation_splits": ["test1", "train", "test1"]}, "lists test1 more than once"),
        ({"agent": {"batch_unrolls": 5}}, "batch_unrolls"),
        ({"agent": {"learning_rate": 0}}, "learning_rate"),
        ({"agent": {"reward_transform": "clipp"}}, "unknown reward transform 'clipp': did you mean clip?"),
        ({"algorithm": "ppo", "agent": {"minibatches": 5}}, "minibatches"),
        ({"algorithm": "ppo", "agent": {"minibatches": 64}}, "minibatches"),
    ],
)
def test_each_problem_is_found_alone(changes: dict[str, object], expected: str) -> None:
    found = settings(**changes).problems()
    assert len(found) == 1
    assert found[0].startswith(expected) or expected in found[0]
    assert "\n" not in found[0]


def test_a_missing_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert settings(device="cuda").problems() == [
        "device 'cuda' is not available, torch finds no GPU: use auto or cpu"
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert settings(device="cuda").problems() == settings(device="cuda:1").problems() == []
    assert settings(device="cuda:2").problems() == ["device 'cuda:2' does not exist: the last one is cuda:1"]


def test_all_problems_come_in_one_line() -> None:
    with pytest.raises(UserError) as raised:
        settings(
            games=["bigfsh", "maze"], num_envs=33, reset="x", device="gpu", agent={"discount": 2}
        ).check()
    message = str(raised.value)
    assert message.startswith("5 problems: ")
    assert message.count(";") >= 4
    assert "\n" not in message


NUMBERS = st.one_of(st.integers(-3, 70), st.integers(-(10**20), 10**20))


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "games": st.lists(st.one_of(st.sampled_from([*GAMES, "easy6"]), st.text(max_size=8)), max_size=4),
            "mode": st.one_of(st.sampled_from(MODES), st.text(max_size=8)),
            "levels": st.one_of(st.sampled_from(["train", "all", "3:9", "9:3"]), st.text(max_size=8)),
            "num_envs": NUMBERS,
            "total_steps": NUMBERS,
            "seed": NUMBERS,
            "policy": st.one_of(st.sampled_from([*CORES]), st.text(max_size=8)),
            "algorithm": st.one_of(st.sampled_from([*ALGORITHMS]), st.text(max_size=8)),
            "core": st.dictionaries(st.sampled_from(["heads", "width", "hidden", "x"]), NUMBERS, max_size=3),
            "encoder": st.dictionaries(st.sampled_from(["hidden", "channels"]), NUMBERS, max_size=2),
            "agent": st.dictionaries(
                st.sampled_from(["batch_unrolls", "minibatches", "rollout_steps", "discount", "epochs"]),
                st.one_of(NUMBERS, st.floats(), st.none()),
                max_size=3,
            ),
            "reset": st.one_of(st.sampled_from(["episode", "never", "50", "0"]), st.text(max_size=5)),
            "bptt_span": st.one_of(st.none(), NUMBERS),
            "device": st.one_of(st.sampled_from(["auto", "cpu", "cuda:-1"]), st.text(max_size=5)),
            "evaluation_splits": st.lists(st.sampled_from(["train", "test1", "x"]), max_size=3),
        },
    )
)
def test_any_settings_are_valid_or_a_user_error(changes: dict[str, object]) -> None:
    """Never another exception; what passes can be stored, and is what the parts accept on their own."""
    try:
        config = from_json(changes)
        config.check()
    except UserError:
        return
    assert from_json(to_json(config)) == config
    assert config.num_envs % len(config.games) == 0
    assert all(config.mode in GAMES[game].modes for game in config.games)
    assert config.steps_per_rollout >= config.num_envs


def test_agents_hear_the_number_of_environments() -> None:
    config = settings(num_envs=66, games=["easy6"], algorithm="ppo")
    assert any("minibatches" in problem for problem in config.problems())
    assert replace(config, agent=replace(config.agent, minibatches=6)).problems() == []  # type: ignore[call-arg]
