"""Cores are matched by their number of parameters."""

from __future__ import annotations

import pytest
from torch import nn

from experiments.memory.settings import Cell
from experiments.memory.sizes import count, knob, matched
from experiments.memory.training import Network
from policies import CORES, core_config
from policies.cores.layered import LayeredConfig


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", CORES)
def test_counting_is_building(name: str) -> None:
    cell = Cell(core=core_config(name))
    assert count(cell.core) == size(Network(cell))


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("like", ["srwm", "lstm"])
def test_cores_with_a_knob_come_within_one_percent(name: str, like: str) -> None:
    start = core_config(name)
    found = matched(start, like)
    if knob(start) is None:
        assert found == start
    else:
        assert size(Network(Cell(core=start, match=like))) == pytest.approx(
            count(core_config(like)), rel=0.01
        )
    if isinstance(start, LayeredConfig) and isinstance(found, LayeredConfig):
        assert (found.width, found.heads, found.layers) == (start.width, start.heads, start.layers)


def test_nothing_changes_without_a_core_to_match_and_for_that_core_itself() -> None:
    assert matched(core_config("lstm", hidden=7), None) == core_config("lstm", hidden=7)
    assert matched(core_config("srwm"), "srwm") == core_config("srwm")
