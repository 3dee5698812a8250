"""How much memory training takes at least, known before anything is made."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from agents.config import AgentConfig
from common.config import plain
from common.machine import memory_bytes
from policies import Policy, PolicyConfig, from_json

_FLOAT = 4
_COPIES = 4
"""Of the weights: themselves, gradients, at least one mean of the optimizer, and what an update is undone with."""
_ENVIRONMENT = 100_000
"""Bytes of one environment in the native library, measured."""


def memory_problems(
    policy: PolicyConfig,
    agent: AgentConfig,
    image_shape: tuple[int, int, int],
    num_actions: int,
    num_envs: int,
    device: str = "cpu",
) -> list[str]:
    """One line if this surely does not fit into the memory of `device`. `policy` and `agent` are right."""
    # Read again, since lists instead of tuples are welcome and cannot be looked up.
    network = _network(from_json(plain(policy)), image_shape, num_actions)
    steps = num_envs * agent.rollout_steps
    needs = {
        f"a network of {network['weights']:,} weights": network["weights"] * _FLOAT * _COPIES,
        # The state that acts, and those at both ends of a rollout.
        f"what it remembers of {num_envs:,} environments": network["memory"] * _FLOAT * 3 * num_envs,
        f"rollouts of {agent.rollout_steps:,} steps": steps * math.prod(image_shape) * (1 + agent.lag),
        "learning from them": _activations(policy, image_shape) * agent.largest_batch(num_envs),
        "the environments": num_envs * _ENVIRONMENT,
    }
    available = device_memory(device)
    if sum(needs.values()) <= available:
        return []
    parts = ", ".join(f"{name} {size / 2**30:,.1f} GiB" for name, size in needs.items())
    return [
        f"this needs at least {sum(needs.values()) / 2**30:,.1f} GiB of memory, there are {available / 2**30:,.1f} GiB "
        f"({parts}): use fewer environments, shorter rollouts or a smaller network"
    ]


def device_memory(device: str) -> int:
    """Bytes of memory where tensors lie on `device`, which may be "auto"."""
    if device != "cpu" and torch.cuda.is_available():
        with contextlib.suppress(RuntimeError, AssertionError):  # the driver does not answer
            return int(torch.cuda.get_device_properties(0 if device == "auto" else device).total_memory)
    return memory_bytes()


@lru_cache(maxsize=64)
def _network(policy: PolicyConfig, image_shape: tuple[int, int, int], num_actions: int) -> Mapping[str, int]:
    """Elements of the weights, and of what is remembered of one environment."""
    with torch.device("meta"):  # takes no memory
        made = Policy(policy, image_shape, num_actions)
        return {"weights": _elements(made.state_dict()), "memory": _elements(made.initial_state(1))}


def _elements(tensors: Mapping[str, Tensor]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors.values())


def _activations(policy: PolicyConfig, image_shape: tuple[int, int, int]) -> int:
    """Bytes of one step that a backward pass needs at least: what the encoder's first convolution makes."""
    height, width, _ = image_shape
    channels = getattr(policy.encoder, "channels", (0,))[0]
    return height * width * channels * (2 if policy.precision == "bfloat16" else _FLOAT)
