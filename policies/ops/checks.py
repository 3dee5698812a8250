"""Argument checks and small helpers that the operators share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor

from common.errors import UserError, unknown_name


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


def check_implementation(operator: str, name: str, known: Iterable[str]) -> None:
    """Raise `UserError` unless `name` is "auto" or one of `known`."""
    names = ["auto", *known]
    if name not in names:
        raise UserError(unknown_name(f"implementation of {operator}", name, names))


@cache
def triton_available() -> bool:
    """Whether Triton is installed, so that its kernels can be imported; torch brings it along with CUDA on Linux."""
    return importlib.util.find_spec("triton") is not None


def steps_with_resets(reset: Tensor) -> list[bool]:
    """For each step, whether any stream is reset there, so that a loop can skip the others.

    Reading the mask is free on the CPU. Elsewhere it would wait for the device, so every step counts.
    """
    if reset.device.type == "cpu":
        return [bool(any_reset) for any_reset in reset.any(dim=1).tolist()]
    return [True] * reset.shape[0]


def rows_to_reset(reset: Tensor) -> list[Tensor]:
    """For each step, the indices of the streams that are reset there. Waits for the device once."""
    counts = reset.sum(dim=1).tolist()
    return list(reset.nonzero()[:, 1].split(counts))


def cleared(memory: Tensor, reset: Tensor) -> Tensor:
    """Memory (B, ...) with zeros for the streams that are reset (B,); `memory` itself where there are none.

    On the CPU the mask is read, and rows are written; elsewhere reading would wait for the device.
    """
    if reset.device.type == "cpu":
        rows = reset.nonzero()[:, 0]
        return memory.index_fill(0, rows, 0.0) if len(rows) else memory
    return torch.where(reset.view(-1, *[1] * (memory.dim() - 1)), 0.0, memory)
