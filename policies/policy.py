"""The policy: encoder, recurrent core and heads. Everything that an agent needs from this package."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from common.config import OneOf, Range, check, choice, plain, problems, read
from common.errors import UserError, raise_problems
from policies.cores.base import Core, CoreConfig, Kind, Reading
from policies.cores.srwm import SrwmConfig
from policies.cores.task_cores import TaskCores
from policies.encoders.base import EncoderConfig
from policies.encoders.impala import ImpalaEncoderConfig
from policies.initial_weights import INITIAL_WEIGHTS
from policies.precision import PRECISIONS, resolved
from policies.registry import CORES, build_core, build_encoder, core_configs, encoder_configs, name_of
from policies.resets import MAX_SPAN, State, parse_reset
from policies.tasks import PER_TASK, TASK, Blocks, Gate, TaskConfig, close_gates, make_heads


@dataclass(frozen=True)
class PolicyConfig:
    """Everything that defines a policy's network, apart from image shape and number of actions.

    Attributes:
        core: recurrent core; its sizes are the options core.*
        encoder: image encoder; its sizes are the options encoder.*
        reset: when the core forgets: episode, never, or a number of steps such as 50.
        bptt_span: steps that gradient flows through; none for the whole unroll, 1 as in the published SRWM code.
        precision: what the encoder computes in, float32 or bfloat16; auto for bfloat16 where the device has units for
            it.
        initial_weights: torch: torch's defaults, as in the SRWM paper's code; small-heads: all actions begin about as
            likely, which PPO and APPO need with cores that have layer norms; quiet-layers: also, layers of the core
            begin by adding nothing to what they are given.
        bypass: whether the heads read the encoder's features beside what the core makes of them, so that what needs no
            memory need not be learned through it. Nothing changes where the core returns the features as they are.
        tasks: what the policy knows of the tasks of a sequence.
    """

    core: CoreConfig = choice(core_configs, SrwmConfig, option="policy")
    encoder: EncoderConfig = choice(encoder_configs, ImpalaEncoderConfig, option="encoder")
    reset: str = "episode"
    bptt_span: Annotated[int | None, Range(1, MAX_SPAN)] = None
    precision: Annotated[str, OneOf(PRECISIONS)] = "auto"
    initial_weights: Annotated[str, OneOf(tuple(INITIAL_WEIGHTS), "initial weights")] = "torch"
    bypass: bool = False
    tasks: TaskConfig = field(default_factory=TaskConfig)

    def contradictions(self) -> list[str]:
        """What is wrong with the reset rule."""
        try:
            parse_reset(self.reset)
        except UserError as error:
            return [str(error)]
        return []

    @property
    def is_bypassed(self) -> bool:
        """Whether the heads read more than the core returns."""
        return self.bypass and not CORES[name_of(self.core)].transparent


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
        state: the policy's state after the last step.
        features: what the core was given (T, B, F), where it is known.
        hidden: what the heads read (T, B, D), where it is known: what the core made of the features, and after that
            the features themselves, if they bypass it.
    """

    logits: Tensor
    value: Tensor
    state: State
    features: Tensor | None = None
    hidden: Tensor | None = None


