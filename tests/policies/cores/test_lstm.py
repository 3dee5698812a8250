"""The LSTM operator against its equations one stream at a time, and against torch's LSTM, in float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from policies.cores.lstm import lstm


class Inputs(NamedTuple):
    gates: Tensor
    weight: Tensor
    hidden: Tensor
    cell: Tensor
    reset: Tensor


def make_inputs(steps: int, batch: int, width: int, resets: float = 0.2) -> Inputs:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    return Inputs(
        randn(steps, batch, 4 * width),
        randn(4 * width, width),
        randn(batch, width),
        randn(batch, width),
        torch.rand(steps, batch, generator=generator) < resets,
    )


def sigmoid(z: Tensor) -> Tensor:
    return 1.0 / (1.0 + (-z).exp())


def literal(
    gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    n = hidden.shape[1]
    h, c = list(hidden), list(cell)
    outputs = []
    for t in range(gates.shape[0]):
        for b in range(len(h)):
            if reset[t, b]:
                h[b], c[b] = torch.zeros_like(h[b]), torch.zeros_like(c[b])
            z = gates[t, b] + weight @ h[b]
            i, f, g, o = (
                sigmoid(z[:n]),
                sigmoid(z[n : 2 * n]),
                torch.tanh(z[2 * n : 3 * n]),
                sigmoid(z[3 * n :]),
            )
            c[b] = f * c[b] + i * g
            h[b] = o * torch.tanh(c[b])
        outputs.append(torch.stack(h))
    return torch.stack(outputs), torch.stack(h), torch.stack(c)


@pytest.mark.parametrize("shape", [(1, 1, 1), (6, 3, 4), (11, 2, 5)])
@pytest.mark.parametrize("resets", [0.0, 0.3, 1.0])
def test_values_state_and_gradients(shape: tuple[int, int, int], resets: float) -> None:
    inputs = make_inputs(*shape, resets=resets)
    generator = torch.Generator().manual_seed(99)
    expected = literal(*inputs)
    actual = lstm(*inputs)
    weights = [torch.randn(out.shape, dtype=torch.float64, generator=generator) for out in expected]
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    gradients = [
        torch.autograd.grad(
            sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True)),
            inputs[:4],
            materialize_grads=True,
        )
        for outputs in (actual, expected)
    ]
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_equals_torch_lstm_without_resets() -> None:
    torch.manual_seed(0)
    module = nn.LSTM(3, 5).double()
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    h, c = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    expected, (last_h, last_c) = module(x, (h.unsqueeze(0), c.unsqueeze(0)))
    gates = x @ module.weight_ih_l0.t() + module.bias_ih_l0 + module.bias_hh_l0
    actual = lstm(gates, module.weight_hh_l0, h, c, torch.zeros(7, 2, dtype=torch.bool))
    for got, wanted in zip(actual, (expected, last_h.squeeze(0), last_c.squeeze(0)), strict=True):
        torch.testing.assert_close(got, wanted)


def test_gradients_by_finite_differences() -> None:
    inputs = make_inputs(4, 2, 2)
    inputs.reset[:] = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 0]], dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda *args: lstm(*args, inputs.reset), inputs[:4])


def test_arguments_are_not_modified() -> None:
    inputs = make_inputs(5, 3, 4)
    before = [tensor.detach().clone() for tensor in inputs]
    lstm(*inputs)[0].sum().backward()
    for tensor, copy in zip(inputs, before, strict=True):
        assert torch.equal(tensor, copy)


def test_wrong_arguments_raise() -> None:
    inputs = make_inputs(5, 3, 4)
    with pytest.raises(TypeError, match="bool"):
        lstm(*inputs._replace(reset=inputs.reset.float()))
    for bad in (
        inputs._replace(gates=inputs.gates[0]),
        inputs._replace(gates=inputs.gates[..., 1:]),
        inputs._replace(weight=inputs.weight[1:]),
        inputs._replace(hidden=inputs.hidden[1:]),
        inputs._replace(cell=inputs.cell[:, 1:]),
        inputs._replace(reset=inputs.reset[1:]),
    ):
        with pytest.raises(ValueError, match="must"):
            lstm(*bad)
