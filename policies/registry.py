"""The cores by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from common.config import chosen_name
from common.errors import UserError
from policies.cores.base import Core, CoreConfig
from policies.resets import EpisodeReset, ResetRule

# One line for each: the name, which is that of its file in `policies/cores`, and the class in it.
_CLASSES = {
    "feedforward": "FeedForwardCore",
    "lstm": "LstmCore",
    "deltanet": "DeltaNetCore",
    "fake_srwm": "FakeSrwmCore",
    "srwm": "SrwmCore",
    "srwm_sharp": "SrwmSharpCore",
    "sr_delta": "SrDeltaCore",
}

CORES: dict[str, type[Core]] = {
    name: getattr(import_module(f"policies.cores.{name}"), kind) for name, kind in _CLASSES.items()
}
"""Every core by name. A core that lies elsewhere can be added before it is used."""


def core_configs() -> dict[str, type[CoreConfig]]:
    """The classes of the cores' configurations by name."""
    return {name: core.config_class for name, core in CORES.items()}


def name_of(config: CoreConfig) -> str:
    """The name of the core that `config` is for.

    Raises:
        UserError: no registered core has this class of configuration.
    """
    name = chosen_name(core_configs(), config)
    if name is None:
        raise UserError(
            f"no core is registered for {type(config).__name__}: add a line to policies/registry.py"
        )
    return name


def build_core(
    config: CoreConfig, input_size: int, reset: ResetRule | None = None, bptt_span: int | None = None
) -> Core:
    """The core that `config` is for, with a reset rule (at episodes unless told otherwise) and gradient horizon."""
    make: Any = CORES[name_of(config)]
    core: Core = make(config, input_size)
    if core.is_recurrent:  # others have nothing to forget, and no state
        core.reset_rule, core.bptt_span = reset or EpisodeReset(), bptt_span
    return core
