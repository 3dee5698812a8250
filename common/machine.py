"""What this machine has."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_bytes() -> int:
    """The memory that this process can have at most: the machine's, or less where a container, a cluster's job or
    ``ulimit`` allows less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    for file in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # it is not there, or says "max"
            limits.append(int(file.read_text(encoding="ascii")))
    return min(limits)
