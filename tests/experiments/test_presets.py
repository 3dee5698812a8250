from __future__ import annotations

from dataclasses import replace

import pytest

from agents import ALGORITHMS, ImpalaConfig, PPOConfig
from envs import TASK_SETS
from experiments.presets import PRESETS
from policies import CORES
from records.config import TrainConfig


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_with_every_algorithm_and_policy(name: str, algorithm: str) -> None:
    for policy in CORES:
        config = configured(name, {"algorithm": algorithm, "policy": policy})
        assert (config.algorithm_name, config.policy_name) == (algorithm, policy)
        assert config.problems() == []


def configured(name: str, data: dict[str, str]) -> TrainConfig:
    found: list[str] = []
    config = PRESETS[name].configure(data, PRESETS[name].config, found)
    assert found == []
    return config


def test_a_preset_keeps_its_own_algorithm() -> None:
    assert configured("openai-ppo-easy", {"algorithm": "ppo"}) == PRESETS["openai-ppo-easy"].config


def test_another_algorithm_starts_from_what_the_preset_says_of_it() -> None:
    assert configured("quick", {"algorithm": "ppo"}).agent == PRESETS["quick"].agents["ppo"]
    assert configured("expert", {"algorithm": "ppo"}).agent == PPOConfig()


@pytest.mark.parametrize("name", PRESETS)
def test_a_short_run_is_shown_often_enough(name: str) -> None:
    config = PRESETS[name].config
    assert config.steps_per_rollout <= config.log_every_steps <= config.total_steps / 20


def test_the_names_that_users_were_promised() -> None:
    assert set(PRESETS) == {"quick", "learn", "paper-easy6", "paper-memory4", "expert", "openai-ppo-easy"}


def test_published_settings() -> None:
    """Irie et al., arXiv 2202.05780: IMPALA, batches of 32 unrolls of 50 steps, RMSProp 6e-4, 300 M steps."""
    easy, memory, expert = (PRESETS[name].config for name in ("paper-easy6", "paper-memory4", "expert"))
    assert easy.games == TASK_SETS["easy6"]
    assert memory.games == TASK_SETS["memory4"]
    assert memory.mode == "memory"
    assert easy.total_steps == memory.total_steps == 300_000_000
    assert expert.total_steps == 50_000_000
    assert len(expert.games) == 1
    for config in (easy, memory, expert):
        agent = config.agent
        assert isinstance(agent, ImpalaConfig)
        assert agent == ImpalaConfig(batch_unrolls=32)
        assert agent.batches_per_pass(config.num_envs) == config.num_envs // 32
        assert (agent.learning_rate, agent.rollout_steps, agent.discount) == (6e-4, 50, 0.99)
        assert config.policy_name == "srwm"


def test_the_expert_plays_any_game() -> None:
    assert replace(PRESETS["expert"].config, games=("bigfish",)).problems() == []
