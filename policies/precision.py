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


def for_playing(precision: str, device: torch.device) -> str:
    """What an agent that was trained in `precision` plays in on `device`: not in an emulated bfloat16.

    What it does differs by rounding alone, and a checkpoint may come from a machine with units for bfloat16.
    """
    return "float32" if precision == "bfloat16" and not has_bfloat16_units(device) else precision
