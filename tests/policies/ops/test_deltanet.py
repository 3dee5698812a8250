"""The delta rule operator against the paper's equations, one stream, head and step at a time, in float64."""

from __future__ import annotations

import threading
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from policies.ops.deltanet import DELTANET, deltanet, deltanet_chunk, deltanet_naive

EVERY = sorted(DELTANET.versions.keys() - {"triton"})  # whose tests are in test_triton_scans.py
SHAPES = [(1, 1, 1, 1, 1), (5, 3, 2, 4, 3), (7, 2, 3, 5, 5), (12, 4, 1, 3, 6)]


class Inputs(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    memory: Tensor
    reset: Tensor


def make_inputs(steps: int, batch: int, heads: int, keys: int, values: int, resets: float = 0.2) -> Inputs:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return Inputs(
        randn(steps, batch, heads, keys).softmax(-1).requires_grad_(),
        randn(steps, batch, heads, keys).softmax(-1).requires_grad_(),
        randn(steps, batch, heads, values).requires_grad_(),
        randn(steps, batch, heads).sigmoid().requires_grad_(),
        randn(batch, heads, keys, values).requires_grad_(),
        torch.rand(steps, batch, generator=generator) < resets,
    )


def literal(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    steps, batch, heads, _ = q.shape
    outputs = []
    w = [[memory[b, h] for h in range(heads)] for b in range(batch)]
    for t in range(steps):
        for b in range(batch):
            for h in range(heads):
                if reset[t, b]:
                    w[b][h] = torch.zeros_like(memory[b, h])
                v_old = k[t, b, h] @ w[b][h]
                w[b][h] = w[b][h] + beta[t, b, h] * torch.outer(k[t, b, h], v[t, b, h] - v_old)
                outputs.append(q[t, b, h] @ w[b][h])
    y = torch.stack(outputs).reshape(steps, batch, heads, v.shape[-1])
    return y, torch.stack([torch.stack(row) for row in w])


def loss_of(outputs: tuple[Tensor, ...]) -> Tensor:
    """A scalar in which every output counts with its own weight."""
    generator = torch.Generator().manual_seed(99)
    terms = [
        (out * torch.randn(out.shape, dtype=torch.float64, generator=generator)).sum() for out in outputs
    ]
    return torch.stack(terms).sum()


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resets", [0.0, 0.3, 1.0])
def test_values_state_and_gradients(
    implementation: str, shape: tuple[int, int, int, int, int], resets: float
) -> None:
    inputs = make_inputs(*shape, resets=resets)
    expected = literal(*inputs)
    actual = deltanet(*inputs, implementation=implementation)
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    expected_gradients = torch.autograd.grad(loss_of(expected), inputs[:5], materialize_grads=True)
    gradients = torch.autograd.grad(loss_of(actual), inputs[:5], materialize_grads=True)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("implementation", EVERY)
def test_gradients_by_finite_differences(implementation: str) -> None:
    inputs = make_inputs(4, 2, 1, 2, 3)
    inputs.reset[:] = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 0]], dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda *args: deltanet(*args, inputs.reset, implementation), inputs[:5])


@pytest.mark.parametrize("implementation", EVERY)
def test_a_full_rate_stores_what_is_then_read(implementation: str) -> None:
    q, _, v, beta, memory, reset = make_inputs(6, 3, 2, 4, 4, resets=0.0)
    key = torch.eye(4, dtype=torch.float64)[torch.arange(6) % 4].view(6, 1, 1, 4).expand_as(q)
    y, _ = deltanet(key, key, v, torch.ones_like(beta), memory, reset, implementation)
    torch.testing.assert_close(y, v)


@pytest.mark.parametrize("implementation", EVERY)
def test_nothing_crosses_a_reset(implementation: str) -> None:
    q, k, v, beta, memory, reset = make_inputs(8, 2, 2, 3, 3, resets=0.0)
    reset[3] = True
    y, last = deltanet(q, k, v, beta, memory, reset, implementation)
    loss = y[3:].square().sum() + last.square().sum()
    for gradient in torch.autograd.grad(loss, (q, k, v, beta), retain_graph=True):
        assert not gradient[:3].any()
        assert gradient[3:].flatten(1).any(dim=1).all()
    (gradient,) = torch.autograd.grad(loss, (memory,), materialize_grads=True)
    assert not gradient.any()
    others = [torch.cat([torch.rand_like(tensor[:3]), tensor[3:]]) for tensor in (q, k, v, beta)]
    other_y, other_last = deltanet(*others, torch.randn_like(memory), reset, implementation)  # type: ignore[misc]
    assert torch.equal(other_y[3:], y[3:])
    assert torch.equal(other_last, last)


@pytest.mark.parametrize("implementation", EVERY)
def test_pieces_equal_the_whole_and_arguments_are_not_modified(implementation: str) -> None:
    inputs = make_inputs(9, 3, 2, 4, 5)
    before = [tensor.detach().clone() for tensor in inputs]
    whole, last = deltanet(*inputs, implementation=implementation)
    pieces, memory = [], inputs.memory
    for q, k, v, beta, reset in zip(*(inputs[index].split(2) for index in (0, 1, 2, 3, 5)), strict=True):
        y, memory = deltanet(q, k, v, beta, memory, reset, implementation)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(memory, last, rtol=1e-10, atol=1e-10)
    for tensor, copy in zip(inputs, before, strict=True):
        assert torch.equal(tensor, copy)


