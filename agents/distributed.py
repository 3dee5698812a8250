"""Processes that train one policy together, on torch.distributed: NCCL between GPUs, gloo between CPUs.

``torchrun`` starts the processes and says in their environment who they are. What they send one another is what
checkpoints hold, plain values and tensors in the same format: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from agents.checkpoint import read_checkpoint, write_checkpoint
from agents.exchange import Exchange, Result
from agents.place import Place
from common.cli import RUN_FAILED, USER_ERROR
from common.errors import RunError, UserError
from common.stages import stage

LIMIT, NO_LIMIT = timedelta(minutes=30), timedelta(days=365)
"""How long a process waits for the others where nothing is said about it, and where it shall wait for ever."""
GRACE = timedelta(seconds=30)
"""More than was asked for: who hangs says so itself, if it can, before the others give up."""
BEAT_SECONDS = 1.0
LINGER_SECONDS = 5.0
"""For which process 0 stays after an error that the others may have, too."""
ALIVE = "alive"
"""Counts, in the store that all processes see, the signs of life of those that others wait for."""


class ProcessLost(RunError):  # noqa: N818  (a fact)
    """Another process has left, or does not answer."""


@contextmanager
def joined() -> Iterator[Exchange]:
    """Within this context, the exchange with the processes that torchrun has started; alone without it.

    Only process 0 is heard: what others print is lost, and so are their warnings. Errors are not, but what several
    processes would say is said by one.

    Raises:
        UserError: the processes do not find one another.
    """
    place = Place.read()
    if place.size == 1:
        yield Exchange()
        return
    try:
        dist.init_process_group("gloo", timeout=LIMIT)
    except (ValueError, RuntimeError) as error:  # of which torch.distributed's own errors are
        raise UserError(
            f"process {place.rank} of {place.size} could not join the others: {_first_line(error)}"
        ) from error
    with _heard_if_first(place), _saying_once(place):
        yield DistributedExchange(place, LIMIT, dist.group.WORLD)
        # After an error others may not answer any more: the end of the process closes what is open.
        dist.destroy_process_group()


@contextmanager
def _heard_if_first(place: Place) -> Iterator[None]:
    if place.rank == 0:
        yield
        return
    before = sys.stdout
    logging.disable(logging.WARNING)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        sys.stdout = nowhere
        try:
            yield
        finally:
            sys.stdout = before
            logging.disable(logging.NOTSET)


@contextmanager
def _saying_once(place: Place) -> Iterator[None]:
    """An error that another process has raised, too, and says, ends this one without a word."""
    try:
        yield
    except (UserError, RunError, OSError) as error:
        try:
            said = _said_elsewhere(str(error), place)
        except RuntimeError:  # whoever keeps the counters has left
            said = False
        if not said:
            raise
        raise SystemExit(RUN_FAILED if isinstance(error, RunError) else USER_ERROR) from None


def _said_elsewhere(text: str, place: Place) -> bool:
    """Whether another process was the first to ask this about `text`."""
    store, name = _store(), f"said/{hashlib.sha256(text.encode()).hexdigest()}"
    said: bool = store.add(name, 1) > 1
    end = time.monotonic() + LINGER_SECONDS
    # torchrun keeps the counters itself. Without it process 0 does, and leaves last, if the others come soon.
    keeper = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    while keeper and store.add(name, 0) < place.size and time.monotonic() < end:
        time.sleep(0.02)
    return said


_waits = itertools.count()
"""Numbers the calls of `wait_for_all`, which are the same in all processes."""


def _store() -> Any:
    """Counters that all processes see, of this start of them alone."""
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return torch.distributed.distributed_c10d.PrefixStore(
        f"start{start}", dist.distributed_c10d._get_default_store()
    )


class DistributedExchange(Exchange):
    """The exchange of one of several processes.

    Args:
        place: which one.
        limit: how long a call waits for the others.
        group: a gloo group of all of them.
        device_group: an NCCL group, if they learn on GPUs.

    Raises (every collective call):
        ProcessLost: another process has left, or has not answered within the group's time limit.
    """

    def __init__(self, place: Place, limit: timedelta, group: Any, device_group: Any = None) -> None:
        self.place, self.rank, self.size = place, place.rank, place.size
        self._limit, self._group, self._device_group = limit, group, device_group
        self._acting: DistributedExchange | None = None
        self._last_sign = 0.0

    def for_run(self, device: str, wait_minutes: float | None) -> Exchange:
        limit = NO_LIMIT if wait_minutes is None else timedelta(minutes=wait_minutes) + GRACE
        on_gpus = torch.device("cpu" if device == "auto" else device).type == "cuda"
        if on_gpus:
            torch.cuda.set_device(device)
        device_group = self._new_group("nccl", limit) if on_gpus else None
        return DistributedExchange(self.place, limit, self._new_group("gloo", limit), device_group)

    def for_acting(self) -> Exchange:
        if self._acting is None:
            group = self._new_group("gloo", self._limit)
            self._acting = DistributedExchange(self.place, self._limit, group)
        return self._acting

    def _new_group(self, backend: str, limit: timedelta) -> Any:
        with self._waiting("connections"):
            return dist.new_group(backend=backend, timeout=limit)

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        try:
            with stage(f"waiting for other processes' {what}"):
                yield
        except RuntimeError as error:
            raise ProcessLost(
                f"another of the {self.size} processes has left or hangs (this one waited for its {what})"
            ) from error

    def _group_of(self, tensor: Tensor) -> Any:
        return self._group if tensor.device.type == "cpu" else self._device_group

    # Tensors

    def sum(self, tensor: Tensor) -> Tensor:
        with self._waiting("part of a sum"):
            dist.all_reduce(tensor, group=self._group_of(tensor))
        return tensor

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        with self._waiting("first weights"):
            for tensor in tensors:
                if tensor.numel():
                    packed = tensor.contiguous()
                    dist.broadcast(packed, 0, group=self._group_of(tensor))
                    tensor.copy_(packed)

    # Plain values

    def gather(self, value: Any) -> list[Any]:
        return [_unpacked(data) for data in self._all_bytes(_packed(value))]

    def gather_first(self, value: Any) -> list[Any] | None:
        mine = _packed(None if self.is_first else value)
        lengths = self._lengths(mine)
        with self._waiting("state"):
            if not self.is_first:
                dist.send(mine, 0, group=self._group)
                return None
            parts = [torch.empty(length, dtype=torch.uint8) for length in lengths[1:]]
            for rank, data in enumerate(parts, 1):
                dist.recv(data, rank, group=self._group)
        return [value, *(_unpacked(data) for data in parts)]

    def _lengths(self, data: Tensor) -> list[int]:
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = data.numel()
        return [int(length) for length in self.sum(lengths)]

    def _all_bytes(self, mine: Tensor) -> list[Tensor]:
        lengths = self._lengths(mine)
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(mine)] = mine
        found = [torch.empty_like(padded) for _ in range(self.size)]
        with self._waiting("state"):
            dist.all_gather(found, padded, group=self._group)
        return [data[:length] for data, length in zip(found, lengths, strict=True)]

    def _from_first(self, value: Any) -> Any:
        """`value` of process 0."""
        data = _packed(value) if self.is_first else torch.empty(0, dtype=torch.uint8)
        length = self._lengths(data)[0]
        if not self.is_first:
            data = torch.empty(length, dtype=torch.uint8)
        with self._waiting("decision"):
            dist.broadcast(data, 0, group=self._group)
        return _unpacked(data)

    # Deeds

    def on_first(self, action: Callable[[], Result]) -> Result:
        if not self.is_first:
            result, error = self._from_first(None)
            if error is not None:
                raise _revived(error)
            return result  # type: ignore[no-any-return]
        try:
            found = action()
        except Exception as failure:
            self._from_first([None, _described(failure)])
            raise
        self._from_first([found, None])
        return found

    def together(self, action: Callable[[], Result]) -> Result:
        failure: BaseException | None = None
        try:
            found = action()
        except (Exception, SystemExit) as error:
            failure = error
        said = self.gather(None if failure is None else _described(failure))
        guilty = next((rank for rank, error in enumerate(said) if error is not None), None)
        if guilty is None:
            return found
        if guilty == self.rank:
            assert failure is not None
            raise failure
        raise _revived(said[guilty])

    def wait_for_all(self, value: Any, beat: Callable[[], None] = lambda: None) -> list[Any]:
        store, name, limit = _store(), f"wait{next(_waits)}", self._limit.total_seconds()
        with self._waiting("share of the work"):
            store.add(name, 1)
            signs, since = -1, time.monotonic()
            while store.add(name, 0) < self.size:
                beat()
                time.sleep(BEAT_SECONDS)
                before, signs = signs, store.add(ALIVE, 0)
                if signs != before:
                    since = time.monotonic()
                elif time.monotonic() - since > limit:
                    raise RuntimeError("no sign of life")
        return self.gather(value)

    def sign_of_life(self) -> None:
        now = time.monotonic()
        if now - self._last_sign >= BEAT_SECONDS:
            self._last_sign = now
            with self._waiting("sign of life"):
                _store().add(ALIVE, 1)


# Values as bytes, and errors as values


def _packed(value: Any) -> Tensor:
    file = io.BytesIO()
    write_checkpoint(file, {"value": value})
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def _unpacked(data: Tensor) -> Any:
    return read_checkpoint(io.BytesIO(data.numpy().tobytes()))["value"]


def _described(error: BaseException) -> list[Any]:
    if isinstance(error, SystemExit):
        return ["SystemExit", error.code]
    if isinstance(error, OSError):
        return ["OSError", error.errno, error.strerror or str(error), error.filename and str(error.filename)]
    if isinstance(error, (UserError, RunError)):
        return ["UserError" if isinstance(error, UserError) else "RunError", str(error)]
    return ["RunError", f"another process failed: {_first_line(error)}"]


def _revived(said: list[Any]) -> BaseException:
    """What another process has raised."""
    kind, *arguments = said
    kinds = {"SystemExit": SystemExit, "OSError": OSError, "UserError": UserError, "RunError": RunError}
    return kinds[kind](*arguments)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
