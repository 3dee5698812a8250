"""Small versions of whatever cores are registered."""

from __future__ import annotations

from dataclasses import fields

from policies import CORES, core_config
from policies.cores.base import CoreConfig

SIZES = {"width": 8, "heads": 2, "feedforward": 12, "layers": 2}


def small_core(name: str, **sizes: int) -> CoreConfig:
    """The configuration of the core `name`, a few numbers wide.

    Args:
        name: in the registry.
        sizes: in place of those chosen here, where the core has such a setting.
    """
    default = CORES[name].config_class()
    numbers = {item.name: getattr(default, item.name) for item in fields(default)}
    numbers = {field: min(value, 6) for field, value in numbers.items() if type(value) is int}
    chosen = {field: size for field, size in (SIZES | sizes).items() if field in numbers}
    return core_config(name, **numbers | chosen)
