"""The cores and the image encoders by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from common.config import chosen_name
from common.errors import UserError
from policies.cores.base import Core, CoreConfig
from policies.encoders.base import Encoder, EncoderConfig
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

# One line for each, as above; their files are in `policies/encoders`.
_ENCODER_CLASSES = {
    "impala": "ImpalaEncoder",
    "early_pool": "EarlyPoolEncoder",
    "small_frames": "SmallFramesEncoder",
    "space_to_depth": "SpaceToDepthEncoder",
    "strided": "StridedEncoder",
    "nature": "NatureEncoder",
}

ENCODERS: dict[str, type[Encoder]] = {
    name: getattr(import_module(f"policies.encoders.{name}"), kind) for name, kind in _ENCODER_CLASSES.items()
}
"""Every image encoder by name. One that lies elsewhere can be added before it is used."""


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


def encoder_configs() -> dict[str, type[EncoderConfig]]:
    """The classes of the encoders' configurations by name."""
    return {name: encoder.config_class for name, encoder in ENCODERS.items()}


def build_encoder(config: EncoderConfig, image_shape: tuple[int, int, int], precision: str) -> Encoder:
    """The encoder that `config` is for.

    Raises:
        UserError: impossible image shape.
    """
    name = chosen_name(encoder_configs(), config)
    assert name is not None, "configurations are checked before a network is built"
    return ENCODERS[name](config, image_shape, precision)


def build_core(
    config: CoreConfig, input_size: int, reset: ResetRule | None = None, bptt_span: int | None = None
) -> Core:
    """The core that `config` is for, with a reset rule (at episodes unless told otherwise) and gradient horizon."""
    make: Any = CORES[name_of(config)]
    core: Core = make(config, input_size)
    if core.is_recurrent:  # others have nothing to forget, and no state
        core.reset_rule, core.bptt_span = reset or EpisodeReset(), bptt_span
    return core
