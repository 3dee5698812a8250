"""Which of several processes this is, and what of the machine is its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from common.errors import UserError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Place:
    """Which of the processes this is.

    Attributes:
        rank: its number.
        size: how many there are.
        local_rank: its number on this machine.
        local_size: how many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Place:
        """The place that torchrun, or another launcher, has put into the environment; alone without one.

        Raises:
            UserError: the variables contradict one another.
        """
        if environment.get("WORLD_SIZE", "1") == "1":
            return cls()
        found = {name: environment.get(name, "") for name in _VARIABLES}
        numbers = [int(text) if text.isdecimal() else -1 for text in found.values()]
        rank, size, local_rank, local_size = numbers
        if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
            said = ", ".join(f"{name}={text or 'nothing'}" for name, text in found.items())
            raise UserError(f"the environment says {said}: start the processes with torchrun")
        return cls(rank, size, local_rank, local_size)

    @property
    def cores(self) -> int:
        """Processor cores for this process: those that it may use, divided among the processes of the machine."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, usable // self.local_size)

    def device(self, name: str) -> str:
        """The device of this process, where the run's is called `name`: one GPU each.

        Raises:
            UserError: there are fewer GPUs than processes on this machine, or `name` is a single one.
        """
        if self.size == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return name
        if name not in ("auto", "cuda"):
            raise UserError(f"{self.size} processes cannot share {name}: leave --device to auto, or give cpu")
        count = torch.cuda.device_count()
        if self.local_size > count:
            raise UserError(
                f"{self.local_size} processes on a machine with {count} GPU{'s' * (count != 1)}: "
                f"start {count} (--nproc-per-node {count}), or give --device cpu"
            )
        return f"cuda:{self.local_rank}"


ALONE = Place()
"""The place of a process that shares its run with no other."""
