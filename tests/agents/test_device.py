"""Whether large buffers stay with the process: asked of a process of its own, since the setting is for all of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource
import torch
from agents import device

def older(parameter, value):  # a threshold above 32 MB was refused by glibc for long
    return 0 if parameter == -3 and value > 32 << 20 else ctypes.CDLL("libc.so.6").mallopt(parameter, value)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = {KEEP}
print(kept, min(faults() for _ in range(6)))  # the first ones find their place
"""
PAGES = (64 << 20) // 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has the setting")
@pytest.mark.parametrize(
    ("keep", "kept"),
    [("None", False), ("device.keep_large_buffers()", True), ("device._keep(older)", True)],
    ids=["as it is", "this glibc", "an older one"],
)
def test_a_freed_buffer_is_not_mapped_anew(keep: str, kept: bool) -> None:
    program = PROGRAM.replace("{KEEP}", keep)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    answer, faults = said.split()
    assert answer == str(kept or None)
    # A page is asked of the kernel at its first touch: all 64 MB again, or next to nothing.
    assert (int(faults) < PAGES / 10) is kept
