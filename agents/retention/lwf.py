"""Learning without forgetting (Li and Hoiem 2017, arXiv 1606.09282): distillation on the new task's own data.

The teacher is the policy as it was when the last task was left. While task k is trained,

    L_task + (k - 1) [tau^2 KL(pi_old^(1/tau) || pi^(1/tau)) + c_V / 2 (V_old - V)^2]

averaged over the heads of earlier tasks, on the new task's frames: the published weights 1/k and 1 - 1/k, times k,
which optimizers that divide by the size of gradients do not notice. With heads that all tasks share, there are none of
earlier tasks: the term then pulls the new policy towards the old one ("kickstart" in reports), which mostly costs
plasticity.

The teacher sees the same stream as the policy and carries its own state along it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.retention.base import ConsolidationConfig, Rollouts
from agents.retention.consolidation import Consolidating
from agents.retention.stored import load_weights, read_state
from agents.rollout import Batch, select
from agents.schema import Items, Whole
from common.config import Range
from policies import PER_TASK, Policy, PolicyOutput, State

if TYPE_CHECKING:
    from agents.learner import Learner

GROUP = 16
"""Unrolls that the teacher looks at together: images take much memory."""
TASK_NUMBER = Whole(0, 10**6)
TASK_NUMBERS = Items(TASK_NUMBER, 10**6)
"""What a checkpoint holds of tasks."""


@dataclass(frozen=True)
class LwfConfig(ConsolidationConfig):
    """Settings of learning without forgetting.

    Attributes:
        lwf_strength: lwf: weight of the distillation, on top of the published one.
        lwf_temperature: lwf: of the distributions that are compared.
    """

    lwf_strength: Annotated[float, Range(0)] = 1.0
    lwf_temperature: Annotated[float, Range(0, open_low=True)] = 2.0


class LearningWithoutForgetting(Consolidating):
    """Keeps what the old policy says about the new task's frames."""

    name = "lwf"
    config_class = LwfConfig
    inert: ClassVar[dict[str, Any]] = {"lwf_strength": 0.0}

    def attach(self, learner: Learner) -> None:
        self.learner = learner
        self.teacher: Policy | None = None
        self._state: State | None = None  # the teacher's, where the next rollout begins
        self._following: State | None = None
        self._task, self._left = 0, list[int]()

    def begin_section(self, task: int) -> None:
        self._task, self._state = task, None

    def consolidate(self, task: int, rollouts: Rollouts) -> None:
        if self.config.lwf_strength > 0.0:
            self.teacher, self._state = frozen_copy(self.learner.policy), None
            self._left = sorted({*self._left, task})

    @property
    def _heads(self) -> list[int]:
        """The tasks whose heads are held; with shared heads, there is one for all."""
        if self.learner.policy.config.tasks.heads != PER_TASK:
            return [0]
        return [task for task in self._left if task != self._task]

    def prepare(self, rollout: Batch) -> Batch:
        if self.teacher is None or not self._heads:
            return rollout
        state = self._state
        if state is None or any(len(tensor) != rollout.actions.shape[1] for tensor in state.values()):
            state = self.teacher.restarted(
                rollout.initial_state
            )  # of a task, or of environments, that are new
        targets, self._following = self.taught(self.teacher, rollout, state)
        return replace(rollout, targets=targets)

    @torch.no_grad()
    def taught(self, teacher: Policy, rollout: Batch, state: State) -> tuple[Tensor, State]:
        """What the teacher says at each step, (T, B, heads, A + 1), and its state where the rollout ends."""
        seen = replace(rollout, initial_state=state, final_state={}, targets=None)
        targets, states = [], []
        for envs in torch.arange(rollout.actions.shape[1], device=rollout.actions.device).split(GROUP):
            part = select(seen, envs)
            output = teacher(
                part.rgb[:-1], part.reward_input[:-1], part.initial_state, part.episode_start[:-1]
            )
            heads = self._said(teacher, output, len(part.actions))
            targets.append(torch.stack([torch.cat([lo, v.unsqueeze(-1)], -1) for lo, v in heads], 2))
            states.append(output.state)
        names = states[0].keys()
        return torch.cat(targets, 1), {name: torch.cat([part[name] for part in states]) for name in names}

    def _said(self, policy: Policy, output: PolicyOutput, steps: int) -> list[tuple[Tensor, Tensor]]:
        """Logits and values of each held head, at the first `steps` steps."""
        if policy.config.tasks.heads != PER_TASK:
            return [(output.logits[:steps], output.value[:steps])]
        assert output.hidden is not None
        hidden = output.hidden[:steps]
        streams = torch.ones(hidden.shape[1], dtype=torch.int64, device=hidden.device)
        return [policy.heads(hidden, task * streams) for task in self._heads]

    def terms(self, batch: Any, output: PolicyOutput) -> dict[str, Tensor]:
        if batch.targets is None:
            return {}
        said = self._said(self.learner.policy, output, len(batch.actions))
        parts = [
            distillation(old[..., :-1], old[..., -1], *new, self.config.lwf_temperature, self._value_cost)
            for old, new in zip(batch.targets.unbind(2), said, strict=True)
        ]
        weight = self.config.lwf_strength * (len({*self._left, self._task}) - 1)
        return {"lwf_distillation": weight * torch.stack(parts).mean()}

    @property
    def _value_cost(self) -> float:
        return self.learner.config.value_cost

    def commit(self, rollout: Batch) -> None:
        self._state, self._following = self._following, None
        super().commit(rollout)

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "task": self._task,
            "left": self._left,
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "teacher_state": self._state,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        TASK_NUMBER.check(state["task"], "task")
        TASK_NUMBERS.check(state["left"], "tasks that were left")
        self._task, self._left = state["task"], list(state["left"])
        self.teacher = self._state = None
        if state["teacher"] is not None:
            self.teacher = frozen_copy(self.learner.policy)
            load_weights(self.teacher, state["teacher"], "the teacher")
        if state["teacher_state"] is not None:
            self._state = read_state(self.learner.policy, state["teacher_state"], "the teacher's state")


def frozen_copy(policy: Policy) -> Policy:
    """A copy that does not learn."""
    copy = deepcopy(policy).requires_grad_(False)
    copy.zero_grad(set_to_none=True)
    return copy


def distillation(
    old_logits: Tensor,
    old_value: Tensor,
    logits: Tensor,
    value: Tensor,
    temperature: float,
    value_cost: float,
) -> Tensor:
    """tau^2 KL(old^(1/tau) || new^(1/tau)) + c_V / 2 (V_old - V)^2, a mean over steps."""
    old = F.log_softmax(old_logits / temperature, -1)
    new = F.log_softmax(logits / temperature, -1)
    divergence = (old.exp() * (old - new)).sum(-1)
    error = (old_value - value).square()
    return (temperature**2 * divergence + 0.5 * value_cost * error).mean()
