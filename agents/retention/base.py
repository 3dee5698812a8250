"""The seam at which a method can change what a learner learns: loss terms, gradients, extra batches, state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from agents.rollout import Batch
from policies import PolicyOutput

if TYPE_CHECKING:
    from agents.learner import Learner


class Retention:
    """What keeps a policy from forgetting; this one does nothing (fine-tuning).

    The learner calls, for each rollout: `prepare`; for each update: `terms`, `replay`, `add_gradients`, `after_step`;
    and, once the whole phase of learning has succeeded, `commit`. A phase that is broken off, or whose numbers are
    not finite, is undone: what a method changes before `commit` belongs into `snapshot`.

    Losses of IMPALA are sums over the steps of a batch, those of PPO are means. A method thinks in means per step, and
    is told the factor `scale` that makes them commensurate with the algorithm's loss.

    Where processes share a run (`learner.exchange`), each calls its own method with its part of the data: `terms` and
    `replay` are summed over them, and what `add_gradients` adds afterwards must be the same in all.
    """

    def attach(self, learner: Learner) -> None:
        """Called once, when the learner's policy and optimizer are there."""

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

    def replay(self, scale: float) -> None:
        """Backward passes over extra batches: their gradients add to those of the fresh data."""

    def add_gradients(self, scale: float) -> None:
        """Add to the parameters' gradients what is known in closed form; they are complete and not yet clipped."""

    def after_step(self) -> None:
        """Called after each step of the optimizer."""

    def commit(self, rollout: Batch) -> None:
        """The phase of learning has succeeded. Only here may what is not in `snapshot` change."""

    def state(self) -> dict[str, Any]:
        """Everything that must survive in a checkpoint: plain values and tensors."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""

    def snapshot(self) -> dict[str, Any]:
        """Copies of those entries of `state` that change before `commit`."""
        return {}
