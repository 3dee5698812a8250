"""Everything that can be wrong with a configuration, found before any environment or network is created."""

from __future__ import annotations

import math
import os

import torch

from common.config import problems as config_problems
from common.errors import UserError, raise_problems
from envs import environment_problems, parse_levels
from envs.native import IMAGE_SHAPE
from records.config import TrainConfig


def check(config: TrainConfig) -> None:
    """Raise one `UserError` that lists everything wrong with `config`, if anything is."""
    raise_problems(problems(config))


def problems(config: TrainConfig) -> list[str]:
    """Everything that is wrong with `config`, a line each, with names, values and what to do."""
    agent = config_problems(config.agent, "agent.")
    return [
        *config_problems(config),
        *environment_problems(config.games, config.num_envs, config.mode, config.levels, config.seed),
        # An impossible number of environments is reported once, and wrong hyperparameters by themselves.
        *(config.agent.problems(config.num_envs) if config.num_envs >= 1 and not agent else []),
        *_memory_problems(config),
        *device_problems(config.device),
        *_evaluation_problems(config),
    ]


def _memory_problems(config: TrainConfig) -> list[str]:
    """A typing error in a size, caught before the machine runs out of memory."""
    needed = config.steps_per_rollout * math.prod(IMAGE_SHAPE) * (1 + config.agent.lag)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed <= available:
        return []
    return [
        f"{config.num_envs} environments with rollouts of {config.agent.rollout_steps} steps need "
        f"{needed / 2**30:.0f} GiB, this machine has {available / 2**30:.0f} GiB: "
        "use fewer environments or shorter rollouts"
    ]


def device_problems(name: str) -> list[str]:
    """One line if torch has no device called `name`, or it is of a kind that is not supported."""
    if name == "auto":
        return []
    try:
        device = torch.device(name)
    except RuntimeError:
        return [f"unknown device {name!r}: use auto, cpu or cuda"]
    if device.type == "cpu":
        return []
    if device.type != "cuda":
        return [f"device {name!r} is not supported: use auto, cpu or cuda"]
    if not torch.cuda.is_available():
        return [f"device {name!r} is not available, torch finds no GPU: use auto or cpu"]
    if (device.index or 0) >= torch.cuda.device_count():
        return [f"device {name!r} does not exist: the last one is cuda:{torch.cuda.device_count() - 1}"]
    return []


def _evaluation_problems(config: TrainConfig) -> list[str]:
    found = []
    if config.evaluation_episodes is not None and not config.evaluation_splits:
        found.append(
            "no evaluation_splits: name at least one (train, test1, ...), or evaluation_episodes none"
        )
    for split in dict.fromkeys(config.evaluation_splits):
        try:
            parse_levels(split, config.mode)
        except UserError as error:
            found.append(f"evaluation_splits: {error}")
        if config.evaluation_splits.count(split) > 1:
            found.append(f"evaluation_splits lists {split} more than once: list it once")
    return found
