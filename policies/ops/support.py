"""What the versions of the operators share: checks of arguments, resets, and what Triton needs.

Importing this does not import Triton.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor

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
    """For each step, whether any environment is reset there, so that a loop can skip the others.

    Reading the mask is free on the CPU. Elsewhere it would wait for the device, so every step counts.
    """
    if reset.device.type == "cpu":
        return [bool(any_reset) for any_reset in reset.any(dim=1).tolist()]
    return [True] * reset.shape[0]


def rows_to_reset(reset: Tensor) -> list[Tensor]:
    """For each step, the indices of the environments that are reset there. Waits for the device once."""
    counts = reset.sum(dim=1).tolist()
    return list(reset.nonzero()[:, 1].split(counts))


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


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device; make it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
