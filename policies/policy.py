"""The policy: encoder, recurrent core and heads. Everything that an agent needs from this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from common.config import OneOf, Range, choice
from common.errors import UserError
from policies.cores.base import CoreConfig
from policies.cores.srwm import SrwmConfig
from policies.encoder import PRECISIONS, EncoderConfig, ImpalaEncoder
from policies.registry import CORES, build_core, core_config, name_of
from policies.resets import State, parse_reset
from policies.settings import build_config
from policies.sizes import require_positive


@dataclass(frozen=True)
class PolicyConfig:
    """Everything that defines a policy's network, apart from image shape and number of actions.

    Attributes:
        core: recurrent core.
        encoder: sizes of the image encoder.
        reset: when the core forgets: "episode", "never" or a number of steps such as "50".
        bptt_span: gradient horizon in steps; None for the whole unroll, 1 as in the published SRWM code.
        precision: what the encoder computes in, "float32" or "bfloat16".
    """

    core: CoreConfig = choice(
        lambda: {name: entry.config for name, entry in CORES.items()}, SrwmConfig, option="policy"
    )
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    reset: str = "episode"
    bptt_span: Annotated[int | None, Range(1)] = None
    precision: Annotated[str, OneOf(PRECISIONS)] = "float32"

    def contradictions(self) -> list[str]:
        """What is wrong with the reset rule, if anything."""
        try:
            parse_reset(self.reset)
        except UserError as error:
            return [str(error)]
        return []


def policy_config(core: str, **overrides: Any) -> PolicyConfig:
    """The default policy with the core of this name; `overrides` are fields of `PolicyConfig` other than
    `core`.

    >>> policy_config("lstm", reset="never").reset
    'never'

    Raises:
        UserError: unknown core or field, or an impossible value.
    """
    return build_config(PolicyConfig, {"core": core_config(core), **overrides}, "policy field")


def to_json(config: PolicyConfig) -> dict[str, Any]:
    """`config` as plain JSON values; `from_json` reads them back."""
    data = asdict(config)
    data["core"] = {"name": name_of(config.core), **data["core"]}
    data["encoder"]["channels"] = list(config.encoder.channels)
    return data


def from_json(data: Mapping[str, Any]) -> PolicyConfig:
    """The configuration that `to_json` wrote; fields left out take their defaults.

    Raises:
        UserError: unknown core, unknown field or impossible value.
    """
    values = dict(_mapping("policy", data))
    if "core" in values:
        core = dict(_mapping("policy core", values["core"]))
        if "name" not in core:
            raise UserError('policy core has no name: add for example {"name": "srwm"}')
        values["core"] = core_config(core.pop("name"), **core)
    if "encoder" in values:
        encoder = _mapping("policy encoder", values["encoder"])
        values["encoder"] = build_config(EncoderConfig, encoder, "encoder field")
    return build_config(PolicyConfig, values, "policy field")


def _mapping(what: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{what} is {value!r}: give an object with named fields")
    return value


class PolicyOutput(NamedTuple):
    """What a policy says about each step.

    Attributes:
        logits: unnormalised log-probabilities of the actions (T, B, A).
        value: estimate of the discounted return (T, B).
        state: the core's state after the last step.
    """

    logits: Tensor
    value: Tensor
    state: State


class Policy(nn.Module):
    """Images and last rewards in, action logits and values out.

    Initial weights are torch's defaults everywhere but in SRWM's matrices, as published, and follow from
    torch's random seed alone. The policy never sees which game it plays.

    Args:
        config: the network.
        image_shape: (height, width, channels) of the images.
        num_actions: how many actions there are to choose from.

    Raises:
        UserError: an impossible size.
    """

    def __init__(self, config: PolicyConfig, image_shape: tuple[int, int, int], num_actions: int) -> None:
        super().__init__()
        require_positive("number of actions", num_actions)
        self.config = config
        self.num_actions = num_actions
        self.encoder = ImpalaEncoder(config.encoder, image_shape, config.precision)
        core_input = self.encoder.output_size + 1  # the last reward is one more feature
        self.core = build_core(config.core, core_input, parse_reset(config.reset), config.bptt_span)
        self.actor = nn.Linear(self.core.output_size, num_actions)
        self.critic = nn.Linear(self.core.output_size, 1)

    @property
    def is_recurrent(self) -> bool:
        """Whether outputs can depend on earlier steps."""
        return self.core.is_recurrent

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.actor.weight.device

    def implementations(self, steps: int) -> dict[str, str]:
        """By sequence operator of the core, the version that runs in calls of so many steps: 1 in acting, the whole
        unroll in learning (`bptt_span` cuts it)."""
        span = self.core.bptt_span
        return self.core.implementations(steps if span is None else min(span, steps))

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """The state of `batch_size` fresh streams; `device` None for where the parameters are."""
        return self.core.initial_state(batch_size, self.device if device is None else device)

    def forward(self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor) -> PolicyOutput:
        """Run over a sequence of T steps of B streams.

        Args:
            rgb: uint8 images (T, B, H, W, C).
            reward: each stream's previous reward (T, B, 1), float; clipped here to [-1, 1].
            state: from the previous call, or `initial_state`. Not modified.
            episode_start: bool (T, B); true where step t is the first of an episode.

        Raises:
            TypeError: `rgb` is not uint8 or `episode_start` not bool.
            ValueError: shapes do not fit together.
        """
        return self._heads(*self.core(self._core_input(rgb, reward), state, episode_start))

    @torch.no_grad()
    def diagnostics(
        self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor
    ) -> dict[str, Tensor]:
        """Scalars about the core at the sequence's last step, such as "layer0/shift_norm"; see `forward`."""
        return self.core.diagnostics(self._core_input(rgb, reward), state, episode_start)

    @torch.no_grad()
    def examine(
        self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor
    ) -> tuple[PolicyOutput, dict[str, Tensor]]:
        """As `forward`, and what the core did at the last step: by name, a number for each stream (B,).

        The images are encoded once, so that looking at a policy costs little more than running it.
        """
        core_input = self._core_input(rgb, reward)
        facts = self.core.stream_diagnostics(core_input, state, episode_start)
        return self._heads(*self.core(core_input, state, episode_start)), facts

    def _heads(self, core_output: Tensor, state: State) -> PolicyOutput:
        return PolicyOutput(self.actor(core_output), self.critic(core_output).squeeze(-1), state)

    def _core_input(self, rgb: Tensor, reward: Tensor) -> Tensor:
        if rgb.dim() != 5:
            raise ValueError(f"rgb must be (T, B, H, W, C), got {tuple(rgb.shape)}")
        if reward.shape != (*rgb.shape[:2], 1):
            raise ValueError(f"reward must be (T, B, 1) = {(*rgb.shape[:2], 1)}, got {tuple(reward.shape)}")
        features = self.encoder(rgb.flatten(0, 1)).unflatten(0, rgb.shape[:2])
        return torch.cat([features, reward.clamp(-1.0, 1.0).to(features.dtype)], dim=-1)
