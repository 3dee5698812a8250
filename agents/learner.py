"""The learner: a policy, its optimizer, and every step that changes them."""

from __future__ import annotations

import logging
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from agents.config import AgentConfig
from agents.exchange import Exchange
from agents.numerics import NotFinite, StateWatch, causes, finite, optimizer_tensors, write_bundle
from agents.retention import Retention
from agents.rollout import Batch, Sequences
from common.config import plain
from policies import Policy, PolicyOutput, State, scale_steps

Metrics = dict[str, float]
Unrolls = TypeVar("Unrolls", Batch, Sequences)

MAX_SKIPS = 10
"""Rollouts in a row without an update, after which a run that skips stops nevertheless."""

logger = logging.getLogger(__name__)


class Interrupted(Exception):  # noqa: N818  (nothing went wrong)
    """The phase of learning was broken off on request."""


class Losses(NamedTuple):
    """What an algorithm makes of one batch.

    Attributes:
        total: the loss whose gradient is followed.
        metrics: scalars to log, without gradient; on the policy's device, so that nothing waits for it.
        output: what the policy said about the batch.
    """

    total: Tensor
    metrics: dict[str, Tensor]
    output: PolicyOutput


class Update(NamedTuple):
    """What one step of the optimizer is logged with: scalars, and the `loss_scale` that they count with."""

    metrics: dict[str, Tensor]
    scale: float


