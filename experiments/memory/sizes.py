"""Cores of the same number of parameters."""

from __future__ import annotations

import bisect
from dataclasses import fields, replace

import torch
from torch import nn

from experiments.memory.tasks import ANSWERS, FEATURES
from policies.cores.base import MAX_SIZE, CoreConfig
from policies.registry import CORES, build_core

KNOBS = ("feedforward", "hidden")
"""Settings of cores that change their number of parameters and leave the shape of what they write as it is; the first
one that a core has is used."""


def count(core: CoreConfig) -> int:
    """Parameters of a core for the memory tasks, with its readout; nothing is allocated."""
    with torch.device("meta"):
        built = build_core(core, FEATURES)
        readout = nn.Linear(built.output_size, ANSWERS)
    return sum(parameter.numel() for part in (built, readout) for parameter in part.parameters())


def knob(core: CoreConfig) -> str | None:
    """The setting by which the core's number of parameters can be chosen; None if it has none."""
    names = {item.name for item in fields(core)}
    return next((name for name in KNOBS if name in names), None)


def matched(core: CoreConfig, like: str | None) -> CoreConfig:
    """`core` with about as many parameters as the core `like` has at its default sizes.

    A core without a knob, such as `feedforward`, and any core for `like` None, stays as it is.
    """
    name = knob(core)
    if like is None or name is None:
        return core
    budget = count(CORES[like].config_class())

    def sized(size: int) -> CoreConfig:
        return replace(core, **{name: size})

    # The first size that is too large; that or the one below it is nearest.
    above = bisect.bisect_left(range(1, MAX_SIZE), budget, key=lambda size: count(sized(size))) + 1
    return min(
        (sized(size) for size in (above - 1, above) if size), key=lambda made: abs(count(made) - budget)
    )
