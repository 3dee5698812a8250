"""Numbers that are not finite: finding them, naming them, writing down what they followed from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.checkpoint import write_checkpoint
from common.errors import RunError
from policies import State

ON_NAN = ("stop", "skip")
MAX_BUNDLES = 5
LARGE = 1e4
"""Elements of a healthy fast weight stay far below this."""

logger = logging.getLogger(__name__)


class NotFinite(RunError):  # noqa: N818  (a fact, as FloatingPointError would be)
    """A loss, gradient, weight or state is infinite or not a number.

    Attributes:
        names: the tensors concerned, those first that the others follow from.
        batch: what was being learned from, a record of tensors.
    """

    def __init__(self, names: list[str], batch: object = None, message: str | None = None) -> None:
        self.names = names
        self.batch = batch
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        super().__init__(message or f"not finite: {', '.join(names[:3])}{more}")


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all elements of `tensors` are finite; waits for the device once."""
    flags = [tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point()]
    return not flags or bool(torch.stack(flags).all())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Everything that `optimizer` remembers."""
    for values in optimizer.state.values():
        yield from (value for value in values.values() if isinstance(value, Tensor))


def named_tensors(record: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a dataclass of tensors and of dictionaries of tensors, with dotted names."""
    if not is_dataclass(record) or isinstance(record, type):
        return
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, Tensor):
            yield f"{prefix}.{item.name}", value
        elif isinstance(value, Mapping):
            for name, tensor in value.items():
                yield f"{prefix}.{item.name}.{name}", tensor


def causes(policy: nn.Module, loss: Tensor | None, batch: object) -> list[str]:
    """Everything that is not finite, what comes from outside first, then weights, loss and gradients."""
    parameters = dict(policy.named_parameters())
    gradients = {f"gradient of {name}": p.grad for name, p in parameters.items() if p.grad is not None}
    tensors: dict[str, Tensor] = {
        **dict(named_tensors(batch, "batch")),
        **{f"weight {name}": parameter.detach() for name, parameter in parameters.items()},
        **({} if loss is None else {"the loss": loss.detach()}),
        **gradients,
    }
    return [name for name, tensor in tensors.items() if not finite([tensor])]


class StateWatch:
    """Looks at the policy's state once per rollout: at its size, and whether it is finite at all."""

    def __init__(self) -> None:
        self._warn_above = LARGE

    def check(self, state: State) -> list[str]:
        """The names of tensors that are not finite; warns each time that one has grown tenfold beyond `LARGE`."""
        watched = {
            name: tensor for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel()
        }
        if not watched:
            return []
        sizes = torch.stack([tensor.abs().max().float() for tensor in watched.values()]).tolist()
        largest = dict(zip(watched, sizes, strict=True))
        bad = [name for name, size in largest.items() if not size < float("inf")]
        for name, size in largest.items():
            if name not in bad and size > self._warn_above:
                while self._warn_above < size:
                    self._warn_above *= 10
                logger.warning("warning: the policy's state is growing: an element of %s is %.3g", name, size)
        return [f"state {name}" for name in bad]


def reset_where_not_finite(state: State, fresh: State) -> State:
    """`state`, where environments (rows of batch-first tensors) that are not finite anywhere get that of `fresh`."""
    bad: Tensor | None = None
    for tensor in state.values():
        if tensor.is_floating_point():
            rows = ~tensor.flatten(1).isfinite().all(1)
            bad = rows if bad is None else bad | rows
    if bad is None or not bool(bad.any()):
        return state
    result = {name: tensor.clone() for name, tensor in state.items()}
    for name, tensor in result.items():
        tensor[bad] = fresh[name][bad].to(tensor.dtype)
    return result


def write_bundle(directory: Path, step: int, fault: NotFinite, content: Mapping[str, Any]) -> Path | None:
    """Store what a fault can be understood from; returns where, or None after saying why not.

    At most `MAX_BUNDLES` in a directory: each holds a whole batch.
    """
    try:
        if len(list(directory.glob("not_finite_*.ckpt"))) >= MAX_BUNDLES:
            return None
        record = dict(named_tensors(fault.batch, "batch"))
        return write_checkpoint(
            directory / f"not_finite_{step:012d}.ckpt",
            {"step": step, "not_finite": fault.names, "batch": record, **content},
        )
    except OSError as error:
        logger.warning("warning: could not write what is needed to understand it: %s", error)
        return None