class Learner(ABC):
    """Learns from rollouts. An algorithm says how a rollout is cut into batches, and what the loss of a batch is.

    Attributes:
        policy: the weights that learn.
        optimizer: follows the gradient.
        updates: steps of the optimizer so far.
        skipped: phases of learning that were undone because a number was not finite.
        retention: the method of continual learning.
        exchange: what processes that share the run tell one another.
        stop_asked: asked often while learning; once it says yes, `learn` raises `Interrupted`.
        diagnostics: directory for what numbers that are not finite can be understood from; None writes nothing.
    """

    def __init__(
        self,
        policy: Policy,
        config: AgentConfig,
        shuffling: torch.Generator,
        retention: Retention | None = None,
        exchange: Exchange | None = None,
        replaying: torch.Generator | None = None,
    ) -> None:
        """`shuffling` draws the order of batches and `replaying` what `retention` draws, both on the CPU."""
        self.policy = policy
        self.config = config
        self.shuffling = shuffling
        self.replaying = torch.Generator() if replaying is None else replaying
        self.optimizer = self.make_optimizer()
        scale_steps(self.optimizer, policy)
        self.retention = Retention() if retention is None else retention
        self.exchange = Exchange() if exchange is None else exchange
        self.updates = self.skipped = self._skipped_in_a_row = 0
        self.stop_asked: Callable[[], bool] = lambda: False
        self.diagnostics: Path | None = None
        self._state_watch = StateWatch()
        self._before: dict[str, Any] | None = None
        self.retention.attach(self)

    @abstractmethod
    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of a fresh policy."""

    @abstractmethod
    def batches(self, rollout: Batch) -> Iterator[Any]:
        """What the updates of one phase of learning learn from, one after the other: records of tensors."""

    @abstractmethod
    def losses(self, batch: Any) -> Losses:
        """The loss of one of `batches`."""

    def loss_scale(self, batch: Any) -> float:
        """What a mean per step of `batch` must be multiplied by to have the scale of this algorithm's loss.

        The losses of processes that share a batch add up to that of the whole. This is the scale of a mean over the
        whole batch, of which all processes have equal parts; an algorithm that sums overrides it.
        """
        return 1.0 / self.exchange.size

    def dealt(self, count: int, parts: int) -> Iterator[Tensor]:
        """The numbers below `count` in an order drawn anew, dealt into `parts` of sizes as equal as possible.

        Every process deals what it has, and draws the orders of the others, too, so that all draw alike. Larger parts
        come at other places in each, so that the whole batches are as equal as can be.
        """
        orders = [torch.randperm(count, generator=self.shuffling) for _ in range(self.exchange.size)]
        size, rest = divmod(count, parts)
        first = self.exchange.rank * rest
        sizes = [size + ((part - first) % parts < rest) for part in range(parts)]
        yield from orders[self.exchange.rank].split(sizes)

    def passes(self, unrolls: Unrolls, number: int, parts: int) -> Iterator[Unrolls]:
        """All unrolls so many times, in an order drawn anew, dealt into so many equal batches."""
        actions = unrolls.actions
        for _ in range(number):
            for chosen in self.dealt(actions.shape[1], parts):
                yield unrolls.select(chosen.to(actions.device))

    def mixed(self, sequences: Sequences, states: State) -> Sequences:
        """What minibatches are drawn from: unrolls that begin with `states` (`Batch.states`), or, for a policy without
        memory, single steps."""
        if not self.policy.is_recurrent:
            return sequences.one_step_each()
        return sequences.in_unrolls(states, self.config.unrolls) if self.config.unrolls > 1 else sequences

    # A phase of learning

    def learn(self, rollout: Batch, step: int) -> Metrics | None:
        """Learn from a rollout of every environment; a phase that does not succeed is undone.

        Args:
            rollout: fresh data.
            step: environment steps so far, for messages.

        Returns:
            What to log, means over the updates; None if the phase was skipped, since numbers were not finite.

        Raises:
            NotFinite: numbers are not finite, and `on_nan` is "stop" or skipping did not help.
            Interrupted: `stop_asked` said yes.
        """
        self._before = self._snapshot()
        self.policy.train()
        try:
            metrics = self._learn(rollout)
            self._skipped_in_a_row = 0
            return metrics
        except NotFinite as fault:
            try:
                self._report(fault, step)
            finally:
                self._undo()
            return None
        except BaseException:
            self._undo()
            raise
        finally:
            self._before = None

    def _learn(self, rollout: Batch) -> Metrics:
        own = self._state_watch.check(rollout.final_state)
        if names := [name for found in self.exchange.gather(own) for name in found]:
            raise NotFinite(list(dict.fromkeys(names)), rollout if own else None)
        rollout = self.retention.prepare(rollout)
        updates = [self._update(batch) for batch in self.batches(rollout)]
        # One reading for the whole phase: each would wait for a GPU.
        tags = list(updates[0].metrics)
        table = torch.stack(
            [torch.stack([update.metrics[tag].double() for tag in tags]) for update in updates]
        )
        table = self.exchange.mean(table, table.new_tensor([update.scale for update in updates]))
        means = dict(zip(tags, table.mean(0).tolist(), strict=True))
        if not table[:, tags.index("loss")].isfinite().all():
            raise NotFinite(["the loss"], rollout)
        if not finite([*self.policy.parameters(), *optimizer_tensors(self.optimizer)]):
            raise NotFinite([*causes(self.policy, None, None), "the optimizer's state"])
        self.retention.commit(rollout)
        return means

    def _update(self, batch: Any) -> Update:
        """One step of the optimizer."""
        losses, scale = self.losses(batch), self.loss_scale(batch)
        terms = self.retention.terms(batch, losses.output)
        total = losses.total + scale * sum(terms.values()) if terms else losses.total
        self._stop_point()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        said = self.retention.replay(scale)
        self.exchange.sum_gradients(self.policy.parameters())
        whole = self.exchange.total(scale)
        self.retention.see_gradients(whole)
        said = said | self.retention.add_gradients(whole)
        self._stop_point()
        blocks = {name: block.norm() for name, block in self.policy.gradient_blocks().items()}
        norm = self._clip(total, batch)
        self.optimizer.step()
        self.retention.after_step()
        self.updates += 1
        metrics = {
            "loss": total.detach() / scale,
            **{tag: value.detach() for tag, value in (losses.metrics | terms | said).items()},
            "grad_norm": norm,
            **{f"grad_norm/{name}": of_block for name, of_block in blocks.items()},
        }
        return Update(metrics, scale)

    def _clip(self, loss: Tensor, batch: Any) -> Tensor:
        """Scale the gradient down to `max_grad_norm`; returns its norm before that."""
        try:
            return torch.nn.utils.clip_grad_norm_(
                self.policy.parameters(), self.config.max_grad_norm, error_if_nonfinite=True
            )
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            # Clipping has not spoilt the gradients yet, so those that are to blame can be named.
            found = self.exchange.gather(causes(self.policy, loss, batch))
            guilty = max(range(self.exchange.size), key=lambda rank: len(found[rank]))
            names = found[guilty] or ["the gradient's norm"]
            # Gradients were summed, so all processes have lost theirs; the batch of one of them is to blame.
            raise NotFinite(names, batch if guilty == self.exchange.rank else None) from error

    def _stop_point(self) -> None:
        if self.exchange.any(self.stop_asked()):
            raise Interrupted

    def _report(self, fault: NotFinite, step: int) -> None:
        """Write down what happened and go on without the update, or raise `NotFinite`, as configured."""
        self.skipped += 1
        self._skipped_in_a_row += 1
        bundle = self._bundle(fault, step)
        message = f"{fault} (at {step:,} steps, update {self.updates + 1}); the update was undone" + (
            f"; see {bundle}" if bundle else ""
        )
        if self.config.on_nan == "stop":
            raise NotFinite(fault.names, fault.batch, message) from fault
        if self._skipped_in_a_row >= MAX_SKIPS:
            message = f"{message}; so were {MAX_SKIPS} in a row: going on makes no sense"
            raise NotFinite(fault.names, fault.batch, message) from fault
        logger.warning("warning: %s; going on without it (on_nan is skip)", message)

    def _bundle(self, fault: NotFinite, step: int) -> str | None:
        """Where the first process that has the batch in question has stored what is needed to understand it."""
        holders = self.exchange.gather(fault.batch is not None)
        holder = holders.index(True) if True in holders else 0
        bundle = None
        if self.diagnostics is not None and self.exchange.rank == holder:
            config = {"config": asdict(self.config), "policy_config": plain(self.policy.config)}
            weights = {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()}
            content = {**config, **weights, "updates": self.updates}
            bundle = write_bundle(self.diagnostics, step, fault, content)
        places: list[str | None] = self.exchange.gather(None if bundle is None else str(bundle))
        return places[holder]

    # State

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of the learner; in the middle of a phase of learning, what was before it."""
        if self._before is None:
            return self._state()
        retention = {**self.retention.state(), **self._before["retention"]}
        return {**self._before, "skipped": self.skipped, "retention": retention}

    def digest(self) -> int:
        """A checksum of the weights, for processes that must have the same."""
        found = 0
        for parameter in self.policy.parameters():
            found = zlib.crc32(parameter.detach().cpu().contiguous().numpy().tobytes(), found)
        return found

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, which may have come from a file."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(_as_saved(state["optimizer"], self.optimizer))
        self.shuffling.set_state(state["shuffling"])
        if "replaying" in state:
            self.replaying.set_state(state["replaying"])
        self.updates, self.skipped = int(state["updates"]), int(state["skipped"])
        self.retention.load_state(state["retention"])

    def _state(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "shuffling": self.shuffling.get_state(),
            "replaying": self.replaying.get_state(),
            "updates": self.updates,
            "skipped": self.skipped,
            "retention": self.retention.state(),
        }

    def _snapshot(self) -> dict[str, Any]:
        state = self._state()
        retention = self.retention.snapshot()
        weights = {name: tensor.detach().clone() for name, tensor in state["policy"].items()}
        return {**state, "policy": weights, "optimizer": deepcopy(state["optimizer"]), "retention": retention}

    def _undo(self) -> None:
        self.load_state(self.state())


def _as_saved(stored: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Undo what a file does to the state of `optimizer`: to the numbers that are its keys, and to memory formats.

    Its settings (`param_groups`) are those of the configuration, not those in the file.

    Raises:
        ValueError: it is the state of another optimizer, or of other parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = _state_names(optimizer)

    def like_parameter(number: int, name: str, value: Any) -> Tensor:
        parameter = parameters[number]
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        if name != "step" or torch.as_tensor(value).numel() != 1:
            raise ValueError(f"its optimizer keeps a {name!r} of another shape than the weights")
        return torch.as_tensor(value)

    state = {}
    for number, values in ((int(number), values) for number, values in stored["state"].items()):
        if values.keys() != names or not 0 <= number < len(parameters):
            raise ValueError("its optimizer is of another kind or of other weights")
        state[number] = {name: like_parameter(number, name, value) for name, value in values.items()}
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def _state_names(optimizer: torch.optim.Optimizer) -> set[str]:
    """What `optimizer` keeps for each parameter once it has made a step."""
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    other = type(optimizer)([parameter], **optimizer.defaults)
    other.step()
    return set(other.state[parameter])
