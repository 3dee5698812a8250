"""What depends on the device: a GPU's streams and pinned memory, a CPU's allocator, how much memory was needed."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

GB = 1e9
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4


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


def keep_large_buffers() -> bool:
    """Stop glibc from unmapping every freed tensor of more than a few megabytes.

    By default each large activation is mapped anew and its pages are zeroed by the kernel at first touch, which can
    halve CPU training speed. Higher thresholds keep freed memory in the process for the next update.

    Returns:
        Whether the setting was made: only glibc has it, elsewhere this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return _keep(mallopt)


def _keep(mallopt: Callable[[int, int], int]) -> bool:
    # Older versions of glibc refuse a threshold above 32 MB: there nothing is mapped, whatever its size.
    mapped_late = mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_MAX, 0)
    return bool(mapped_late) and bool(mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))


def peak_memory(device: torch.device | None = None) -> dict[str, float]:
    """The most memory that this process has taken at once so far, in GB (1e9 bytes).

    Returns:
        "peak_gb", of main memory; and "gpu_peak_gb", of the tensors on `device`, if it has memory of its own.
    """
    found = {"peak_gb": _peak_bytes() / GB}
    if device is not None and device.type == "cuda":
        found["gpu_peak_gb"] = torch.cuda.max_memory_allocated(device) / GB
    return found


def _peak_bytes() -> int:
    # The kernel's resource usage begins with that of the process that started this one; its own record does not.
    with (
        suppress(OSError, ValueError),
        Path("/proc/self/status").open(encoding="ascii", errors="replace") as lines,
    ):
        for line in lines:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
