"""The SRWM operator against the paper's equations, one stream, head and step at a time, in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from policies.ops.srwm import SRWM, sharpened, srwm

EVERY = sorted(SRWM.versions.keys() - {"triton"})  # whose tests are in test_triton_scans.py
# T, B, H, D, and the width E of the output where it is not D.
SHAPES = [(1, 1, 1, 1), (5, 3, 2, 4), (7, 2, 3, 5), (12, 4, 1, 3), (6, 3, 2, 4, 1), (7, 2, 3, 4, 13)]


class Inputs(NamedTuple):
    x: Tensor
    w0: Tensor
    shift: Tensor
    reset: Tensor


def make_inputs(
    steps: int,
    batch: int,
    heads: int,
    width: int,
    output: int | None = None,
    seed: int = 0,
    resets: float = 0.2,
) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    columns = (width if output is None else output) + 2 * width + 4
    return Inputs(
        randn(steps, batch, heads, width),
        randn(heads, width, columns),
        randn(batch, heads, width, columns),
        torch.rand(steps, batch, generator=generator) < resets,
    )


def softmax(z: Tensor) -> Tensor:
    return z.exp() / z.exp().sum()


def sigmoid(z: Tensor) -> Tensor:
    return 1.0 / (1.0 + (-z).exp())


# What may differ from the paper.
OPTIONS: list[dict[str, Any]] = [
    {"input_softmax": False},
    {"rate_offset": -1.5},
    {"unit_key": True},
    {"input_softmax": False, "rate_offset": 0.7, "unit_key": True},
]


def literal(
    x: Tensor,
    w0: Tensor,
    shift: Tensor,
    reset: Tensor,
    input_softmax: bool = True,
    rate_offset: float = 0.0,
    unit_key: bool = False,
    sharpness: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The equations; `sharpness` (2, H) multiplies q and k where they become addresses."""
    steps, batch, heads, width = x.shape
    output = w0.shape[-1] - 2 * width - 4
    y: dict[tuple[int, int, int], Tensor] = {}
    last: dict[tuple[int, int], Tensor] = {}
    for b in range(batch):
        for h in range(heads):
            sharp_q, sharp_k = (1.0, 1.0) if sharpness is None else sharpness[:, h]
            w = w0[h] + shift[b, h]
            for t in range(steps):
                if reset[t, b]:
                    w = w0[h]
                product = (softmax(x[t, b, h]) if input_softmax else x[t, b, h]) @ w
                y[t, b, h] = product[:output]
                q, k = product[output : output + width], product[output + width : output + 2 * width]
                phi_q, phi_k = softmax(sharp_q * q), softmax(sharp_k * k)
                if unit_key:
                    phi_k = phi_k.sqrt()
                beta_y, beta_q, beta_k, beta_beta = sigmoid(product[output + 2 * width :] + rate_offset)
                v_new = phi_q @ w
                v_old = phi_k @ w
                rate = torch.stack([beta_y] * output + [beta_q] * width + [beta_k] * width + [beta_beta] * 4)
                w = w + torch.outer(phi_k, rate * (v_new - v_old))
            last[b, h] = w - w0[h]
    outputs = [[[y[t, b, h] for h in range(heads)] for b in range(batch)] for t in range(steps)]
    return (
        torch.stack([torch.stack([torch.stack(row) for row in step]) for step in outputs]),
        torch.stack([torch.stack([last[b, h] for h in range(heads)]) for b in range(batch)]),
    )


def loss_of(outputs: tuple[Tensor, ...]) -> Tensor:
    """A scalar in which every output counts with its own weight."""
    generator = torch.Generator().manual_seed(99)
    return sum(
        (out * torch.randn(out.shape, dtype=torch.float64, generator=generator)).sum() for out in outputs
    )  # type: ignore[return-value]


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resets", [0.0, 0.3, 1.0])
def test_values_state_and_gradients(implementation: str, shape: tuple[int, ...], resets: float) -> None:
    inputs = make_inputs(*shape, resets=resets)
    expected = literal(*inputs)
    actual = srwm(*inputs, implementation=implementation)
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    expected_gradients = torch.autograd.grad(loss_of(expected), inputs[:3], materialize_grads=True)
    gradients = torch.autograd.grad(loss_of(actual), inputs[:3], materialize_grads=True)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def published(x: Tensor, w0: Tensor, shift: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """The paper's equations over all environments and heads at once, and nothing beside them."""
    width = x.shape[-1]
    blocks = [width, width, width, 4]
    phi_x, w, outputs = x.softmax(dim=-1).unsqueeze(-2), w0 + shift, []
    for t in range(len(x)):
        if reset[t].any():
            w = torch.where(reset[t, :, None, None, None], w0, w)
        y, q, k, beta = (phi_x[t] @ w).split(blocks, dim=-1)
        outputs.append(y.squeeze(-2))
        rates = beta.sigmoid().split(1, dim=-1)
        phi_q, phi_k = q.softmax(dim=-1), k.softmax(dim=-1)
        difference = ((phi_q - phi_k) @ w).split(blocks, dim=-1)
        step = torch.cat([rate * block for rate, block in zip(rates, difference, strict=True)], dim=-1)
        w = w + phi_k.transpose(-1, -2) * step
    return torch.stack(outputs), w - w0


def test_without_options_it_is_as_published_bit_for_bit() -> None:
    inputs = make_inputs(9, 3, 2, 4)
    sources = [tensor.detach().float().requires_grad_() for tensor in inputs[:3]]
    found = []
    for outputs in (srwm(*sources, inputs.reset, "naive"), published(*sources, inputs.reset)):
        found.append([*outputs, *torch.autograd.grad((outputs[0] ** 3).sum() + outputs[1].sum(), sources)])
    for got, wanted in zip(*found, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(7, 2, 3, 5), (7, 2, 3, 4, 13)])
