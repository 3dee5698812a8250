"""A small agent for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from agents import IMPALA
from envs import ProcgenVecEnv
from policies import ImpalaEncoderConfig, PolicyConfig, core_config

SMALL = {"width": 8, "heads": 2, "feedforward": 8, "layers": 1}


@pytest.fixture(scope="session")
def make_agent() -> Callable[..., IMPALA]:
    """Builds an untrained SRWM agent whose actions depend on what it sees and remembers.

    With the weights of this seed most episodes of chaser, leaper and fruitbot end within a hundred steps.
    """

    def make(reset: str = "episode") -> IMPALA:
        env = ProcgenVecEnv(["chaser", "leaper"], 2, num_threads=0)
        config = PolicyConfig(
            core_config("srwm", **SMALL), ImpalaEncoderConfig(hidden=8, channels=(4,)), reset=reset
        )
        agent = IMPALA(config, env, seed=1, device="cpu")
        env.close()
        with torch.no_grad():  # far from a tie between actions, so that rounding cannot decide
            agent.policy.actor.weight.mul_(20)
            agent.policy.actor.bias.zero_()
        agent.experiment = {"games": ["chaser", "leaper"], "mode": "easy", "levels": "0:12"}
        return agent

    return make


@pytest.fixture(scope="session")
def agent(make_agent: Callable[..., IMPALA]) -> IMPALA:
    """One such agent, for tests that leave it as it is."""
    return make_agent()
