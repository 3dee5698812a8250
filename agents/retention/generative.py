"""Generative replay (Shin et al. 2017, arXiv 1705.08690) and brain-inspired replay (van de Ven et al. 2020, Nature
Communications 11:4069), for policies.

A generator learns what the tasks look like. From the second task on, the policy sees at each update as many generated
unrolls as fresh ones, of the tasks left behind and by the generator as it was when the last one was left, and is held
to what it said to them then. The five parts of brain-inspired replay are switches; all of them off, on pixels, is plain
generative replay:

- internal: what the core is given is generated, not images (``generative_level``);
- feedback: latents are read from the core's output. Other than published, the generator's loss does not train the core;
- conditional: latents begin and move in another way in each task;
- gates: part of the decoder's hidden units is silent in each task;
- soft targets: the policy is held to probabilities, not to drawn actions.

``features-kept`` replays stored core inputs in half precision instead, and holds the policy to what it said when it
played them: the bound that tells whether the generator or the idea fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.retention.base import Rollouts
from agents.retention.clear import ClearConfig, capacity, cloning
from agents.retention.consolidation import Consolidating
from agents.retention.ewc import EwcConfig, OnlineEwc
from agents.retention.generator import Generator, GeneratorSizes
from agents.retention.lwf import TASK_NUMBER, TASK_NUMBERS, distillation, frozen_copy
from agents.retention.store import UnrollStore
from agents.retention.stored import Kind, check_kinds, kind_of, load_weights
from agents.retention.unrolls import Rows, row_kinds, rows_of
from agents.retention.weights import Weights
from agents.rollout import Batch
from common.config import OneOf, Range
from policies import TASK, Policy, PolicyOutput

if TYPE_CHECKING:
    from agents.learner import Learner

FEATURES, PIXELS, KEPT = "features", "pixels", "features-kept"
CONSOLIDATED, FROZEN, FREE = "consolidated", "frozen", "free"
ENCODER = "encoder."


@dataclass(frozen=True)
class GenerativeConfig(EwcConfig, ClearConfig):
    """Settings of generative replay.

    Attributes:
        generative_strength: generative: weight of the replay.
        generative_level: generative: what is replayed: features that the core is given, pixels, or features-kept,
            stored ones instead of generated ones.
        generative_encoder: generative: what becomes of the encoder, which features do not train: consolidated (online
            EWC), frozen after the first task, or free.
        generative_steps: generative: steps of a generated unroll.
        generative_feedback: generative: read latents from what the heads read.
        generative_conditional: generative: latents of each task have a prior of their own.
        generative_gated_share: generative: share of the decoder's hidden units that is silent in each task.
        generative_soft_targets: generative: hold the policy to probabilities instead of drawn actions.
        generative_temperature: generative: of the probabilities.
        generative_learning_rate: generative: of the generator.
        generative_modes: generative: most tasks that there will be.
    """

    generative_strength: Annotated[float, Range(0)] = 1.0
    generative_level: Annotated[str, OneOf((FEATURES, PIXELS, KEPT))] = FEATURES
    generative_encoder: Annotated[str, OneOf((CONSOLIDATED, FROZEN, FREE))] = CONSOLIDATED
    generative_steps: Annotated[int, Range(1, 10_000)] = 20
    generative_feedback: bool = True
    generative_conditional: bool = True
    generative_gated_share: Annotated[float, Range(0, 1, open_high=True)] = 0.7
    generative_soft_targets: bool = True
    generative_temperature: Annotated[float, Range(0, open_low=True)] = 2.0
    generative_learning_rate: Annotated[float, Range(0, open_low=True)] = 1e-3
    generative_modes: Annotated[int, Range(1, 1000)] = 32


class EncoderEwc(OnlineEwc):
    """Online EWC on what lies below the replayed features."""

    name = "generative"

    def protected(self, learner: Learner) -> Weights:
        return Weights((n, p) for n, p in learner.policy.named_parameters() if n.startswith(ENCODER))


class Nothing(Consolidating):
    """Leaves what lies below the replayed features as it is."""

    def consolidate(self, task: int, rollouts: Rollouts) -> None:
        pass


@dataclass
class Left:
    """Generator and policy as they were when the last task was left."""

    generator: Generator
    policy: Policy


@dataclass(frozen=True)
class Seen:
    """What an update learns from, as a generator sees it.

    Attributes:
        data: what is to be generated (T, B, data).
        hidden: the core's output (T, B, D).
        starts: of episodes (T, B).
        tasks: of each sequence (B,).
    """

    data: Tensor
    hidden: Tensor
    starts: Tensor
    tasks: Tensor


class GenerativeReplay(Consolidating):
    """Learns to generate, and replays what it generates."""

    name = "generative"
    config_class = GenerativeConfig
    inert: ClassVar[dict[str, Any]] = {"generative_strength": 0.0}
    keeps_files = True

    def attach(self, learner: Learner) -> None:
        self.learner = learner
        self._task, self._tasks_left = 0, list[int]()
        self._left: Left | None = None
        self._seen: Seen | None = None
        self._fresh_steps = 0
        self._kept = UnrollStore(
            partial(capacity, self.config, learner.config.rollout_steps), learner.replaying
        )
        held = self._level != PIXELS and self.config.generative_encoder == CONSOLIDATED
        self._below_policy: Consolidating = EncoderEwc(self.config) if held else Nothing(self.config)
        self._below_policy.attach(learner)
        with torch.random.fork_rng(devices=[]):  # torch's own generator stays where it is
            torch.manual_seed(learner.replaying.initial_seed())
            self.generator = Generator(self._sizes()).to(learner.policy.device)
        self._optimizer = torch.optim.Adam(self.generator.parameters(), self.config.generative_learning_rate)

    @property
    def _level(self) -> str:
        level: str = self.config.generative_level
        return level

    @property
    def _acting(self) -> bool:
        return bool(self.config.generative_strength > 0.0)

    def _sizes(self) -> GeneratorSizes:
        policy, config = self.learner.policy, self.config
        image = self._level == PIXELS
        data = torch.Size(policy.encoder.image_shape).numel() + 1 if image else policy.core.input_size
        return GeneratorSizes(
            data=data,
            seen=policy.hidden_size if config.generative_feedback else data,
            modes=config.generative_modes,
            image=image,
            conditional=config.generative_conditional,
            gated_share=config.generative_gated_share,
            gate_seed=self.learner.replaying.initial_seed(),
        )

    def use_directory(self, directory: Path) -> None:
        self._kept.use_directory(directory)

    def prune(self, kept: Mapping[Path, Mapping[str, Any]]) -> None:
        self._kept.prune({path: state["kept"] for path, state in kept.items()})

    def saving_problems(self) -> list[str]:
        return self._kept.saving_problems()

    # Tasks

    def begin_section(self, task: int) -> None:
        self._task = task

    def consolidate(self, task: int, rollouts: Rollouts) -> None:
        if not self._acting:
            return
        self._below_policy.consolidate(task, rollouts)
        self._tasks_left = sorted({*self._tasks_left, task})
        self._left = Left(deepcopy(self.generator).requires_grad_(False), frozen_copy(self.learner.policy))
        self._freeze()

    def _freeze(self) -> None:
        if self._tasks_left and self.config.generative_encoder == FROZEN and self._level != PIXELS:
            self.learner.policy.encoder.requires_grad_(False)

    # Updates

    def prepare(self, rollout: Batch) -> Batch:
        self._optimizer.zero_grad(set_to_none=True)  # of an update that was broken off
        return rollout

    def terms(self, batch: Any, output: PolicyOutput) -> dict[str, Tensor]:
        if self._acting:
            self._fresh_steps = batch.actions.numel()
            self._seen = None if self._level == KEPT else self._as_seen(batch, output)
        return {}

    def _as_seen(self, batch: Any, output: PolicyOutput) -> Seen:
        steps, streams = batch.actions.shape
        assert output.features is not None
        assert output.hidden is not None
        data = output.features[:steps].detach()
        if self._level == PIXELS:
            reward = batch.reward_input[:steps].clamp(-1.0, 1.0)
            data = torch.cat([batch.rgb[:steps].flatten(2).to(reward.dtype) / 255, reward], -1)
        present = torch.full((streams,), self._task, device=data.device)
        return Seen(
            data=data,
            hidden=output.hidden[:steps].detach(),
            starts=self._starts(batch.episode_start[:steps]),
            tasks=batch.initial_state.get(TASK, present),
        )

    def _starts(self, starts: Tensor) -> Tensor:
        """For a policy without memory, every step begins anew."""
        return starts if self.learner.policy.is_recurrent else torch.ones_like(starts)

    def replay(self, scale: float) -> dict[str, Tensor]:
        if not self._acting:
            return {}
        if self._level == KEPT:
            return self._replay_kept(scale)
        assert self._seen is not None
        fresh = self._generator_loss(self._seen)
        if self._left is None:
            fresh.backward()
            return {"generative_loss": fresh.detach()}
        data, starts, tasks = self._generated(self._left)
        loss, output = self._replay_loss(self._left, data, starts, tasks)
        (scale * self.config.generative_strength * loss).backward()
        assert output.hidden is not None
        again = self._generator_loss(Seen(data, output.hidden.detach(), starts, tasks))
        share = 1.0 / len({*self._tasks_left, self._task})
        (share * fresh + (1.0 - share) * again).backward()
        return {"generative_loss": fresh.detach(), "generative_replay": loss.detach()}

    def _generator_loss(self, seen: Seen) -> Tensor:
        read = seen.hidden if self.config.generative_feedback else seen.data
        parts = self.generator.losses(seen.data, read, seen.starts, seen.tasks, self.learner.replaying)
        return (parts[0] + parts[1]).mean()

    def _generated(self, left: Left) -> tuple[Tensor, Tensor, Tensor]:
        """As many unrolls as fresh ones: data, episode starts and tasks."""
        policy, random = self.learner.policy, self.learner.replaying
        count = max(1, round(self._fresh_steps / self.learner.config.rollout_steps))
        steps = self.config.generative_steps
        if not policy.is_recurrent:
            count, steps = count * steps, 1
        others = [task for task in self._tasks_left if task != self._task] or self._tasks_left
        drawn = torch.randint(len(others), (count,), generator=random)
        tasks = torch.tensor(others)[drawn].to(policy.device)
        starts = torch.zeros(steps, count, dtype=torch.bool, device=policy.device)
        starts[0] = True
        return left.generator.generate(tasks, steps, random), starts, tasks

    def _replay_loss(
        self, left: Left, data: Tensor, starts: Tensor, tasks: Tensor
    ) -> tuple[Tensor, PolicyOutput]:
        """How far the policy is from what it said of these data, and what it says now."""
        with torch.no_grad():
            old = self._said(left.policy, data, starts, tasks)
        new = self._said(self.learner.policy, data, starts, tasks)
        config, value_cost = self.config, self.learner.config.value_cost
        if config.generative_soft_targets:
            temperature = config.generative_temperature
            loss = distillation(old.logits, old.value, new.logits, new.value, temperature, value_cost)
            return loss, new
        noise = torch.rand(old.logits.shape, generator=self.learner.replaying).clamp_min(1e-20)
        actions = (old.logits - (-noise.log()).log().to(old.logits.device)).argmax(-1)
        hard = F.cross_entropy(new.logits.flatten(0, 1), actions.flatten())
        return hard + 0.5 * value_cost * (old.value - new.value).square().mean(), new

    def _said(self, policy: Policy, data: Tensor, starts: Tensor, tasks: Tensor) -> PolicyOutput:
        state = policy.initial_state(data.shape[1], task=tasks)
        if self._level != PIXELS:
            return policy.from_features(data, state, starts)
        pixels = (data[..., :-1] * 255).round().to(torch.uint8)
        output: PolicyOutput = policy(
            pixels.unflatten(-1, policy.encoder.image_shape), data[..., -1:], state, starts
        )
        return output

    def add_gradients(self, scale: float) -> dict[str, Tensor]:
        return self._below_policy.add_gradients(scale) if self._acting else {}

    def after_step(self) -> None:
        if self._acting:
            self._below_policy.after_step()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    # Stored features

    def _replay_kept(self, scale: float) -> dict[str, Tensor]:
        if not (self._tasks_left and len(self._kept)):
            return {}
        policy, config = self.learner.policy, self.config
        count = max(1, round(self._fresh_steps / self.learner.config.rollout_steps))
        stored, state = self._kept.sample(count, policy.device)
        output = policy.from_features(stored["features"].float(), state, stored["episode_start"])
        divergence, error = cloning(output, stored["logits"], stored["values"])
        loss = config.clear_policy_cost * divergence + config.clear_value_cost * error
        weight = scale * config.generative_strength * stored["values"].numel() / self._fresh_steps
        (weight * loss).backward()
        return {"generative_replay": loss.detach()}

    def commit(self, rollout: Batch) -> None:
        super().commit(rollout)
        if self._acting and self._level == KEPT:
            self._kept.offer(rollout.actions.shape[1], lambda columns: self._features_of(rollout, columns))

    @torch.no_grad()
    def _features_of(self, rollout: Batch, columns: list[int]) -> Rows:
        """What the core is given in the unrolls of some environments, and what the policy said when it played them."""
        chosen = rollout.select(torch.tensor(columns, device=rollout.actions.device))
        assert chosen.logits is not None
        policy = self.learner.policy
        policy.choose_gates(chosen.initial_state)
        sequences = {
            "features": policy.features(chosen.rgb[:-1], chosen.reward_input[:-1]).half(),
            "episode_start": chosen.episode_start[:-1],
            "logits": chosen.logits,
            "values": chosen.values,
        }
        return rows_of(sequences, chosen.initial_state, list(range(len(columns))))

    # State

    def snapshot(self) -> dict[str, Any]:
        return deepcopy(self._learning_state())

    def _learning_state(self) -> dict[str, Any]:
        """What each update changes."""
        named = self.generator.named_parameters()
        adam = {name: self._optimizer.state.get(parameter, {}) for name, parameter in named}
        return {"generator": dict(self.generator.state_dict()), "adam": adam}

    def state(self) -> dict[str, Any]:
        left = self._left
        return {
            **super().state(),
            **self._learning_state(),
            "task": self._task,
            "tasks_left": self._tasks_left,
            "old_generator": None if left is None else left.generator.state_dict(),
            "old_policy": None if left is None else left.policy.state_dict(),
            "kept": self._kept.state(),
            "below": self._below_policy.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        TASK_NUMBER.check(state["task"], "task")
        TASK_NUMBERS.check(state["tasks_left"], "tasks that were left")
        self._task, self._tasks_left = state["task"], list(state["tasks_left"])
        load_weights(self.generator, state["generator"], "the generator")
        for name, parameter in self.generator.named_parameters():
            if stored := state["adam"][name]:
                self._optimizer.state[parameter] = _read_moments(stored, parameter)
            else:
                self._optimizer.state.pop(parameter, None)
        self._left = None
        if state["old_policy"] is not None:
            self._left = Left(
                deepcopy(self.generator).requires_grad_(False), frozen_copy(self.learner.policy)
            )
            load_weights(self._left.generator, state["old_generator"], "the old generator")
            load_weights(self._left.policy, state["old_policy"], "the old policy")
        self._kept.load_state(state["kept"], self._kept_kinds())
        self._below_policy.load_state(state["below"])
        self._freeze()

    def _kept_kinds(self) -> dict[str, Kind]:
        """Of a row of the stored features."""
        policy, steps = self.learner.policy, self.learner.config.rollout_steps
        sequences = {
            "features": ((steps, policy.core.input_size), True),
            "episode_start": ((steps,), False),
            "logits": ((steps, policy.num_actions), True),
            "values": ((steps,), True),
        }
        return row_kinds(sequences, policy)


def _read_moments(stored: Mapping[str, Any], parameter: Tensor) -> dict[str, Tensor]:
    """Adam's state of one parameter of the generator."""
    wanted = {"step": ((), True), "exp_avg": kind_of(parameter), "exp_avg_sq": kind_of(parameter)}
    check_kinds(stored, wanted, "the generator's optimizer")
    moved = {name: tensor.clone() for name, tensor in stored.items()}
    return moved | {name: moved[name].to(parameter.device) for name in ("exp_avg", "exp_avg_sq")}
