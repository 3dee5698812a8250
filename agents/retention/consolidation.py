"""Methods that look back where a task ends, or every so many steps where nobody says so."""

from __future__ import annotations

from typing import Any

from agents.config import AgentConfig
from agents.retention.base import Retention, Rollouts
from agents.rollout import Batch
from agents.schema import Whole
from policies import PolicyConfig


class Consolidating(Retention):
    """Calls `consolidate` at the end of each section of training, and `begin_section` at the start.

    Sections are the tasks; with `every`, they are so many steps of learning instead.

    Sections that nobody has named are counted from 0; what a consolidation looks at is then the rollout
    just learned from, since no other one can be played.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.needs_boundaries = self.config.every is None
        self._steps = self._section = 0

    def consolidate(self, task: int, rollouts: Rollouts) -> None:
        """Keep what `task`, which ends, will be remembered by."""
        raise NotImplementedError

    def begin_section(self, task: int) -> None:
        """Training goes on with this task."""

    def problems(self, policy: PolicyConfig, agent: AgentConfig) -> list[str]:
        found = super().problems(policy, agent)
        if not self.needs_boundaries and policy.tasks.told:
            found.append("retain.every is for policies that are not told their task: leave it out")
        return found

    def begin_task(self, task: int) -> None:
        if self.needs_boundaries:
            self.begin_section(task)

    def end_task(self, task: int, rollouts: Rollouts) -> None:
        if self.needs_boundaries:
            self.consolidate(task, rollouts)

    def commit(self, rollout: Batch) -> None:
        super().commit(rollout)
        if self.needs_boundaries:
            return
        self._steps += rollout.actions.numel()
        if self._steps >= self.config.every:
            self.consolidate(self._section, lambda count: iter([rollout]))
            self._steps -= self.config.every
            self._section += 1
            self.begin_section(self._section)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "steps": self._steps, "section": self._section}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        for name in ("steps", "section"):
            Whole().check(state[name], name)
        self._steps, self._section = state["steps"], state["section"]
