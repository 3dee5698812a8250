"""What the encoder computes in."""

from __future__ import annotations

import torch

PRECISIONS = ("auto", "float32", "bfloat16")

_CPU_UNITS = ("avx512_bf16", "amx_bf16", "bf16")
"""As torch names what x86 and ARM processors can have."""


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 in hardware. Where it does not, torch emulates it: 13 times slower than
    float32 was measured in training on such a processor."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(unit, False) for unit in _CPU_UNITS)


def resolved(precision: str, device: torch.device) -> str:
    """`precision`, where "auto" is bfloat16 on devices that have units for it and float32 on others."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16_units(device) else "float32"