class Policy(nn.Module):
    """Images and last rewards in, action logits and values out.

    Initial weights follow from torch's random seed alone: torch's defaults but in SRWM's matrices, as published, or
    `config.initial_weights`. The policy never sees which game it plays, unless `config.tasks` has it told: then a
    number for each stream stands in its state, as `TASK`. `image_shape` is (height, width, channels).
    Precision "auto" is settled for torch's default device: who builds for another device settles it before.

    Raises:
        UserError: an impossible size.
    """

    def __init__(self, config: PolicyConfig, image_shape: tuple[int, int, int], num_actions: int) -> None:
        super().__init__()
        check(config)
        if num_actions < 1:
            raise UserError(f"a policy cannot choose among {num_actions} actions: give 1 or more")
        self.config = replace(config, precision=resolved(config.precision, torch.get_default_device()))
        self.num_actions = num_actions
        self.encoder = build_encoder(config.encoder, image_shape, self.config.precision)
        INITIAL_WEIGHTS[config.initial_weights].encoder(self.encoder)
        self.core, self.actor, self.critic = self._above_encoder()
        self.gate = Gate(self.encoder.output_size)
        self._gates = close_gates(self, config.tasks)

    def _above_encoder(self) -> tuple[Core, nn.Module, nn.Module]:
        config = self.config
        core_input = self.encoder.output_size + 1  # the last reward is one more feature
        make_core = partial(build_core, config.core, core_input, parse_reset(config.reset), config.bptt_span)
        initial = INITIAL_WEIGHTS[config.initial_weights]
        private = config.tasks.cores == PER_TASK
        core = TaskCores([make_core() for _ in range(config.tasks.count)]) if private else make_core()
        seen = core.output_size + (core_input if config.is_bypassed else 0)
        actor, critic = make_heads(config.tasks, seen, self.num_actions)
        initial.core(core)
        initial.heads(actor, critic)
        return core, actor, critic

    @property
    def hidden_size(self) -> int:
        """Numbers that the heads read at each step, the D of `PolicyOutput.hidden`."""
        return self.core.output_size + (self.core.input_size if self.config.is_bypassed else 0)

    @property
    def is_recurrent(self) -> bool:
        """Whether outputs can depend on earlier steps."""
        return self.core.is_recurrent

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        weight = self.actor.weight
        assert isinstance(weight, Tensor)
        return weight.device

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

    def initial_state(
        self, batch_size: int, device: torch.device | str | None = None, task: int | Tensor = 0
    ) -> State:
        """The state of `batch_size` fresh environments; `device` None for where the parameters are.

        `task` is that of all or of each (B,), for a policy that is told.
        """
        place = self.device if device is None else device
        state = self.core.initial_state(batch_size, place)
        if self.config.tasks.told:
            state[TASK] = torch.as_tensor(task, dtype=torch.int64, device=place).expand(batch_size).clone()
        return state

    def restarted(self, state: State) -> State:
        """A fresh state for each stream of `state`, in the same task."""
        batch_size, place = next(
            ((len(tensor), tensor.device) for tensor in state.values()), (0, self.device)
        )
        return self.initial_state(batch_size, place, state.get(TASK, 0))

    def renew(self, seed: int) -> None:
        """Draw the weights of core and heads anew, as they follow from `seed`; the encoder stays."""
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
            torch.manual_seed(seed)
            drawn = nn.ModuleList(self._above_encoder())
            above = nn.ModuleList((self.core, self.actor, self.critic))
            for weight, fresh in zip(above.parameters(), drawn.parameters(), strict=True):
                weight.copy_(fresh)

    def see_task(self, task: int) -> None:
        """A task is trained from now on: its block of outputs opens, where heads are blocks."""
        if isinstance(self.actor, Blocks):
            self.actor.seen[task] = True

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
        self.choose_gates(state)
        return self.from_features(self.features(rgb, reward), state, episode_start)

    def from_features(self, features: Tensor, state: State, episode_start: Tensor) -> PolicyOutput:
        """As `forward`, from what `features` gave (T, B, F)."""
        state, task = self._split(state)
        hidden, state = self.core(features, state, episode_start)
        return self._output(features, hidden, state, task)

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
        state, _ = self._split(state)
        x = self.features(rgb, reward)
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
        state, task = self._split(state)
        features = self.features(rgb, reward)
        hidden, state, readings = self.core.examine(features, state, episode_start)
        return self._output(features, hidden, state, task), readings

    def heads(self, hidden: Tensor, task: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (T, B, A) and values (T, B) for what is `hidden` in an output (T, B, D), in the tasks (B,)."""
        return self.actor(hidden, task), self.critic(hidden, task).squeeze(-1)

    def _output(self, features: Tensor, hidden: Tensor, state: State, task: Tensor | None) -> PolicyOutput:
        if task is not None:
            state = {**state, TASK: task}
        if self.config.is_bypassed:
            hidden = torch.cat([hidden, features.to(hidden.dtype)], dim=-1)
        return PolicyOutput(*self.heads(hidden, task), state, features, hidden)

    def _split(self, state: State) -> tuple[State, Tensor | None]:
        """The core's part of the state, and the task, for which gates are chosen."""
        if not self.config.tasks.told:
            return state, None
        if TASK not in state:
            raise ValueError(
                "this policy is told its task: its state must say which, as initial_state(task=...) does"
            )
        self.choose_gates(state)
        return {name: tensor for name, tensor in state.items() if name != TASK}, state[TASK]

    def choose_gates(self, state: State) -> None:
        """From now on, units are silent, and cores run, by the tasks in `state`; `forward` does so by itself."""
        if TASK in state:
            for gate in self._gates:
                gate.choose(state[TASK])
            if isinstance(self.core, TaskCores):
                self.core.choose(state[TASK])

    def features(self, rgb: Tensor, reward: Tensor) -> Tensor:
        """What the core is given (T, B, F): the encoder's view of the images, and the last reward."""
        if rgb.dim() != 5:
            raise ValueError(f"rgb must be (T, B, H, W, C), got {tuple(rgb.shape)}")
        if reward.shape != (*rgb.shape[:2], 1):
            raise ValueError(f"reward must be (T, B, 1) = {(*rgb.shape[:2], 1)}, got {tuple(reward.shape)}")
        features = self.encoder(rgb.flatten(0, 1)).unflatten(0, rgb.shape[:2])
        features = self.gate(features)
        return torch.cat([features, reward.clamp(-1.0, 1.0).to(features.dtype)], dim=-1)
