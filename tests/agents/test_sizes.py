"""Memory is estimated before anything is made; what surely does not fit is refused with the numbers."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import pytest

from agents import IMPALA, ImpalaConfig, PPOConfig, sizes
from agents.sizes import _network, memory_problems
from common.errors import UserError
from common.machine import memory_bytes
from policies import ENCODERS, Policy, PolicyConfig, core_config, policy_config

SHAPE, ACTIONS = (64, 64, 3), 15
Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]


def problems(policy: PolicyConfig, num_envs: int = 64, **agent: Any) -> list[str]:
    return memory_problems(policy, ImpalaConfig(**agent), SHAPE, ACTIONS, num_envs)


def test_what_is_counted_is_what_is_made(core: str) -> None:
    config = policy_config(core)
    made, counted = Policy(config, SHAPE, ACTIONS), _network(config, SHAPE, ACTIONS)
    assert counted["weights"] == sum(tensor.numel() for tensor in made.state_dict().values())
    assert counted["memory"] == sum(tensor.numel() for tensor in made.initial_state(1).values())


@pytest.mark.parametrize(
    ("policy", "part"),
    [
        (PolicyConfig(core_config("srwm", width=65_536, heads=1)), "a network of"),
        (
            PolicyConfig(core_config("srwm", width=65_536, heads=65_536, feedforward=65_536)),
            "a network",
        ),
        (PolicyConfig(core_config("lstm", hidden=65_536)), "a network of"),
        (policy_config("srwm", encoder={"channels": [65_536, 65_536]}), "a network of"),
        (policy_config("srwm", encoder={"channels": [4096]}), "learning from them"),
    ],
)
def test_sizes_at_the_end_of_their_ranges_are_refused_in_no_time(policy: PolicyConfig, part: str) -> None:
    (line,) = problems(policy)
    assert part in line
    assert "use fewer environments, shorter rollouts or a smaller network" in line


def test_rollouts_and_environments_count() -> None:
    small = policy_config("feedforward")
    assert problems(small) == []
    assert "rollouts of 1,000,000 steps" in problems(small, rollout_steps=1_000_000)[0]
    assert problems(small, num_envs=16_384, rollout_steps=100_000)


def test_the_largest_batch_is_that_of_the_algorithm() -> None:
    assert ImpalaConfig(rollout_steps=50, batch_unrolls=32).largest_batch(64) == 50 * 32
    assert ImpalaConfig(rollout_steps=50).largest_batch(66) == 50 * 22
    assert PPOConfig(rollout_steps=256, minibatches=8).largest_batch(64) == 256 * 8


def test_an_agent_refuses_before_it_allocates(toy: MakeEnv, tiny: Tiny) -> None:
    with pytest.raises(UserError, match="rollouts of 1,000,000,000 steps"):
        IMPALA(tiny(), toy(4), rollout_steps=10**9)


def test_the_limit_of_a_process_counts() -> None:
    whole = memory_bytes()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (whole // 2, before[1]))
        assert memory_bytes() == whole // 2
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_is_estimated_in_every_precision(encoder: str, precision: str) -> None:
    policy = policy_config("srwm", encoder=encoder, precision=precision)
    assert memory_problems(policy, ImpalaConfig(), (64, 64, 3), 15, 64) == []
    (problem,) = memory_problems(policy, ImpalaConfig(), (64, 64, 3), 15, 10**7)
    assert "use fewer environments" in problem


def test_light_encoders_need_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that the published encoder's feature maps make too large is none for a light one."""
    monkeypatch.setattr(sizes, "device_memory", lambda device: 8 * 2**30)
    agent = ImpalaConfig(rollout_steps=10_000, batch_unrolls=2)
    heavy, light = (policy_config("feedforward", encoder=name) for name in ("impala", "space_to_depth"))
    assert memory_problems(heavy, agent, (64, 64, 3), 15, 2) != []
    assert memory_problems(light, agent, (64, 64, 3), 15, 2) == []
