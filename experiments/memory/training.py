"""One cell of a table: a core is trained on a task, and looked into meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.memory import readings
from experiments.memory.settings import MAX_SEED, Cell
from experiments.memory.sizes import matched
from experiments.memory.tasks import ANSWERS, FEATURES, TASKS, Batch, Task
from policies import scale_steps
from policies.cores.base import Core
from policies.registry import build_core
from policies.resets import parse_reset

WINDOW = 50
"""Updates that an accuracy is taken over."""
LEVELS = (0.9, 0.95)
"""Accuracies of which it is said when they were reached."""
TEST_STREAMS = 1000
_TEST_SEED = MAX_SEED + 1
"""Added to a cell's seed for the batches that it is tested on at the end."""


@dataclass(frozen=True)
class Window:
    """A stretch of training.

    Attributes:
        update: the last one of it.
        accuracy: share of right answers, on batches that were new then.
        readings: what was seen in the core, by tag ("layer0/shift_norm", "gradient/layer0/beta"), where it is finite.
    """

    update: int = 0
    accuracy: float = 0.0
    readings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came out of a cell.

    Attributes:
        parameters: of the core and its readout.
        windows: training, in stretches of fifty updates; the last one may be shorter.
        reached: first update, by level such as "0.9", at which the last fifty were that accurate; None if never.
        test: accuracy at the end, on new batches of the trained length.
        twice: the same at twice that length.
        seconds: of one processor for training, without the readings and tests.
    """

    parameters: int = 0
    windows: tuple[Window, ...] = ()
    reached: dict[str, int | None] = field(default_factory=dict)
    test: float = 0.0
    twice: float = 0.0
    seconds: float = 0.0


class Network(nn.Module):
    """A core and a linear readout of its outputs."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        core = matched(cell.core, cell.match)
        self.core: Core = build_core(core, FEATURES, parse_reset(cell.reset), cell.bptt_span)
        self.readout = nn.Linear(self.core.output_size, ANSWERS)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (n, 4) of the answers that count, in the order of `batch.target[batch.asked]`."""
        y, _ = self.core(batch.x, self.core.initial_state(batch.x.shape[1]), batch.episode_start)
        logits: Tensor = self.readout(y[batch.asked])
        return logits


def train(cell: Cell, on_window: Callable[[Window], None] = lambda window: None) -> Outcome:
    """Train the core of `cell` from its seed; the same cell gives the same outcome again, but for the seconds.

    `on_window` is called at the end of each stretch of fifty updates.
    """
    task, generator = TASKS[cell.task], torch.Generator().manual_seed(cell.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        network = Network(cell)
    optimizer = cell.make_optimizer(network.parameters())
    scale_steps(optimizer, network.core)
    gradients = readings.GradientNorms(network.core)
    hits, windows, seconds, ended = Hits(), list[Window](), 0.0, False
    while not ended:
        began = time.process_time()
        hits.add(*_update(network, optimizer, task.draw(generator, cell.streams, task.length), cell))
        gradients.add()
        seconds += time.process_time() - began
        ended = hits.updates == cell.updates or hits.reached(cell.stop_at)
        if ended or hits.updates % WINDOW == 0:
            seen = readings.of_core(network.core, _test_batch(task, cell, cell.streams))
            first = windows[-1].update if windows else 0
            seen = {name: value for name, value in {**gradients.means(), **seen}.items() if isfinite(value)}
            windows.append(Window(hits.updates, hits.accuracy(first), seen))
            on_window(windows[-1])
    return Outcome(
        sum(parameter.numel() for parameter in network.parameters()),
        tuple(windows),
        {str(level): hits.first_reached(level) for level in LEVELS},
        _accuracy(network, _test_batch(task, cell, TEST_STREAMS)),
        _accuracy(network, _test_batch(task, cell, TEST_STREAMS, stretch=2)),
        round(seconds, 3),
    )


class Hits:
    """Right answers, and all that counted, of the updates so far."""

    def __init__(self) -> None:
        self._sums = [(0, 0)]

    @property
    def updates(self) -> int:
        """How many updates were counted."""
        return len(self._sums) - 1

    def add(self, right: int, asked: int) -> None:
        """Count an update."""
        before = self._sums[-1]
        self._sums.append((before[0] + right, before[1] + asked))

    def accuracy(self, first: int, last: int | None = None) -> float:
        """The share of right answers after `first` updates, until update `last`; None for the latest."""
        start, end = self._sums[first], self._sums[self.updates if last is None else last]
        return (end[0] - start[0]) / (end[1] - start[1])

    def reached(self, level: float | None) -> bool:
        """Whether the last fifty updates were at least so accurate; never for None."""
        return level is not None and self.updates >= WINDOW and self.accuracy(self.updates - WINDOW) >= level

    def first_reached(self, level: float) -> int | None:
        """The first update after which the last fifty were at least so accurate; None if there was none."""
        ends = range(WINDOW, self.updates + 1)
        return next((end for end in ends if self.accuracy(end - WINDOW, end) >= level), None)


def _update(network: Network, optimizer: torch.optim.Optimizer, batch: Batch, cell: Cell) -> tuple[int, int]:
    """One gradient step; returns the right answers, and all that counted."""
    logits, target = network(batch), batch.target[batch.asked]
    loss = F.cross_entropy(logits, target, reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), cell.max_grad_norm)
    optimizer.step()
    return int((logits.argmax(-1) == target).sum()), len(target)


def _test_batch(task: Task, cell: Cell, streams: int, stretch: int = 1) -> Batch:
    return task.draw(torch.Generator().manual_seed(_TEST_SEED + cell.seed), streams, stretch * task.length)


@torch.no_grad()
def _accuracy(network: Network, batch: Batch) -> float:
    right = network(batch).argmax(-1) == batch.target[batch.asked]
    return float(right.double().mean())