def test_wrong_arguments_raise() -> None:
    inputs = make_inputs(5, 3, 2, 4, 6)
    with pytest.raises(TypeError, match="bool"):
        deltanet(*inputs._replace(reset=inputs.reset.long()))
    for bad in (
        inputs._replace(q=inputs.q[0]),
        inputs._replace(k=inputs.k[..., 1:]),
        inputs._replace(v=inputs.v[1:]),
        inputs._replace(beta=inputs.beta.unsqueeze(-1)),
        inputs._replace(memory=inputs.memory.transpose(-1, -2)),
        inputs._replace(reset=inputs.reset.t()),
    ):
        with pytest.raises(ValueError, match="must"):
            deltanet(*bad)
    with pytest.raises(UserError, match="naive"):
        deltanet(*inputs, implementation="chunky")


def agree(inputs: Inputs, chunk: int) -> None:
    """Values, state and all gradients of the chunked version are those of the loop."""
    expected, actual = deltanet_naive(*inputs), deltanet_chunk(*inputs, chunk=chunk)
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)
    gradients, expected_gradients = (
        torch.autograd.grad(loss_of(outputs), inputs[:5], materialize_grads=True)
        for outputs in (actual, expected)
    )
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    steps=st.integers(1, 45),
    chunk=st.one_of(st.integers(1, 9), st.just(20), st.just(100)),
    keys=st.integers(1, 5),
    values=st.integers(1, 5),
    resets=st.lists(st.tuples(st.integers(0, 44), st.integers(0, 2)), max_size=20),
)
def test_any_chunk_and_any_resets(
    steps: int, chunk: int, keys: int, values: int, resets: list[tuple[int, int]]
) -> None:
    inputs = make_inputs(steps, 3, 2, keys, values, resets=0.0)
    for time, stream in resets:
        inputs.reset[time % steps, stream] = True
    agree(inputs, chunk)


@pytest.mark.parametrize("chunk", [4, 8, 50])
@pytest.mark.parametrize(
    "times", [(0,), (7,), (0, 1, 2, 3), (4, 5, 7), (3, 4), (0, 4, 8, 12), (1, 2, 9, 10, 12)], ids=str
)
def test_resets_at_the_edges_of_chunks_and_several_in_one(times: tuple[int, ...], chunk: int) -> None:
    inputs = make_inputs(13, 2, 2, 3, 4, resets=0.0)
    inputs.reset[list(times), 0] = True
    agree(inputs, chunk)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_chunks_with_extreme_rates(rate: float) -> None:
    inputs = make_inputs(11, 2, 2, 3, 4)
    agree(inputs._replace(beta=torch.full_like(inputs.beta, rate).requires_grad_()), 4)


def test_chunked_gradients_are_as_exact_as_naive_ones_over_a_long_unroll() -> None:
    inputs = make_inputs(256, 2, 2, 16, 16, resets=0.002)

    def results(implementation: str, dtype: torch.dtype) -> list[Tensor]:
        sources = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs[:5]]
        outputs = deltanet(*sources, inputs.reset, implementation=implementation)  # type: ignore[misc]
        loss = loss_of(tuple(output.double() for output in outputs))
        return [found.double() for found in (*outputs, *torch.autograd.grad(loss, sources))]

    exact = results("naive", torch.float64)
    naive, chunked = results("naive", torch.float32), results("chunk", torch.float32)
    for wanted, by_naive, by_chunk in zip(exact, naive, chunked, strict=True):
        assert (by_chunk - wanted).norm() < 3.0 * (by_naive - wanted).norm() + 1e-6 * wanted.norm()


@pytest.mark.parametrize("wanted", [0, 1])
def test_one_output_of_the_chunks_alone_may_be_used(wanted: int) -> None:
    inputs = make_inputs(9, 3, 2, 4, 5)
    expected, actual = (
        torch.autograd.grad(loss_of((run(*inputs)[wanted],)), inputs[:5], materialize_grads=True)
        for run in (literal, deltanet)
    )
    for got, expect in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, expect, rtol=1e-9, atol=1e-9)


def test_whole_sequences_go_in_chunks_and_single_steps_do_not() -> None:
    cpu = torch.device("cpu")
    assert DELTANET.choose(cpu, 50) == "chunk"
    assert DELTANET.choose(cpu, 1) == "step"


def test_solving_leaves_the_number_of_threads_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that asks while a system is solved, such as one that acts, finds what was set."""
    inputs = make_inputs(9, 3, 2, 4, 5)
    during: list[int] = []
    real = torch.linalg.solve_triangular

    def solve(*args: Tensor, **more: bool) -> Tensor:
        other = threading.Thread(target=lambda: during.append(torch.get_num_threads()))
        other.start()
        other.join()
        return real(*args, **more)

    monkeypatch.setattr(torch.linalg, "solve_triangular", solve)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        agree(inputs, 4)
    finally:
        torch.set_num_threads(before)
    assert during == [2] * 6
