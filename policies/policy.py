"""The policy: encoder, recurrent core and heads. Everything that an agent needs from this package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from common.config import OneOf, Range, check, choice, plain, problems, read
from common.errors import UserError, raise_problems
from policies.cores.base import CoreConfig, Kind, Reading
from policies.cores.srwm import SrwmConfig
from policies.encoder import EncoderConfig, ImpalaEncoder
from policies.registry import build_core, core_configs
from policies.resets import MAX_SPAN, State, parse_reset


@dataclass(frozen=True)
class PolicyConfig:
    """Everything that defines a policy's network, apart from image shape and number of actions.

    Attributes:
        core: recurrent core; its sizes are the options core.*
        encoder: sizes of the image encoder.
        reset: when the core forgets: episode, never, or a number of steps such as 50.
        bptt_span: steps that gradient flows through; none for the whole unroll, 1 as in the published SRWM code.
        precision: what the encoder computes in, float32 or bfloat16.
    """

    core: CoreConfig = choice(core_configs, SrwmConfig, option="policy")
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    reset: str = "episode"
    bptt_span: Annotated[int | None, Range(1, MAX_SPAN)] = None
    precision: Annotated[str, OneOf(("float32", "bfloat16"))] = "float32"

    def contradictions(self) -> list[str]:
        """What is wrong with the reset rule."""
        try:
            parse_reset(self.reset)
        except UserError as error:
            return [str(error)]
        return []


def policy_config(core: str, **overrides: Any) -> PolicyConfig:
    """The default policy with the core of this name; `overrides` are fields of `PolicyConfig` other than `core`.

    >>> policy_config("lstm", reset="never").reset
    'never'

    Raises:
        UserError: unknown core or field, or an impossible value.
    """
    return from_json({"core": core, **{name: plain(value) for name, value in overrides.items()}})


def core_config(name: str, **overrides: Any) -> CoreConfig:
    """The configuration of the core `name`: the paper's sizes, with `overrides`.

    Raises:
        UserError: unknown core or field, or an impossible size.
    """
    return from_json({"core": {"name": name, **overrides}}).core


def from_json(data: object) -> PolicyConfig:
    """The configuration that `common.config.plain` made plain values; fields left out take their defaults.

    Raises:
        UserError: unknown core, unknown field or impossible value.
    """
    found: list[str] = []
    config = read(PolicyConfig(), data, found)
    raise_problems(found or problems(config))
    return config


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
    torch's random seed alone. The policy never sees which game it plays. `image_shape` is (height, width, channels).

    Raises:
        UserError: an impossible size.
    """

    def __init__(self, config: PolicyConfig, image_shape: tuple[int, int, int], num_actions: int) -> None:
        super().__init__()
        check(config)
        if num_actions < 1:
            raise UserError(f"a policy cannot choose among {num_actions} actions: give 1 or more")
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

    def step_factors(self) -> dict[str, Tensor]:
        """See `Core.step_factors`."""
        return {f"core.{name}": factor for name, factor in self.core.step_factors().items()}

    def gradient_blocks(self) -> dict[str, Tensor]:
        """See `Core.gradient_blocks`."""
        return self.core.gradient_blocks()

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """The state of `batch_size` fresh environments; `device` None for where the parameters are."""
        return self.core.initial_state(batch_size, self.device if device is None else device)

    def forward(self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor) -> PolicyOutput:
        """Run over a sequence of T steps of B environments.

        Args:
            rgb: uint8 images (T, B, H, W, C).
            reward: each environment's previous reward (T, B, 1), float; clipped here to [-1, 1].
            state: from the previous call, or `initial_state`. Not modified.
            episode_start: bool (T, B); true where step t is the first of an episode.

        Raises:
            TypeError: `rgb` is not uint8 or `episode_start` not bool.
            ValueError: shapes do not fit together.
        """
        return self._heads(*self.core(self._core_input(rgb, reward), state, episode_start))

    def diagnostics(
        self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor
    ) -> dict[str, Tensor]:
        """Scalars about the core at the sequence's last step: the means of `examine`'s readings by tag, such as
        "layer0/shift_norm"."""
        _, readings = self.examine(rgb, reward, state, episode_start)
        return {reading.tag: reading.values.mean() for reading in readings}

    @torch.no_grad()
    def rate_spreads(
        self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor
    ) -> dict[str, Tensor]:
        """How much the core's rates change from step to step: by tag such as "layer0/rate_y_spread", the standard
        deviation over the sequence's steps, head by head; the mean over heads and environments. Empty for a core that
        has no rates."""
        if not self.core.self_modifying:
            return {}
        x = self._core_input(rgb, reward)
        rates: dict[str, list[Tensor]] = {}
        for step, start in zip(x.split(1), episode_start.split(1), strict=True):
            _, state, readings = self.core.examine(step, state, start)
            for reading in readings:
                if reading.kind is Kind.RATE:
                    found = reading.values if reading.heads is None else reading.heads
                    rates.setdefault(reading.tag, []).append(found)
        return {
            f"{tag}_spread": torch.stack(steps).std(dim=0, correction=0).mean()
            for tag, steps in rates.items()
        }

    @torch.no_grad()
    def examine(
        self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor
    ) -> tuple[PolicyOutput, list[Reading]]:
        """As `forward`, and what the core did at the last step: numbers for each environment."""
        y, state, readings = self.core.examine(self._core_input(rgb, reward), state, episode_start)
        return self._heads(y, state), readings

    def _heads(self, core_output: Tensor, state: State) -> PolicyOutput:
        return PolicyOutput(self.actor(core_output), self.critic(core_output).squeeze(-1), state)

    def _core_input(self, rgb: Tensor, reward: Tensor) -> Tensor:
        if rgb.dim() != 5:
            raise ValueError(f"rgb must be (T, B, H, W, C), got {tuple(rgb.shape)}")
        if reward.shape != (*rgb.shape[:2], 1):
            raise ValueError(f"reward must be (T, B, 1) = {(*rgb.shape[:2], 1)}, got {tuple(reward.shape)}")
        features = self.encoder(rgb.flatten(0, 1)).unflatten(0, rgb.shape[:2])
        return torch.cat([features, reward.clamp(-1.0, 1.0).to(features.dtype)], dim=-1)
