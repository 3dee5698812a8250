"""What the Triton versions of the operators share. Importing this does not import Triton."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from common.errors import UserError
from policies.ops.checks import triton_available

MAX_WIDTH = 64
"""Widest key (rows of the matrix) that the kernels take: the matrix and its gradient must fit into registers."""

MAX_OUTPUT = 256
"""Widest value (columns of the matrix, or of its first block) that the kernels take."""


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


def prefers_triton(device: torch.device, width: int, output: int) -> bool:
    """Whether "auto" stands for the Triton version: on a GPU, for compiled kernels, where they can run."""
    return device.type == "cuda" and not interpreted() and triton_problem(device, width, output) is None


def require_triton(device: torch.device, width: int, output: int) -> None:
    """Raise `UserError` if the kernels cannot run; see `triton_problem`."""
    problem = triton_problem(device, width, output)
    if problem is not None:
        raise UserError(problem)


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
