"""Learning rates of their own for parts of a network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from policies import core_config, scale_steps
from policies.cores.base import Core
from policies.registry import build_core
from small_cores import SIZES

FACTORS = (1.0, 3.0, 0.5, 10.0)

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, 1e-2, momentum=0.9),
    "adam": lambda groups: torch.optim.Adam(groups, 1e-2, eps=1e-5),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, 1e-2, eps=0.01),
}


def make_core(name: str = "srwm", factors: tuple[float, ...] = (1.0,)) -> Core:
    torch.manual_seed(0)
    return build_core(core_config(name, **SIZES, w0_learning_rate=factors), 5).double()


def gradients(core: Core, step: int) -> dict[str, Tensor]:
    """Some that differ from step to step."""
    generator = torch.Generator().manual_seed(step)
    return {
        name: torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        for name, parameter in core.named_parameters()
    }


def follow(core: Core, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for name, gradient in gradients(core, step).items():
            core.get_parameter(name).grad = gradient
        optimizer.step()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["srwm", "sr_delta"])
def test_a_factor_is_one_of_the_learning_rate(optimizer: str, name: str) -> None:
    """Against an optimizer to which each block of columns is a parameter with a learning rate of its own."""
    core = make_core(name, FACTORS)
    width = SIZES["width"] // SIZES["heads"]
    blocks = [core.get_parameter("layers.0.w0").shape[-1] - 2 * width - 4, width, width, 4]
    parts: list[Tensor] = []
    groups = []
    for parameter_name, parameter in core.named_parameters():
        is_w0 = parameter_name.endswith("w0")
        pieces = parameter.detach().split(blocks, dim=-1) if is_w0 else [parameter.detach()]
        for piece, factor in zip(pieces, FACTORS if is_w0 else (1.0,), strict=True):
            parts.append(piece.clone().requires_grad_())
            groups.append({"params": [parts[-1]], "lr": 1e-2 * factor})
    by_hand = OPTIMIZERS[optimizer](groups)
    scaled = OPTIMIZERS[optimizer](core.parameters())
    scale_steps(scaled, core)
    for step in range(4):
        pieces = [
            piece
            for key, gradient in gradients(core, step).items()
            for piece in (gradient.split(blocks, dim=-1) if key.endswith("w0") else [gradient])
        ]
        for part, piece in zip(parts, pieces, strict=True):
            part.grad = piece.clone()
        by_hand.step()
        follow(core, scaled, range(step, step + 1))
    found = [
        piece
        for key, parameter in core.named_parameters()
        for piece in (parameter.split(blocks, dim=-1) if key.endswith("w0") else [parameter])
    ]
    for got, wanted in zip(found, parts, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_one_factor_for_the_whole_matrix() -> None:
    one, four = make_core(factors=(2.5,)), make_core(factors=(2.5, 2.5, 2.5, 2.5))
    for core in (one, four):
        optimizer = torch.optim.Adam(core.parameters(), 1e-2)
        scale_steps(optimizer, core)
        follow(core, optimizer, range(3))
    for got, wanted in zip(one.parameters(), four.parameters(), strict=True):
        assert torch.equal(got, wanted)


def test_without_factors_nothing_changes_bit_for_bit() -> None:
    plain, hooked = make_core(), make_core()
    assert hooked.step_factors() == {}
    for core in (plain, hooked):
        optimizer = torch.optim.RMSprop(core.parameters(), 1e-2)
        if core is hooked:
            scale_steps(optimizer, core)
        follow(core, optimizer, range(3))
    for got, wanted in zip(hooked.parameters(), plain.parameters(), strict=True):
        assert torch.equal(got, wanted)


def test_an_optimizer_that_was_saved_goes_on_as_if_it_had_not_been() -> None:
    whole, first = make_core(factors=FACTORS), make_core(factors=FACTORS)
    optimizers = [torch.optim.Adam(core.parameters(), 1e-2) for core in (whole, first)]
    for core, optimizer in zip((whole, first), optimizers, strict=True):
        scale_steps(optimizer, core)
    follow(whole, optimizers[0], range(5))
    follow(first, optimizers[1], range(2))
    second = make_core(factors=FACTORS)
    second.load_state_dict(first.state_dict())
    again = torch.optim.Adam(second.parameters(), 1e-2)
    scale_steps(again, second)
    again.load_state_dict(optimizers[1].state_dict())
    follow(second, again, range(2, 5))
    for got, wanted in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(got, wanted)
