"""Training a core on a memory task: exact, counted as said, and about memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.memory import readings
from experiments.memory.settings import OPTIMIZERS, Cell
from experiments.memory.tasks import TASKS
from experiments.memory.training import WINDOW, Hits, Network, Outcome, Window, train
from policies.cores.base import CoreConfig
from small_cores import small_core

SMALL = {"width": 32, "heads": 4, "feedforward": 32, "layers": 1}


def tiny(name: str, **settings: object) -> Cell:
    return replace(Cell(core=small_core(name), updates=4, streams=3), **settings)  # type: ignore[arg-type]


def numbers(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds=0.0)


@pytest.mark.parametrize("name", ["lstm", "srwm"])
def test_the_same_cell_has_the_same_outcome_whatever_was_drawn_before(name: str) -> None:
    first = train(tiny(name))
    torch.rand(7)
    state = torch.get_rng_state()
    again = train(tiny(name))
    assert numbers(again) == numbers(first)
    assert torch.equal(torch.get_rng_state(), state)
    assert numbers(train(tiny(name, seed=1))) != numbers(first)


def test_a_core_with_memory_learns_the_delay_and_forgets_it_with_a_short_span() -> None:
    learning = Cell("cue-5", small_core("deltanet", **SMALL), updates=150, learning_rate=1e-2)
    outcome = train(replace(learning, stop_at=0.97))
    assert outcome.test > 0.95
    assert outcome.reached["0.9"] is not None
    assert outcome.windows[-1].update < learning.updates
    cut = train(replace(learning, reset="3", updates=outcome.windows[-1].update))
    assert cut.test < 0.35
    assert cut.reached == {"0.9": None, "0.95": None}


def test_windows_come_every_fifty_updates_and_at_the_end() -> None:
    seen: list[Window] = []
    outcome = train(tiny("feedforward", updates=WINDOW + 20), seen.append)
    assert [window.update for window in outcome.windows] == [WINDOW, WINDOW + 20]
    assert outcome.windows == tuple(seen)
    assert outcome.parameters == sum(p.numel() for p in Network(tiny("feedforward")).parameters())
    assert outcome.seconds > 0


@given(st.lists(st.tuples(st.integers(0, 9), st.just(9)), min_size=1, max_size=130), st.floats(0, 1))
def test_accuracies_are_counted_as_by_hand(updates: list[tuple[int, int]], level: float) -> None:
    hits, first = Hits(), None
    for end, (right, asked) in enumerate(updates, 1):
        hits.add(right, asked)
        recent = updates[max(0, end - WINDOW) : end]
        share = sum(r for r, _ in recent) / sum(a for _, a in recent)
        assert hits.accuracy(max(0, end - WINDOW)) == pytest.approx(share)
        assert hits.reached(level) == (end >= WINDOW and share >= level)
        first = end if first is None and hits.reached(level) else first
    assert hits.first_reached(level) == first
    assert not hits.reached(None)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_have_their_own_learning_rates(name: str) -> None:
    parameters = [torch.nn.Parameter(torch.ones(2))]
    usual = {"adam": 1e-3, "rmsprop": 6e-4}[name]
    assert Cell(optimizer=name).make_optimizer(parameters).defaults["lr"] == usual
    told = Cell(optimizer=name, learning_rate=0.5).make_optimizer(parameters).defaults
    assert told["lr"] == 0.5
    assert told["eps"] == {"adam": 1e-8, "rmsprop": 0.01}[name]


def test_the_factor_of_w0s_learning_rate_is_obeyed() -> None:
    still: CoreConfig = replace(small_core("srwm"), w0_learning_rate=(0.0,))  # type: ignore[call-arg]
    cell = tiny("srwm", core=still, updates=1)
    moved = [window for config in (cell, tiny("srwm", updates=1)) for window in train(config).windows]
    assert moved[0].readings["layer0/rate_y"] != moved[1].readings["layer0/rate_y"]


def test_gradient_norms_of_the_blocks_add_up_to_that_of_the_matrix() -> None:
    network = Network(tiny("srwm"))
    watch = readings.GradientNorms(network.core)
    task = TASKS["cue-5"]
    network(task.draw(torch.Generator().manual_seed(1), 4, 5)).sum().backward()
    watch.add()
    norms = watch.means()
    for layer in range(2):
        gradient = network.core.get_parameter(f"layers.{layer}.w0").grad
        assert gradient is not None
        squares = [norms[f"gradient/layer{layer}/{block}"] ** 2 for block in ("y", "q", "k", "beta")]
        assert sum(squares) == pytest.approx(float(gradient.norm()) ** 2, rel=1e-5)
    assert watch.means() == {}


def test_readings_are_those_of_the_steps_one_by_one() -> None:
    network = Network(tiny("srwm"))
    batch = TASKS["cue-5"].draw(torch.Generator().manual_seed(1), 4, 5)
    found = readings.of_core(network.core, batch)
    state, rates, entropies = network.core.initial_state(4), [], []
    for x, start in zip(batch.x.split(1), batch.episode_start.split(1), strict=True):
        _, state, seen = network.core.examine(x, state, start)
        by_tag = {reading.tag: reading for reading in seen}
        rates.append(by_tag["layer1/rate_k"].heads)
        entropies.append(by_tag["layer1/input_entropy"].values)
    heads = torch.stack(rates)  # (T, B, H)
    assert found["layer1/rate_k"] == pytest.approx(float(heads.mean()), rel=1e-5)
    spreads = [float(over_time.std(correction=0)) for over_time in heads.flatten(1).T]
    assert found["layer1/rate_k_spread"] == pytest.approx(sum(spreads) / len(spreads), rel=1e-4)
    assert found["layer1/input_entropy"] == pytest.approx(float(torch.stack(entropies).mean()), rel=1e-5)
    norm = state["layer1/shift"].flatten(1).norm(dim=1).mean()
    assert found["layer1/shift_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert readings.of_core(Network(tiny("lstm")).core, batch) == {}
