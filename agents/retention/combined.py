"""Several methods at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from agents.config import AgentConfig
from agents.retention.base import Retention, Rollouts
from agents.rollout import Batch
from policies import PolicyConfig, PolicyOutput

if TYPE_CHECKING:
    from agents.learner import Learner

SEPARATOR = "+"
"""Between the names of methods that are used together."""


class Combined(Retention):
    """Methods that are called one after the other, in the order in which they were named."""

    def __init__(self, methods: Sequence[Retention]) -> None:
        super().__init__(methods[0].config)
        self.methods = tuple(methods)
        self.name = SEPARATOR.join(method.name for method in methods)
        self.needs_boundaries = any(method.needs_boundaries for method in methods)
        self.keeps_files = any(method.keeps_files for method in methods)
        self.needs_identity = any(method.needs_identity for method in methods)

    @property
    def fits_processes(self) -> bool:
        """Whether all of them do."""
        return all(method.fits_processes for method in self.methods)

    def problems(self, policy: PolicyConfig, agent: AgentConfig) -> list[str]:
        return [problem for method in self.methods for problem in method.problems(policy, agent)]

    def policy_config(self, config: PolicyConfig, seed: int) -> PolicyConfig:
        for method in self.methods:
            config = method.policy_config(config, seed)
        return config

    def attach(self, learner: Learner) -> None:
        for method in self.methods:
            method.attach(learner)

    def use_directory(self, directory: Path) -> None:
        for method in self.methods:
            method.use_directory(directory / method.name)

    def prune(self, kept: Mapping[Path, Mapping[str, Any]]) -> None:
        for method in self.methods:
            method.prune({path: self._part(method, state) for path, state in kept.items()})

    def saving_problems(self) -> list[str]:
        return [problem for method in self.methods for problem in method.saving_problems()]

    def begin_task(self, task: int) -> None:
        for method in self.methods:
            method.begin_task(task)

    def end_task(self, task: int, rollouts: Rollouts) -> None:
        for method in self.methods:
            if method.needs_boundaries:
                method.end_task(task, rollouts)

    def prepare(self, rollout: Batch) -> Batch:
        for method in self.methods:
            rollout = method.prepare(rollout)
        return rollout

    def terms(self, batch: Any, output: PolicyOutput) -> dict[str, Tensor]:
        return {tag: term for method in self.methods for tag, term in method.terms(batch, output).items()}

    def replay(self, scale: float) -> dict[str, Tensor]:
        return {tag: value for method in self.methods for tag, value in method.replay(scale).items()}

    def see_gradients(self, scale: float) -> None:
        for method in self.methods:
            method.see_gradients(scale)

    def add_gradients(self, scale: float) -> dict[str, Tensor]:
        return {tag: value for method in self.methods for tag, value in method.add_gradients(scale).items()}

    def after_step(self) -> None:
        for method in self.methods:
            method.after_step()

    def commit(self, rollout: Batch) -> None:
        for method in self.methods:
            method.commit(rollout)

    # The states of all methods in one flat dictionary, so that a snapshot's entries replace those of the state.

    @staticmethod
    def _part(method: Retention, state: Mapping[str, Any]) -> dict[str, Any]:
        prefix = f"{method.name}/"
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    def state(self) -> dict[str, Any]:
        return {f"{m.name}/{key}": value for m in self.methods for key, value in m.state().items()}

    def load_state(self, state: dict[str, Any]) -> None:
        for method in self.methods:
            method.load_state(self._part(method, state))

    def snapshot(self) -> dict[str, Any]:
        return {f"{m.name}/{key}": value for m in self.methods for key, value in m.snapshot().items()}
