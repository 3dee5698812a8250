from __future__ import annotations

import json
from dataclasses import replace

import pytest

from agents import ALGORITHMS, PPOConfig
from common.errors import UserError
from experiments.presets import PRESETS
from policies import CORES, EncoderConfig, core_config
from policies.cores.lstm import LstmConfig
from records.config import TrainConfig, from_json, setting_names, to_json, with_algorithm, with_policy


@pytest.mark.parametrize("policy", CORES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_json_round_trip(policy: str, algorithm: str) -> None:
    config = with_algorithm(with_policy(TrainConfig(), policy), algorithm)
    config = replace(
        config,
        games=("maze", "heist"),
        bptt_span=7,
        checkpoint_every_steps=None,
        encoder=EncoderConfig(channels=(3, 5), hidden=8),
        agent=replace(config.agent, learning_rate=0.25, reward_transform="none"),
    )
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip_of_presets(name: str) -> None:
    config = PRESETS[name].config
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_another_policy_or_algorithm_starts_from_its_own_defaults() -> None:
    config = with_policy(replace(TrainConfig(), core=core_config("srwm", heads=2)), "lstm")
    assert config.core == LstmConfig()
    assert with_algorithm(config, "ppo").agent == PPOConfig()


def test_the_same_policy_and_algorithm_keep_their_settings() -> None:
    config = replace(TrainConfig(), core=core_config("srwm", heads=2))
    assert with_policy(config, "srwm") is config
    assert with_algorithm(config, "impala") is config


def test_task_sets_are_resolved() -> None:
    assert from_json({"games": ["memory4"]}).games == ("dodgeball", "heist", "maze", "miner")


def test_the_network_is_described_whole() -> None:
    config = replace(
        TrainConfig(), reset="50", bptt_span=1, precision="bfloat16", core=core_config("srwm", heads=4)
    )
    network = config.policy_config
    assert (network.reset, network.bptt_span, network.precision) == ("50", 1, "bfloat16")
    assert network.core == core_config("srwm", heads=4)
    assert network.encoder == config.encoder


def test_everything_wrong_in_a_file_is_named() -> None:
    data = {
        "slots": "many",
        "widht": 1,
        "core": {"heads": 0},
        "agent": {"learnin_rate": 1.0},
        "encoder": 3,
    }
    with pytest.raises(UserError) as raised:
        from_json(data)
    message = str(raised.value)
    assert message.startswith("5 problems: ")
    for part in (
        "slots is 'many': give a whole number",
        "unknown setting 'widht'",
        "core.heads is 0",
        "unknown agent setting 'learnin_rate': did you mean learning_rate",
        "encoder is 3",
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


def test_setting_names_have_the_parts_of_the_chosen_classes() -> None:
    names = setting_names(with_policy(TrainConfig(), "lstm"))
    assert {"slots", "core.hidden", "encoder.channels", "agent.rollout_steps"} <= set(names)
    assert "core.heads" not in names
    assert "core" not in names
