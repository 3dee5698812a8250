"""The cores by name."""

from __future__ import annotations

from typing import Any, NamedTuple

from common.errors import UserError, unknown_name
from policies.cores.base import Core, CoreConfig
from policies.cores.deltanet import DeltaNetConfig, DeltaNetCore
from policies.cores.fake_srwm import FakeSrwmConfig, FakeSrwmCore
from policies.cores.feedforward import FeedForwardConfig, FeedForwardCore
from policies.cores.lstm import LstmConfig, LstmCore
from policies.cores.sr_delta import SrDeltaConfig, SrDeltaCore
from policies.cores.srwm import SrwmConfig, SrwmCore
from policies.resets import ResetRule
from policies.settings import build_config


class CoreEntry(NamedTuple):
    """A core's configuration class, and the class built as `core(config, input_size, reset, bptt_span)`."""

    config: type[CoreConfig]
    core: type[Core]


CORES: dict[str, CoreEntry] = {
    "feedforward": CoreEntry(FeedForwardConfig, FeedForwardCore),
    "lstm": CoreEntry(LstmConfig, LstmCore),
    "deltanet": CoreEntry(DeltaNetConfig, DeltaNetCore),
    "fake_srwm": CoreEntry(FakeSrwmConfig, FakeSrwmCore),
    "srwm": CoreEntry(SrwmConfig, SrwmCore),
    "sr_delta": CoreEntry(SrDeltaConfig, SrDeltaCore),
}
"""Every core by name, one line each."""


def core_config(name: str, **overrides: Any) -> CoreConfig:
    """The configuration of the core `name`: the paper's sizes, with `overrides`.

    Raises:
        UserError: unknown core or field, or an impossible size.
    """
    if name not in list(CORES):  # a list, because a name read from a file may be unhashable
        raise UserError(unknown_name("core", str(name), CORES))
    return build_config(CORES[name].config, overrides, f"field of core {name!r}")


def name_of(config: CoreConfig) -> str:
    """The name of the core that `config` is for.

    Raises:
        UserError: no registered core has this class of configuration.
    """
    for name, entry in CORES.items():
        if type(config) is entry.config:
            return name
    raise UserError(
        f"no core is registered for {type(config).__name__}: add a line to policies.registry.CORES"
    )


def build_core(
    config: CoreConfig, input_size: int, reset: ResetRule | None = None, bptt_span: int | None = None
) -> Core:
    """The core that `config` is for; the other arguments as for `Core`."""
    make: Any = CORES[name_of(config)].core
    core: Core = make(config, input_size, reset, bptt_span)
    return core
