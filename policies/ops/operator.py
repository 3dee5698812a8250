"""What the sequence operators share: which version of an operator runs, checks of arguments, resets, and what Triton
needs. Importing this does not import Triton."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError, unknown_name

AUTO = "auto"
"""Stands for the fastest version that can run."""

Version = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Operator:
    """Several versions of one function over a sequence, all with the same arguments and the same result.

    Attributes:
        name: It goes by this name in what is printed and in `policies.ops.OPERATORS`.
        versions: The functions by name; "naive" is the reference.
        sequence: The fastest version for more than one step where Triton cannot run.
    """

    name: str
    versions: Mapping[str, Version]
    sequence: str

    def choose(
        self, device: torch.device, steps: int, width: int = 1, output: int = 1, implementation: str = AUTO
    ) -> str:
        """The name of the version that runs for so many steps of heads with D = `width` and E = `output`."""
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
    ) -> Version:
        """The function that `choose` names. Raises UserError if there is no such version, or it cannot run there."""
        name = self.choose(device, steps, width, output, implementation)
        if name not in self.versions:
            raise UserError(unknown_name(f"implementation of {self.name}", name, [AUTO, *self.versions]))
        if name == "triton" and (problem := triton_problem(device, width, output)) is not None:
            raise UserError(problem)
        return self.versions[name]


# Arguments


def check_reset(reset: Tensor, steps: int, batch: int) -> None:
    """`reset` must be bool (T, B): a negated integer mask would silently hold 254 and 255.

    Raises:
        TypeError: it is not bool.
        ValueError: it has another shape.
    """
    if reset.dtype is not torch.bool:
        raise TypeError(f"reset must be bool, got {reset.dtype}")
    if reset.shape != (steps, batch):
        raise ValueError(f"reset must be (T, B) = ({steps}, {batch}), got {tuple(reset.shape)}")


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless `tensor` has exactly this shape."""
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")


# Resets


def steps_with_resets(reset: Tensor) -> list[bool]:
    """For each step, whether any environment is reset there, so that a loop can skip the others. Reading the mask is
    free on the CPU; elsewhere it would wait for the device, so every step counts."""
    if reset.device.type == "cpu":
        return [bool(any_reset) for any_reset in reset.any(dim=1).tolist()]
    return [True] * reset.shape[0]


def cleared(memory: Tensor, reset: Tensor) -> Tensor:
    """Memory (B, ...) with zeros for the environments that are reset (B,); `memory` itself where there are none.

    On the CPU the mask is read, and rows are written; elsewhere reading would wait for the device.
    """
    if reset.device.type == "cpu":
        rows = reset.nonzero()[:, 0]
        return memory.index_fill(0, rows, 0.0) if len(rows) else memory
    return torch.where(reset.view(-1, *[1] * (memory.dim() - 1)), 0.0, memory)


# Triton

MAX_WIDTH = 64
"""Widest key (rows of the matrix) that the kernels take: the matrix and its gradient must fit into registers."""

MAX_OUTPUT = 256
"""Widest value (columns of the matrix, or of its first block) that the kernels take."""

UNSPECIALIZED = ("steps", "heads", "programs", "reset_t", "reset_b")
"""Arguments of kernels for whose values, such as a batch of 16 or a single step, no version of its own is compiled."""


@cache
def triton_available() -> bool:
    """Whether Triton is installed, so that its kernels can be imported; torch brings it along with CUDA on Linux."""
    return importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton was told to run kernels on the CPU, one operation after the other (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "y", "yes", "on", "true")


def triton_problem(device: torch.device, width: int, output: int) -> str | None:
    """Why the kernels cannot run on this device for heads of this width and output; None if they can."""
    if not triton_available():
        return "triton is not installed (it comes with torch's CUDA builds for Linux): use another implementation"
    if device.type != "cuda" and not interpreted():
        return f"triton needs a CUDA device (or TRITON_INTERPRET=1), but the tensors are on the device {device.type!r}"
    if width > MAX_WIDTH or output > MAX_OUTPUT:
        return (
            f"the triton version takes heads up to {MAX_WIDTH} wide with up to {MAX_OUTPUT} outputs, "
            f"not {width} with {output}: use another implementation"
        )
    return None


def padded(width: int) -> int:
    """The power of two that a dimension is padded to."""
    return max(4, 1 << (width - 1).bit_length())


def state_dtype(*tensors: Tensor) -> torch.dtype:
    """What the kernels compute in: float64 if any input is, or else float32."""
    return torch.float64 if any(tensor.dtype is torch.float64 for tensor in tensors) else torch.float32


def wants_gradient(*tensors: Tensor) -> bool:
    """Whether autograd must hear of this call."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def launch(
    kernel: Any,
    sizes: tuple[int, int, int, int, int],
    tensors: Sequence[Tensor],
    strided: Sequence[Tensor],
    matrix: int,
    **constants: object,
) -> None:
    """Run a Triton kernel with one program for each head of each environment.

    Args:
        kernel: Takes `tensors`; steps, heads and number of programs; all strides of those that are `strided`; and as
            constants D, E, what they are padded to (DP, EP), and `constants`.
        sizes: T, B, H, D, E.
        matrix: Numbers of the padded matrix that a program keeps in registers: as few warps as hold it.
    """
    steps, batch, heads, width, output = sizes
    programs = batch * heads
    if not programs:
        return
    # Triton launches on the current device; make it the tensors'.
    with torch.cuda.device(tensors[0].device) if tensors[0].is_cuda else nullcontext():
        kernel[(programs,)](
            *tensors,
            *(steps, heads, programs),
            *(stride for tensor in strided for stride in tensor.stride()),
            D=width,
            E=output,
            DP=padded(width),
            EP=padded(output),
            num_warps=1 if matrix <= 1024 else 4 if matrix <= 4096 else 8,
            **constants,
        )
