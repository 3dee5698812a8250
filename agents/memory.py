"""How much memory a process has needed."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

GB = 1e9


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
