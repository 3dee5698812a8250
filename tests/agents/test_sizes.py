"""What training needs of memory, before anything is made."""

from __future__ import annotations

import pytest

from agents import ImpalaConfig, sizes
from agents.sizes import memory_problems
from policies import ENCODERS, policy_config


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
