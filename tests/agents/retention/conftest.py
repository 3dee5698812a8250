"""Learners of small policies, in double precision where numbers are compared closely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from agents import ALGORITHMS
from agents.learner import Learner
from agents.retention import Retention, RetentionConfig, make_retention
from agents.rollout import Batch
from policies import Policy, PolicyConfig


@pytest.fixture
def learner(tiny: Callable[..., PolicyConfig]) -> Callable[..., Learner]:
    """`learner(names="none", core="srwm", algorithm="impala", double=False, agent={}, policy={}, **retain)`."""

    def make(
        names: str | Retention = "none",
        core: str = "srwm",
        algorithm: str = "impala",
        double: bool = False,
        agent: dict[str, Any] | None = None,
        policy: dict[str, Any] | None = None,
        **retain: Any,
    ) -> Learner:
        torch.manual_seed(0)
        network = Policy(tiny(core, **policy or {}), (8, 8, 3), 3)
        if double:
            network.double()
        kind = ALGORITHMS[algorithm]
        config = kind.config_class(**{"rollout_steps": 6, **(agent or {})})
        method = make_retention(names, RetentionConfig(**retain)) if isinstance(names, str) else names
        shuffling, replaying = (torch.Generator().manual_seed(seed) for seed in (1, 2))
        return kind.learner_class(network, config, shuffling, method, replaying=replaying)

    return make


@pytest.fixture
def double() -> Callable[[Batch], Batch]:
    """A batch with its single-precision numbers in double precision."""

    def widened(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.double() if tensor.dtype is torch.float32 else tensor

    def make(batch: Batch) -> Batch:
        values: dict[str, Any] = {}
        for item in fields(batch):
            value = getattr(batch, item.name)
            if isinstance(value, dict):
                values[item.name] = {name: widened(tensor) for name, tensor in value.items()}
            elif value is not None:
                values[item.name] = widened(value)
        return replace(batch, **values)

    return make
