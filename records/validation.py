"""Contradictions in a configuration, found before any environment or network is created."""

from __future__ import annotations

import math
import os

import torch

from common.config import problems as setting_problems
from common.errors import UserError, raise_problems
from envs import environment_problems, parse_levels
from envs.native import IMAGE_SHAPE
from records.config import TrainConfig

# Beyond these a number is a typing error.
MAX_STEPS = 10**13
MAX_THREADS = 1024
MAX_MINUTES = 1_000_000
MAX_GROUPS = 16


def check(config: TrainConfig) -> None:
    """Raise one `UserError` that lists everything wrong with `config`, if anything is."""
    raise_problems(problems(config))


def problems(config: TrainConfig) -> list[str]:
    """Everything that is wrong with `config`, a line each, with names, values and what to do."""
    return [
        *environment_problems(
            config.games,
            config.slots,
            config.mode,
            config.levels,
            config.seed,
        ),
        *_agent_problems(config),
        *_policy_problems(config),
        *_number_problems(config),
        *_minute_problems(config),
        *_memory_problems(config),
        *device_problems(config.device),
        *_evaluation_problems(config),
    ]


def _agent_problems(config: TrainConfig) -> list[str]:
    # An impossible number of slots is reported once, by the environment.
    return config.agent.problems(config.slots) if config.slots >= 1 else []


def _policy_problems(config: TrainConfig) -> list[str]:
    return setting_problems(config.policy_config)


def _number_problems(config: TrainConfig) -> list[str]:
    limits = {
        "total_steps": (1, MAX_STEPS),
        "checkpoint_every_steps": (1, MAX_STEPS),
        "keep_checkpoints": (1, MAX_STEPS),
        "log_every_steps": (1, MAX_STEPS),
        "video_every": (1, MAX_STEPS),
        "evaluation_episodes": (1, MAX_STEPS),
        "torch_threads": (1, MAX_THREADS),
        "env_threads": (0, MAX_THREADS),
        "env_groups": (1, MAX_GROUPS),
    }
    found = []
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            found.append(f"{name} is {value}: give {f'{low} or more' if value < low else f'at most {high}'}")
    return found


def _minute_problems(config: TrainConfig) -> list[str]:
    found = []
    for name in ("checkpoint_every_minutes", "watchdog_minutes"):
        value = getattr(config, name)
        if value is not None and not 0 < value <= MAX_MINUTES:
            found.append(f"{name} is {value}: give more than 0 and at most {MAX_MINUTES:,}, or none")
    return found


def _memory_problems(config: TrainConfig) -> list[str]:
    """A typing error in a size, caught before the machine runs out of memory."""
    needed = config.rollout_steps * math.prod(IMAGE_SHAPE) * (1 + config.agent.lag)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed <= available:
        return []
    return [
        f"{config.slots} slots with rollouts of {config.agent.rollout_steps} steps need "
        f"{needed / 2**30:.0f} GiB, this machine has {available / 2**30:.0f} GiB: "
        "use fewer slots or shorter rollouts"
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
