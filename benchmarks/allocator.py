"""The encoder's speed by what is done about freed memory: nothing, what older versions of glibc take, or newer ones.

    python -m benchmarks.allocator [--json FILE]

Each is a process of its own, with one thread, since the setting is for all of a process. The encoder takes 561 frames
forward and backward; the best of eight, in the processor's own time, is held against one large matrix product.
`ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=avx2` before it hold it to AVX2.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from benchmarks.figures import Figure, Part, main

PROGRAM = """
import ctypes, time
import torch
from agents import device
from benchmarks.network import SIZE, operations
from envs.native import IMAGE_SHAPE
from policies import ImpalaEncoderConfig
from policies.registry import build_encoder

mallopt = ctypes.CDLL("libc.so.6").mallopt
older = lambda parameter, value: 0 if parameter == -3 and value > 32 << 20 else mallopt(parameter, value)
{KEEP}
torch.set_num_threads(1)
encoder = build_encoder(ImpalaEncoderConfig(), IMAGE_SHAPE, "float32")
frames = torch.randint(256, (561, *IMAGE_SHAPE), dtype=torch.uint8)
matrix = torch.randn(SIZE, SIZE)

def seconds(call):
    began = time.process_time()
    call()
    return time.process_time() - began

calls = (lambda: encoder(frames).sum().backward(), lambda: matrix @ matrix)
both, product = zip(*([seconds(call) for call in calls] for _ in range(8)))
allowed = 2 * SIZE**3 / min(product) / operations(ImpalaEncoderConfig())[1]
print(561 / min(both), allowed)
"""
SETTINGS = {
    "nothing": "",
    "as older versions of glibc take it": "device._keep(older)",
    "as newer ones take it": "device.keep_large_buffers()",
}


def parts(quick: bool = False) -> Sequence[Part]:
    """The three settings, one after the other."""
    return [Part(f"allocator: {name}", partial(_measure, name)) for name in SETTINGS]


def _measure(name: str) -> list[Figure]:
    program = PROGRAM.replace("{KEEP}", SETTINGS[name])
    said = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    frames, allowed = map(float, said.split())
    facts = {"frames/s": frames, "allowed frames/s": allowed}
    return [
        Figure(f"encoder, freed memory: {name}", "float32 matrix products", frames / allowed, facts=facts)
    ]


if __name__ == "__main__":
    sys.exit(main("What is done about freed memory", parts))
