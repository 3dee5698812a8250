"""Cores that write their own weights can be told to leave them as they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from policies import CORES
from policies.cores.base import Core
from policies.registry import build_core
from policies.resets import State, parse_reset
from small_cores import small_core

FEATURES = 5


def make_core(name: str, reset: str = "episode") -> Core:
    torch.manual_seed(0)
    core = build_core(small_core(name), FEATURES, parse_reset(reset)).double()
    for parameter in core.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return core


def inputs(core: Core, steps: int = 6, batch: int = 3) -> tuple[Tensor, State, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(steps + 9, batch, FEATURES, generator=generator, dtype=torch.float64)
    never = torch.zeros(steps + 9, batch, dtype=torch.bool)
    _, state = core(x[:9], core.initial_state(batch), never[:9])
    return x[9:], state, never[9:]


SELF_MODIFYING = sorted(name for name in CORES if CORES[name].self_modifying)
OTHERS = sorted(set(CORES) - set(SELF_MODIFYING))


def test_which_cores_write_their_weights() -> None:
    assert {"srwm", "deltanet"} <= set(SELF_MODIFYING)
    assert {"lstm", "feedforward", "fake_srwm"} <= set(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
def test_there_is_nothing_to_stop_in_others(name: str) -> None:
    core = make_core(name)
    core.set_writing(True)
    with pytest.raises(UserError, match="does not modify its weights"):
        core.set_writing(False)


@torch.no_grad()
@pytest.mark.parametrize("name", SELF_MODIFYING)
def test_a_core_that_stops_writing_keeps_what_it_has(name: str) -> None:
    core = make_core(name)
    x, state, never = inputs(core)
    written, _ = core(x, state, never)
    core.set_writing(False)
    y, after = core(x, state, never)
    assert all(torch.equal(after[key], state[key]) for key in state)
    # The same input gives the same output at whatever step, and reads the weights that the environment has written.
    again, _ = core(x[2:3], state, never[:1])
    torch.testing.assert_close(y[2:3], again)
    fresh, _ = core(x, core.initial_state(3), never)
    assert not torch.isclose(y, fresh).all(-1).any()
    assert not torch.isclose(y[1:], written[1:]).all(-1).any()
    core.set_writing(True)
    back, _ = core(x, after, never)
    assert torch.equal(back, written)


@torch.no_grad()
@pytest.mark.parametrize("name", SELF_MODIFYING)
def test_resets_still_clear_it(name: str) -> None:
    core = make_core(name, "4")
    x, state, starts = inputs(core)
    starts = starts.clone()
    starts[2, 1] = True
    core.set_writing(False)
    y, after = core(x, state, starts)
    steps, carried = [], state
    for t in range(len(x)):
        step, carried = core(x[t : t + 1], carried, starts[t : t + 1])
        steps.append(step)
    torch.testing.assert_close(y, torch.cat(steps))
    for key in state:
        assert torch.equal(after[key], carried[key])
    empty, _ = core(x[3:4, 1:2], core.initial_state(1), starts[:1, 1:2])
    torch.testing.assert_close(y[3:4, 1:2], empty)
    assert all(not after[key][1].any() for key in after if key != "age")


def test_srwm_reads_before_it_writes() -> None:
    """So the first output after it was stopped is still the same."""
    core = make_core("srwm")
    x, state, never = inputs(core)
    with torch.no_grad():
        written, _ = core(x, state, never)
        core.set_writing(False)
        y, _ = core(x, state, never)
    assert torch.equal(y[0], written[0])
