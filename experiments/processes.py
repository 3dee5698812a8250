"""What a run asks of the processes that share it, before anything is made."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agents.exchange import Exchange
from agents.retention import make_retention
from common.errors import UserError, raise_problems
from records.config import TrainConfig
from records.directory import DISTRIBUTIONS

PACKAGES = ("common", "envs", "policies", "agents", "records", "evaluation", "experiments")


def share_problems(config: TrainConfig, processes: int) -> list[str]:
    """Why so many processes cannot share a run, a line each; one process has nobody to share with."""
    if processes == 1:
        return []
    if config.num_envs % processes:
        step = math.lcm(processes, len(config.games))
        below = config.num_envs // step * step
        near = f"{below} or {below + step}" if below else str(step)
        return [
            f"{config.num_envs} environments cannot be shared equally by {processes} processes: use {near}"
        ]
    sequence = ["sequences of tasks are not for several processes: use one"] if config.sequence.active else []
    return [
        *sequence,
        *config.agent.problems(config.num_envs, processes),
        *make_retention(config.retention, config.retain).process_problems(processes),
    ]


def check_processes(config: TrainConfig, exchange: Exchange) -> None:
    """Raise one `UserError` unless the processes of `exchange` can share the run and are of the same mind about it."""
    if exchange.size == 1:
        return
    raise_problems(share_problems(config, exchange.size))
    first, *others = exchange.gather(
        {"settings": repr(config), "source code": source_digest(), "versions": repr(_versions())}
    )
    for rank, other in enumerate(others, 1):
        if different := differing(first, other):
            raise UserError(
                f"process {rank} has other {' and other '.join(different)} than process 0: "
                "start all of them with the same command and the same installation"
            )


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names under which two dictionaries hold different values."""
    return [name for name in one if one[name] != other.get(name)]


def source_digest() -> str:
    """A hash of the program: of all modules of its packages."""
    digest = hashlib.sha256()
    for name in PACKAGES:
        folder = Path(str(import_module(name).__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in DISTRIBUTIONS}}