def test_what_differs_from_the_paper(
    implementation: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    inputs = make_inputs(*shape, resets=0.3)
    expected = literal(*inputs, **options)
    actual = srwm(*inputs, implementation=implementation, **options)
    published = literal(*inputs)
    for got, wanted, other in zip(actual, expected, published, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
        assert not torch.allclose(got, other, rtol=1e-3)
    expected_gradients = torch.autograd.grad(loss_of(expected), inputs[:3])
    gradients = torch.autograd.grad(loss_of(actual), inputs[:3])
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("implementation", EVERY)
def test_keys_of_length_1_keep_the_matrix_bounded(implementation: str) -> None:
    """A soft key that meets a sharp query makes the matrix explode while the input stays; its root does not."""
    width, steps = 4, 200
    x = torch.zeros(1, 1, 1, width, dtype=torch.float64)
    x[..., 0] = 1.0
    w0 = torch.zeros(1, width, 3 * width + 4, dtype=torch.float64)
    w0[0, :, :width] = torch.eye(width, dtype=torch.float64)
    w0[0, 0, width] = 8.0  # q names row 0
    w0[0, 0, 2 * width] = 1.0  # k prefers it
    w0[0, :, -3:] = -50.0  # q, k and beta keep what they are, y does not
    w0[0, :, -4] = 50.0
    reset = torch.zeros(1, 1, dtype=torch.bool)
    sizes = {}
    for unit_key in (False, True):
        shift = torch.zeros(1, 1, width, 3 * width + 4, dtype=torch.float64)
        for _ in range(steps):
            _, shift = srwm(x, w0, shift, reset, implementation, input_softmax=False, unit_key=unit_key)
        sizes[unit_key] = float(shift.abs().max())
    assert sizes[True] < 10.0
    assert sizes[False] > 1e6


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("for_all_heads", [False, True])
def test_sharper_addresses_are_larger_columns(implementation: str, for_all_heads: bool) -> None:
    """softmax(s q) and softmax(s k) in the equations, gradient of s included, are columns s times as large."""
    x, w0, shift, reset = make_inputs(6, 3, 2, 4, 5)
    generator = torch.Generator().manual_seed(3)
    sharpness = 0.5 + 3.0 * torch.rand(2, 1 if for_all_heads else 2, dtype=torch.float64, generator=generator)
    sharpness.requires_grad_()

    def in_columns(raw_shift: Tensor) -> Tensor:
        return raw_shift * sharpened(torch.ones_like(w0), sharpness)

    expected_y, raw_shift = literal(
        x, w0, shift, reset, input_softmax=False, sharpness=sharpness.expand(2, 2)
    )
    expected = expected_y, in_columns(raw_shift)
    actual = srwm(x, sharpened(w0, sharpness), in_columns(shift), reset, implementation, False)
    sources = (x, w0, shift, sharpness)
    gradients = [torch.autograd.grad(loss_of(outputs), sources) for outputs in (actual, expected)]
    for got, wanted in zip((*actual, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_gradients_by_finite_differences(implementation: str, options: dict[str, Any]) -> None:
    inputs = make_inputs(4, 2, 1, 2)
    inputs.reset[:] = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 0]], dtype=torch.bool)
    sharpness = torch.tensor([[0.7], [1.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w0, shift, s: srwm(x, sharpened(w0, s), shift, inputs.reset, implementation, **options),
        (*inputs[:3], sharpness),
    )


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("wanted", ["y", "shift"])
def test_one_output_alone_may_be_used(implementation: str, wanted: str) -> None:
    inputs = make_inputs(5, 3, 2, 4)
    index = ["y", "shift"].index(wanted)
    expected = torch.autograd.grad(loss_of((literal(*inputs)[index],)), inputs[:3])
    actual = torch.autograd.grad(loss_of((srwm(*inputs, implementation=implementation)[index],)), inputs[:3])
    for got, expect in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, expect, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("trained", [(0,), (1,), (2,), (0, 2)])
def test_gradient_of_some_inputs_only(implementation: str, trained: tuple[int, ...]) -> None:
    inputs = make_inputs(5, 3, 2, 4)
    mixed = [tensor if index in trained else tensor.detach() for index, tensor in enumerate(inputs)]
    wanted = [inputs[index] for index in trained]
    expected = torch.autograd.grad(loss_of(literal(*inputs)), wanted)
    actual = torch.autograd.grad(loss_of(srwm(*mixed, implementation=implementation)), wanted)
    for got, expect in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, expect, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("output", [4, 7])
def test_pieces_equal_the_whole(implementation: str, output: int) -> None:
    x, w0, shift, reset = make_inputs(9, 3, 2, 4, output)
    whole, last = srwm(x, w0, shift, reset, implementation)
    pieces = []
    for part, part_reset in zip(x.split(2), reset.split(2), strict=True):
        y, shift = srwm(part, w0, shift, part_reset, implementation)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(shift, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("implementation", EVERY)
def test_nothing_crosses_a_reset(implementation: str) -> None:
    x, w0, shift, reset = make_inputs(8, 2, 2, 3, resets=0.0)
    reset[3] = True
    y, last = srwm(x, w0, shift, reset, implementation)
    gradient_x, gradient_shift = torch.autograd.grad(
        y[3:].square().sum() + last.square().sum(), (x, shift), materialize_grads=True
    )
    assert not gradient_x[:3].any()
    assert not gradient_shift.any()
    assert gradient_x[3:].flatten(1).any(dim=1).all()
    other_x = torch.cat([torch.randn_like(x[:3]), x[3:]])
    other_y, other_last = srwm(other_x, w0, torch.randn_like(shift), reset, implementation)
    assert torch.equal(other_y[3:], y[3:])
    assert torch.equal(other_last, last)


@pytest.mark.parametrize("implementation", EVERY)
def test_arguments_are_not_modified(implementation: str) -> None:
    inputs = make_inputs(6, 3, 2, 4)
    before = [tensor.detach().clone() for tensor in inputs]
    outputs = srwm(*inputs, implementation=implementation)
    kept = [tensor.detach().clone() for tensor in outputs]
    torch.autograd.grad(loss_of(outputs), inputs[:3])
    for tensor, copy in zip([*inputs, *outputs], [*before, *kept], strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize("implementation", EVERY)
def test_float32_is_close(implementation: str) -> None:
    inputs = make_inputs(50, 3, 8, 16, resets=0.05)
    single = [tensor.detach().float() for tensor in inputs[:3]]
    y, shift = srwm(*single, inputs.reset, implementation=implementation)
    assert y.dtype is torch.float32
    expected_y, expected_shift = srwm(*inputs, implementation="naive")
    torch.testing.assert_close(y.double(), expected_y, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(shift.double(), expected_shift, rtol=1e-3, atol=1e-3)


def test_fused_gradients_are_as_exact_as_naive_ones_over_a_long_unroll() -> None:
    inputs = make_inputs(256, 2, 2, 16, resets=0.002)
    w0 = (inputs.w0 / 4.0).detach().requires_grad_()  # the layer's own scale
    weights = torch.randn(inputs.x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def gradients(implementation: str, dtype: torch.dtype) -> list[Tensor]:
        x, start, shift = (v.detach().to(dtype).requires_grad_() for v in (inputs.x, w0, inputs.shift / 4.0))
        y, _ = srwm(x, start, shift, inputs.reset, implementation)
        found = torch.autograd.grad((y * weights.to(dtype)).sum(), (x, start, shift))
        return [gradient.double() for gradient in found]

    exact = gradients("naive", torch.float64)
    naive, fused = gradients("naive", torch.float32), gradients("fused", torch.float32)
    for wanted, by_naive, by_fused in zip(exact, naive, fused, strict=True):
        assert (by_fused - wanted).norm() < 3.0 * (by_naive - wanted).norm() + 1e-6 * wanted.norm()


def test_wrong_arguments_raise() -> None:
    x, w0, shift, reset = make_inputs(5, 3, 2, 4)
    with pytest.raises(TypeError, match="bool"):
        srwm(x, w0, shift, reset.to(torch.uint8))
    for bad in (
        (x[0], w0, shift, reset),
        (x[:0], w0, shift, reset[:0]),
        (x, w0[..., 1:], shift, reset),
        (x, w0[..., :12], shift[..., :12], reset),  # no column is left for the output
        (x, w0[0], shift, reset),
        (x, w0, shift[1:], reset),
        (x, w0, shift, reset[1:]),
        (x, w0, shift, reset.t()),
    ):
        with pytest.raises(ValueError, match="must"):
            srwm(*bad)
    with pytest.raises(UserError, match="naive"):
        srwm(x, w0, shift, reset, implementation="naiv")
