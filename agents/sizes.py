"""How much memory training takes at least, known before anything is made."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn

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
        # The state that acts, and those at both ends of a rollout and where it is cut into unrolls.
        f"what it remembers of {num_envs:,} environments": network["memory"]
        * _FLOAT
        * (2 + agent.unrolls)
        * num_envs,
        f"rollouts of {agent.rollout_steps:,} steps": steps * math.prod(image_shape) * (1 + agent.lag),
        "learning from them": network["activations"]
        * (2 if policy.precision == "bfloat16" else _FLOAT)
        * agent.largest_batch(num_envs),
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
    """Elements of the weights, of what is remembered of one environment, and of what the encoder's convolutions make
    of one image, which a backward pass needs."""
    with torch.device("meta"):  # takes no memory
        # What is not computed has no precision either.
        made = Policy(replace(policy, precision="float32"), image_shape, num_actions)
        maps: list[Tensor] = []
        for layer in made.encoder.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(lambda layer, inputs, output: maps.append(output))
        made.encoder(torch.empty(1, *image_shape, dtype=torch.uint8))
        return {
            "weights": _elements(made.state_dict().values()),
            "memory": _elements(made.initial_state(1).values()),
            "activations": _elements(maps),
        }


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors)
