"""What acting needs on a GPU, and costs nothing on a CPU: a stream of its own, and pinned memory for uploads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Work in here runs beside the learner's on `device`, but after all that was asked for before.

    What was asked for in here is done before anything that is asked for afterwards.
    """
    if device.type != "cuda":
        yield
        return
    stream, outside = _acting_stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(outside)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        outside.wait_stream(stream)


@cache
def _acting_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class Upload:
    """Makes arrays tensors that a device can copy without waiting for the host.

    An array's pinned copy is overwritten by the next array of that name: until then the device must have read it,
    which reading its answer (the actions) makes sure.
    """

    def __init__(self, device: torch.device) -> None:
        self._pinned: dict[str, Tensor] | None = {} if device.type == "cuda" else None

    def __call__(self, name: str, array: NDArray[Any]) -> Tensor:
        """`array` as a tensor in the host's memory; no copy on a CPU."""
        tensor = torch.from_numpy(array)
        if self._pinned is None:
            return tensor
        if name not in self._pinned:
            self._pinned[name] = torch.empty_like(tensor, pin_memory=True)
        return self._pinned[name].copy_(tensor)
