"""The seam at which a method can change what a learner learns: loss terms, gradients, extra batches, state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from torch import Tensor

from agents.config import AgentConfig
from agents.rollout import Batch
from common.config import Range
from policies import PolicyConfig, PolicyOutput

if TYPE_CHECKING:
    from agents.learner import Learner

Rollouts = Callable[[int], Iterator[Batch]]
"""`rollouts(n)` plays n rollouts of the task that ends, with frozen weights; each is valid until the next one."""


@dataclass(frozen=True)
class ConsolidationConfig:
    """What all methods that consolidate have in common.

    Attributes:
        every: environment steps between two consolidations where nobody tells the method that the task changes; none
            for one at each change.
        consolidation_rollouts: rollouts that are played at a change of the task, and not learned from, for methods that
            look at the policy's sensitivity.
    """

    every: Annotated[int | None, Range(1)] = None
    consolidation_rollouts: Annotated[int, Range(1, 10_000)] = 8


class Retention:
    """What keeps a policy from forgetting; this one does nothing (fine-tuning).

    The learner calls, for each rollout: `prepare`; for each update: `terms`, `replay`, `see_gradients`,
    `add_gradients`, `after_step`; and, once the whole phase of learning has succeeded, `commit`. A phase that is broken
    off, or whose numbers are not finite, is undone: what a method changes before `commit` belongs into `snapshot`.
    The agent calls `begin_task` and `end_task` where the task changes.

    Losses of IMPALA are sums over the steps of a batch, those of PPO are means. A method thinks in means per step, and
    is told the factor `scale` that makes them commensurate with the algorithm's loss.

    Where processes share a run (`learner.exchange`), each calls its own method with its part of the data: `terms` and
    `replay` are summed over them, and what `see_gradients` sees is the sum; what `add_gradients` adds must be the same
    in all. A method is refused there until it says, with `fits_processes`, that it has been thought about.

    Attributes:
        name: under which it is registered.
        needs_boundaries: whether it must be told where a task ends.
        needs_identity: whether the policy must be told which task it plays.
        keeps_files: whether it keeps more than checkpoints hold.
        config_class: its settings, a base of `RetentionConfig`.
        inert: settings with which it does nothing at all.
        config: its settings, and maybe those of others.
    """

    name: str = "none"
    needs_boundaries: bool = False
    needs_identity: bool = False
    keeps_files: bool = False
    config_class: ClassVar[type] = ConsolidationConfig
    inert: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any = None) -> None:
        """`config` None is for the default settings."""
        self.config = self.config_class() if config is None else config

    def problems(self, policy: PolicyConfig, agent: AgentConfig) -> list[str]:
        """Why it cannot be used with this network and this algorithm, a line each."""
        if self.needs_identity and not policy.tasks.told:
            return [f"retention {self.name} needs a policy that is told its task: use tasks.id told"]
        return []

    @property
    def fits_processes(self) -> bool:
        """Whether it does what it should where several processes share a run."""
        return type(self) is Retention  # a method that is new has to say so

    def process_problems(self, processes: int) -> list[str]:
        """Why it cannot be used where so many processes share the run, a line each."""
        if processes == 1 or self.fits_processes:
            return []
        return [
            f"retention {self.name} is not for runs of several processes: use one process, or retention none"
        ]

    def policy_config(self, config: PolicyConfig, seed: int) -> PolicyConfig:
        """What the method needs of a network that is about to be made with `config`."""
        return config

    def attach(self, learner: Learner) -> None:
        """Called once, when the learner's policy and optimizer are there."""

    def use_directory(self, directory: Path) -> None:
        """From now on, what does not fit into checkpoints may be kept in `directory`, which need not exist."""

    def prune(self, kept: Mapping[Path, Mapping[str, Any]]) -> None:
        """Delete files that neither this agent nor the checkpoints `kept` need (the retention state of each)."""

    def saving_problems(self) -> list[str]:
        """Why its state cannot go into a checkpoint now, a line each."""
        return []

    # Tasks

    def begin_task(self, task: int) -> None:
        """Training goes on with the task of this number, from 0; the first one begins without a call of `end_task`."""

    def end_task(self, task: int, rollouts: Rollouts) -> None:
        """Training on `task` is over, and its environments are still there."""

    # A phase of learning

    def prepare(self, rollout: Batch) -> Batch:
        """The rollout that is learned from; called once, before its first update."""
        return rollout

    def terms(self, batch: Any, output: PolicyOutput) -> dict[str, Tensor]:
        """Loss terms on fresh data, means per step, by name; they are logged.

        Args:
            batch: what one update learns from, as the algorithm cuts it.
            output: what the policy says about it, with gradient.
        """
        return {}

    def replay(self, scale: float) -> dict[str, Tensor]:
        """Backward passes over extra batches: their gradients add to those of the fresh data. Returns what to log."""
        return {}

    def see_gradients(self, scale: float) -> None:
        """Look at the gradients of what is learned from, before any method adds to them."""

    def add_gradients(self, scale: float) -> dict[str, Tensor]:
        """Add to the parameters' gradients what is known in closed form; they are complete and not yet clipped.

        Returns what to log.
        """
        return {}

    def after_step(self) -> None:
        """Called after each step of the optimizer."""

    def commit(self, rollout: Batch) -> None:
        """The phase of learning has succeeded. Only here may what is not in `snapshot` change."""

    # State

    def state(self) -> dict[str, Any]:
        """Everything that must survive in a checkpoint: plain values and tensors."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""

    def snapshot(self) -> dict[str, Any]:
        """Copies of those entries of `state` that change before `commit`."""
        return {}
