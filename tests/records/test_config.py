from __future__ import annotations

import json
from dataclasses import replace

import pytest

from agents import ALGORITHMS, PPOConfig
from common.errors import UserError
from experiments.presets import PRESETS
from policies import CORES, ImpalaEncoderConfig, PolicyConfig, core_config
from policies.cores.lstm import LstmConfig
from records.config import TrainConfig, configure, from_json, learned_settings, to_json


def with_settings(data: object, start: TrainConfig | None = None) -> TrainConfig:
    problems: list[str] = []
    config = configure(data, start or TrainConfig(), problems)
    assert problems == []
    return config


@pytest.mark.parametrize("policy", CORES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_json_round_trip(policy: str, algorithm: str) -> None:
    config = with_settings({"policy": policy, "algorithm": algorithm})
    assert (config.policy_name, config.algorithm_name) == (policy, algorithm)
    config = replace(
        config,
        games=("maze", "heist"),
        policy=replace(config.policy, bptt_span=7, encoder=ImpalaEncoderConfig(hidden=8, channels=(3, 5))),
        checkpoint_every_steps=None,
        agent=replace(config.agent, learning_rate=0.25, reward_transform="none"),
    )
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip_of_presets(name: str) -> None:
    config = PRESETS[name].config
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_another_policy_or_algorithm_starts_from_its_own_defaults() -> None:
    start = TrainConfig(policy=PolicyConfig(core_config("srwm", heads=2)))
    config = with_settings({"policy": "lstm", "algorithm": "ppo"}, start)
    assert (config.policy.core, config.agent) == (LstmConfig(), PPOConfig())


def test_the_same_policy_and_algorithm_keep_their_settings() -> None:
    start = TrainConfig(policy=PolicyConfig(core_config("srwm", heads=2)))
    assert with_settings({"policy": "srwm", "algorithm": "impala"}, start) == start


def test_task_sets_are_resolved() -> None:
    assert from_json({"games": ["memory4"]}).games == ("dodgeball", "heist", "maze", "miner")


def test_settings_may_be_named_as_options_or_nested_as_they_are_stored() -> None:
    network = PolicyConfig(core_config("srwm", heads=4), reset="50", bptt_span=1, precision="bfloat16")
    by_name = {"reset": 50, "bptt_span": 1, "precision": "bfloat16", "core": {"heads": 4}}
    for data in (by_name, {"policy": by_name}, {"policy": {**by_name, "core": {"name": "srwm", "heads": 4}}}):
        assert from_json(data).policy == network


def test_settings_that_do_not_decide_what_is_learned() -> None:
    config = TrainConfig()
    assert set(to_json(config)) - {name.partition(".")[0] for name in learned_settings(config)} == {
        *("checkpoint_every_steps", "checkpoint_every_minutes", "keep_checkpoints", "log_every_steps"),
        *("watchdog_minutes", "env_threads", "torch_threads"),
        *("evaluation_episodes", "evaluation_splits", "evaluation_greedy", "videos", "video_every"),
    }
    assert learned_settings(config) == learned_settings(replace(config, env_threads=0, videos=False))


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cuda"},  # rounds otherwise
        {"env_groups": 2},  # each group draws its own levels
        {"seed": 3},
        {"reset": "50"},
        {"twist": "blank 2 of 4"},
        {"core.heads": 4},
        {"policy": "lstm"},
        {"agent.on_nan": "skip"},
    ],
)
def test_settings_that_decide_what_is_learned(changes: dict[str, object]) -> None:
    before, after = learned_settings(TrainConfig()), learned_settings(with_settings(changes))
    assert next(iter(changes)) in {name for name in after if before.get(name) != after[name]}


def test_which_gpu_it_is_does_not_decide_what_is_learned() -> None:
    first, second = (learned_settings(TrainConfig(device=f"cuda:{n}")) for n in (0, 1))
    assert first == second


def test_everything_wrong_in_a_file_is_named() -> None:
    data = {
        "num_envs": "many",
        "widht": 1,
        "core": {"heads": "x"},
        "agent": {"learnin_rate": 1.0},
        "encoder": 3,
    }
    with pytest.raises(UserError) as raised:
        from_json(data)
    message = str(raised.value)
    assert message.startswith("5 problems: ")
    for part in (
        "num_envs is 'many': give a whole number",
        "unknown setting 'widht'",
        "core.heads is 'x': give a whole number",
        "unknown setting 'agent.learnin_rate': did you mean agent.learning_rate",
        "unknown encoder '3'",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("data", [[], "x", None, 3])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(UserError, match="give an object"):
        from_json(data)


def test_unknown_policy_and_algorithm_in_a_file() -> None:
    with pytest.raises(
        UserError, match=r"2 problems: unknown policy 'lstn': did you mean lstm\?.*unknown algorithm"
    ):
        from_json({"policy": "lstn", "algorithm": 3, "core": {"hidden": 1}})


@pytest.mark.parametrize(("blank", "twist"), [(None, None), ("4 of 8", "blank 4 of 8")])
def test_runs_of_before_say_blank(blank: str | None, twist: str | None) -> None:
    assert from_json({"blank": blank}) == TrainConfig(twist=twist)


def test_sequences_of_before_have_a_start_of_their_own() -> None:
    now = from_json({"start": "runs/x@stage1", "sequence": {"steps_per_task": 40_000}})
    assert now.start == "runs/x@stage1"
    assert from_json({"sequence": {"steps_per_task": 40_000, "start": "runs/x@stage1"}}) == now
    assert from_json({"sequence": {"start": None}}) == TrainConfig()
