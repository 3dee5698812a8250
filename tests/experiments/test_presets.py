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
    single = {"quick", "learn", "paper-easy6", "paper-memory4", "expert", "openai-ppo-easy"}
    sequences = {"cora-procgen", "cora-climber-levels", "cora-fruitbot-levels", "cora-miner-levels"}
    assert set(PRESETS) == {*single, "continual-quick", *sequences}


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


def test_coras_sequences() -> None:
    """Powers et al., arXiv 2110.10067, and its configuration files."""
    six = PRESETS["cora-procgen"].config
    assert [str(task) for task in six.tasks] == "climber dodgeball ninja starpilot bigfish fruitbot".split()
    assert [stage.end for stage in six.plan.stages] == [5_000_000 * number for number in range(1, 7)]
    assert (six.num_envs, six.agent.rollout_steps, six.agent.learning_rate) == (64, 20, 4e-4)
    assert six.agent.learning_rate_decay
    assert six.sequence.restart_learning_rate
    totals = {"climber": 36_000_000, "fruitbot": 45_000_000, "miner": 36_000_000}
    for game, total in totals.items():
        config = PRESETS[f"cora-{game}-levels"].config
        assert config.total_steps == total
        assert config.problems() == []
        assert all(task.level_range.count == 1 for task in config.tasks)


def test_more_cycles_make_a_longer_run() -> None:
    found: list[str] = []
    preset = PRESETS["cora-procgen"]
    config = preset.configure({"sequence.cycles": 5, "policy": "srwm"}, preset.config, found)
    assert (config.total_steps, found, config.problems()) == (150_000_000, [], [])


def test_the_expert_plays_any_game() -> None:
    assert replace(PRESETS["expert"].config, games=("bigfish",)).problems() == []
