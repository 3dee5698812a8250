"""Where two nested values differ, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Names of the places at which two values differ; none if they are the same bit for bit.

    Args:
        one: Dictionaries (whose keys have an order), lists, tuples, tensors, arrays and plain values, nested.
        other: What it is compared with. A NaN is the same as another NaN, and 0.0 is not -0.0.
        where: What the names begin with.
    """
    if isinstance(one, dict) and isinstance(other, dict):  # of whatever class: `state_dict` has its own
        if list(one) != list(other):
            return [f"{where} (keys)"]
        return [name for key in one for name in differences(one[key], other[key], f"{where}/{key}")]
    if type(one) is not type(other):
        return [f"{where} ({type(one).__name__}, {type(other).__name__})"]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f"{where} ({len(one)} items, {len(other)})"]
        pairs = enumerate(zip(one, other, strict=True))
        return [name for index, pair in pairs for name in differences(*pair, f"{where}/{index}")]
    if isinstance(one, torch.Tensor):
        return [] if _header(one) == _header(other) and torch.equal(_bytes(one), _bytes(other)) else [where]
    if isinstance(one, np.ndarray):
        return [] if _header(one) == _header(other) and one.tobytes() == other.tobytes() else [where]
    return [] if repr(one) == repr(other) else [where]


def _header(values: Any) -> tuple[Any, ...]:
    return values.dtype, tuple(values.shape)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
