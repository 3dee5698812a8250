"""The versions of a sequence operator, and which of them runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from common.errors import UserError, unknown_name
from policies.ops.support import interpreted, triton_problem

AUTO = "auto"
"""Stands for the fastest version that can run."""


@dataclass(frozen=True)
class Operator:
    """Several versions of one function over a sequence, all with the same arguments and the same result.

    Attributes:
        name: It goes by this name in what is printed and in `policies.ops.OPERATORS`.
        versions: The functions by name; "naive" is the reference.
        sequence: The fastest version for more than one step where Triton cannot run.
    """

    name: str
    versions: Mapping[str, Callable[..., Any]]
    sequence: str

    def choose(
        self, device: torch.device, steps: int, width: int = 1, output: int = 1, implementation: str = AUTO
    ) -> str:
        """The name of the version that runs.

        Args:
            device: Where the tensors are.
            steps: Length of the sequence.
            width, output: D and E of a head.
            implementation: A name in `versions`, or "auto".
        """
        if implementation != AUTO:
            return implementation
        if device.type == "cuda" and not interpreted() and triton_problem(device, width, output) is None:
            return "triton"
        if steps > 1:
            return self.sequence
        # Elsewhere than on the CPU the plain loop, which never waits for the device: a CUDA graph can hold it.
        return "step" if device.type == "cpu" else "naive"

    def version(
        self, device: torch.device, steps: int, width: int, output: int, implementation: str
    ) -> Callable[..., Any]:
        """The function that `choose` names.

        Raises:
            UserError: There is no such version, or it cannot run there.
        """
        name = self.choose(device, steps, width, output, implementation)
        if name not in self.versions:
            raise UserError(unknown_name(f"implementation of {self.name}", name, [AUTO, *self.versions]))
        problem = triton_problem(device, width, output) if name == "triton" else None
        if problem is not None:
            raise UserError(problem)
        return self.versions[name]
