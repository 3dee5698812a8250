"""CLEAR: experience replay against forgetting (Rolnick et al. 2019, arXiv 1811.11682).

To the loss on fresh unrolls comes that on unrolls of the past, drawn evenly from a reservoir, with V-trace correcting
for the weights that have changed since; and on these alone two terms of cloning, with mu and V_mu what the policy and
its value were when the unroll was played:

    c_pi sum KL(mu(.|h) || pi(.|h)) + c_v sum (V(h) - V_mu(h))^2

Nobody has to tell it where a task ends. V-trace makes use of old data; PPO's clipped surrogate does not, so with PPO
replayed unrolls are cloned only, unless `replay_gradient` asks for V-trace's loss too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.config import AgentConfig
from agents.losses import action_log_probs, entropy, policy_gradient_loss, value_loss
from agents.retention.base import Retention
from agents.retention.store import UnrollStore, offer
from agents.retention.unrolls import row_kinds
from agents.rollout import Batch
from agents.vtrace import vtrace
from common.config import Range
from policies import PolicyConfig, PolicyOutput

if TYPE_CHECKING:
    from agents.learner import Learner

SEQUENCES = (
    *("rgb", "reward_input", "episode_start", "actions", "log_probs", "values", "rewards", "dones", "logits"),
)
"""What of a batch is stored, besides its initial state."""

STORED, FRESH = "stored", "fresh"


@dataclass(frozen=True)
class ClearConfig:
    """Settings of CLEAR.

    Attributes:
        replay_steps: clear: environment steps that are stored; each unroll ever made is among them with equal
            probability.
        replay_gb: clear: stop storing more at so many gigabytes (1e9 bytes); none for no such limit.
        replay_ratio: clear: replayed steps for each fresh one.
        replay_state: clear: what a recurrent policy begins a replayed unroll with: stored (its state when the unroll
            was played), fresh (an empty one), or a number of steps that are only for warming up the stored state.
        replay_gradient: clear: whether replayed steps are learned from, or only cloned; none for the former with
            IMPALA and APPO, and the latter with PPO.
        clear_policy_cost: clear: weight of staying close to the policy that acted.
        clear_value_cost: clear: weight of staying close to its value.
    """

    replay_steps: Annotated[int, Range(1, 10**10)] = 200_000
    replay_gb: Annotated[float | None, Range(0, open_low=True)] = None
    replay_ratio: Annotated[float, Range(0, 100)] = 1.0
    replay_state: str = STORED
    replay_gradient: bool | None = None
    clear_policy_cost: Annotated[float, Range(0)] = 0.01
    clear_value_cost: Annotated[float, Range(0)] = 0.005

    def contradictions(self) -> list[str]:
        """What is wrong with the state that replayed unrolls begin with."""
        if self.replay_state in (STORED, FRESH) or self.replay_state.isdecimal():
            return []
        return [f"retain.replay_state is {self.replay_state!r}: give {STORED}, {FRESH} or a number of steps"]


def warm_up_steps(config: ClearConfig) -> int:
    """Steps of a replayed unroll that are only for warming up the state."""
    return int(config.replay_state) if config.replay_state.isdecimal() else 0


def capacity(config: ClearConfig, rollout_steps: int, row_bytes: int) -> int:
    """How many unrolls of so many steps and bytes are stored."""
    unrolls = config.replay_steps // rollout_steps
    if config.replay_gb is not None:
        unrolls = min(unrolls, int(config.replay_gb * 1e9) // row_bytes)
    return max(1, unrolls)


class Clear(Retention):
    """Replays stored unrolls at every update, as soon as there are any."""

    name = "clear"
    config_class = ClearConfig
    inert: ClassVar[dict[str, Any]] = {"replay_ratio": 0.0}
    keeps_files = True

    def problems(self, policy: PolicyConfig, agent: AgentConfig) -> list[str]:
        found = super().problems(policy, agent)
        if (warm_up := warm_up_steps(self.config)) >= agent.rollout_steps:
            found.append(
                f"retain.replay_state takes {warm_up} steps of unrolls that have {agent.rollout_steps}: give fewer"
            )
        return found

    def attach(self, learner: Learner) -> None:
        self.learner, config = learner, self.config
        self._length = learner.config.rollout_steps
        self._warm_up = warm_up_steps(config)
        self.store = UnrollStore(partial(capacity, config, self._length), learner.replaying)
        self._fresh_steps = 0

    def use_directory(self, directory: Path) -> None:
        self.store.use_directory(directory)

    def prune(self, kept: Mapping[Path, Mapping[str, Any]]) -> None:
        self.store.prune(kept)

    def saving_problems(self) -> list[str]:
        return self.store.saving_problems()

    def terms(self, batch: Any, output: PolicyOutput) -> dict[str, Tensor]:
        self._fresh_steps = batch.actions.numel()
        return {}

    def replay(self, scale: float) -> dict[str, Tensor]:
        count = round(self.config.replay_ratio * self._fresh_steps / self._length)
        if self.config.replay_ratio == 0.0 or len(self.store) == 0:
            return {}
        sequences, state = self.store.sample(max(1, count), self.learner.policy.device)
        batch = Batch(**sequences, initial_state=state, final_state={}, states={})
        return self.learn_from(batch, scale)

    def learn_from(self, batch: Batch, scale: float) -> dict[str, Tensor]:
        """Add the gradient of the loss on these unrolls; returns what to log."""
        batch = self._started(batch)
        output = self.learner.policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
        assert batch.logits is not None
        policy_cloning, value_cloning = cloning(output, batch.logits, batch.values)
        config = self.config
        loss = config.clear_policy_cost * policy_cloning + config.clear_value_cost * value_cloning
        if self._follows_reward:
            loss = loss + self._vtrace_loss(output, batch)
        # As many times a mean as there are steps, measured by the scale of the fresh ones.
        weight = scale * batch.actions.numel() / self._fresh_steps
        (weight * loss).backward()
        return {
            "clear_policy_cloning": policy_cloning.detach(),
            "clear_value_cloning": value_cloning.detach(),
        }

    def _started(self, batch: Batch) -> Batch:
        """The unrolls with the state that they are to begin with."""
        policy, state = self.learner.policy, self.config.replay_state
        if state == FRESH:
            return replace(batch, initial_state=policy.restarted(batch.initial_state))
        if not self._warm_up:
            return batch
        first = slice(None, self._warm_up)
        with torch.no_grad():
            output = policy(
                batch.rgb[first], batch.reward_input[first], batch.initial_state, batch.episode_start[first]
            )
        return without_steps(batch, self._warm_up, output.state)

    @property
    def _follows_reward(self) -> bool:
        asked: bool | None = self.config.replay_gradient
        return hasattr(self.learner.config, "rho_clip") if asked is None else asked

    def _vtrace_loss(self, output: PolicyOutput, batch: Batch) -> Tensor:
        """IMPALA's loss, a mean per step."""
        config: Any = self.learner.config
        logits, values, bootstrap = output.logits[:-1], output.value[:-1], output.value[-1]
        log_probs = action_log_probs(logits, batch.actions)
        estimates = vtrace(
            batch.log_probs,
            log_probs,
            batch.rewards,
            config.discount * (~batch.dones).to(values.dtype),
            values,
            bootstrap,
            getattr(config, "rho_clip", 1.0),
            getattr(config, "c_clip", 1.0),
            getattr(config, "trace_lambda", 1.0),
        )
        policy_loss = policy_gradient_loss(log_probs, estimates.weighted_advantages).mean()
        critic_loss = value_loss(values, estimates.targets).mean()
        loss: Tensor = policy_loss + config.value_cost * critic_loss
        bonus: Tensor = config.entropy_cost * entropy(logits).mean()
        return loss - bonus

    def commit(self, rollout: Batch) -> None:
        if self.config.replay_ratio > 0.0:
            offer(self.store, {name: getattr(rollout, name) for name in SEQUENCES}, rollout.initial_state)

    def state(self) -> dict[str, Any]:
        return self.store.state()

    def load_state(self, state: dict[str, Any]) -> None:
        policy, steps = self.learner.policy, self._length
        shapes = {
            "rgb": (steps + 1, *policy.encoder.image_shape),
            "reward_input": (steps + 1, 1),
            "episode_start": (steps + 1,),
            "logits": (steps, policy.num_actions),
        }
        whole = ("rgb", "episode_start", "actions", "dones")
        kinds = {name: (shapes.get(name, (steps,)), name not in whole) for name in SEQUENCES}
        self.store.load_state(state, row_kinds(kinds, policy))


def cloning(output: PolicyOutput, logits: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """KL(mu || pi) and the squared error of the value, means over steps, with what was said of them in acting.

    `output` may have an observation more.
    """
    acted, now = F.log_softmax(logits, -1), F.log_softmax(output.logits[: len(logits)], -1)
    divergence = (acted.exp() * (acted - now)).sum(-1).mean()
    return divergence, (output.value[: len(values)] - values).square().mean()


def without_steps(batch: Batch, count: int, state: dict[str, Tensor]) -> Batch:
    """Unrolls without their first `count` steps, after which the policy is in `state`."""
    cut: dict[str, Any] = {
        name: value[count:] for name, value in vars(batch).items() if isinstance(value, Tensor)
    }
    return replace(batch, **cut, initial_state=state)
