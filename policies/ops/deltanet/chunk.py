"""The delta rule in chunks of steps: matrix products in place of a loop over time (the WY form of Yang et al.,
"Parallelizing Linear Transformers with the Delta Rule over Sequence Length", NeurIPS 2024, arXiv 2406.06484).

Same function as `naive`. For one environment and head, let K, Q (C x D), V (C x E) hold the keys, queries and values of
the C steps of a chunk as rows, b (C) their rates, W (D x E) the memory before the chunk. Each step adds k_t^T u_t with
u_t = b_t d_t and d_t = v_t - k_t W_{t-1}, so W_{t-1} is W plus the sum of k_s^T u_s over s < t, and all d_t of a chunk
solve one triangular system. Resets only change who sees what. A segment is what lies between two resets; f_t is 1 in
the first segment, which still sees the memory from before the chunk, and 0 after it; l_t is 1 in the last one, whose
writes survive the chunk; S is 1 for pairs of steps (t, s) of one segment with s <= t, and S' for those with s < t:

    A = S' * (K K^T)     P = S * (Q K^T)
    (I + A b) D = V - f * (K W)          U = b D                     (b as a diagonal matrix)
    Y = f * (Q W) + P U                  W_next = f_last W + (l * K)^T U

The backward pass, with g for gradients, gW for that of W_next on the right-hand side, and Z the gradient of U:

    gU = P^T gY + (l * K) gW             (I + b A)^T Z = gU
    gV = b Z                             gb = sum of Z * D over columns
    gA = -S' * (gV U^T)                  gP = S * (gY U^T)
    gQ = gP K + f * (gY W^T)
    gK = (gA + gA^T) K + gP^T Q - f * (gV W^T) + l * (U gW^T)
    gW of W = f_last gW + (f * Q)^T gY - (f * K)^T gV

Products of keys and of queries with the same matrix are made at once, with K above Q in one matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK, WIDE_CHUNK = 16, 20
"""Steps of a chunk at most, for values up to 16 wide and for wider ones: see docs/operators.md."""


def _chunks(steps: int, chunk: int) -> Iterator[slice]:
    """Cut into as few chunks as there can be, of about the same length."""
    count = -(-steps // chunk)
    length = -(-steps // count)
    for begin in range(0, steps, length):
        yield slice(begin, min(begin + length, steps))


def _rows(x: Tensor) -> Tensor:
    """(C, B, H, ...) -> (B * H, C, ...), without a copy where there is a choice."""
    return x.flatten(1, 2).transpose(0, 1)


def _masks(reset: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """S' above S (B, 1, 2C, C), f (B, C) and l (B, C) of a chunk with these resets (C, B)."""
    segment = reset.cumsum(dim=0).t()
    same = segment.unsqueeze(2) == segment.unsqueeze(1)
    both = torch.cat([same.tril(-1), same.tril()], dim=1)
    return both.unsqueeze(1).to(dtype), (segment == 0).to(dtype), (segment == segment[:, -1:]).to(dtype)


def _scaled(x: Tensor, factor: Tensor) -> Tensor:
    """Rows x (B * H, C, N) times one factor for each environment and step, (B, C), or environment, (B, 1)."""
    factor = factor.view(factor.shape[0], 1, -1, 1)
    scaled: Tensor = x.unflatten(0, (factor.shape[0], -1)) * factor
    return scaled.flatten(0, 1)


def _scale_(x: Tensor, factor: Tensor, blocks: int = 1) -> Tensor:
    """`_scaled` in place, for x (B * H, blocks * C, N), where each block of C rows has the same factors."""
    batch = factor.shape[0]
    x.view(batch, x.shape[0] // batch, blocks, -1, x.shape[2]).mul_(factor.view(batch, 1, 1, -1, 1))
    return x


def _solve(system: Tensor, rows: Tensor, upper: bool) -> Tensor:
    """X with X system = rows, for batches of unit triangular systems (n, C, C) and of rows (n, E, C)."""
    # Up to C = E = 16 the library solves each system in the calling thread. Larger ones its threads would share, which
    # takes longer than solving them: hence `CHUNK`. Setting torch's number of threads here would set everybody's.
    x: Tensor = torch.linalg.solve_triangular(system, rows, upper=upper, left=False, unitriangular=True)
    return x


class _ChunkedDeltaNet(torch.autograd.Function):
    """Environments and heads are one dimension, n = B * H, wherever they need not be told apart.

    Triangular systems are solved transposed (X M = R for rows X and R): that is the memory's own order, and saves the
    solver two copies.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        (steps, batch, heads, values), keys = v.shape, k.shape[3]
        n = batch * heads
        w = memory.reshape(n, keys, values)
        y = v.new_empty(steps, n, values)
        saved: list[Tensor] = []
        for now in _chunks(steps, chunk):
            pairs, first, last = _masks(reset[now], q.dtype)
            c = first.shape[1]
            kq = torch.cat([_rows(k[now]), _rows(q[now])], dim=1)  # (n, 2C, D)
            rate = _rows(beta[now])  # (n, C)
            ap = torch.bmm(kq, kq[:, :c].transpose(1, 2))  # A above P
            ap.view(batch, heads, 2 * c, c).mul_(pairs)
            read = _scale_(torch.bmm(kq, w), first, blocks=2)
            system = (ap[:, :c] * rate.unsqueeze(1)).transpose(1, 2)
            d = _solve(system, (_rows(v[now]) - read[:, :c]).transpose(1, 2), upper=True).transpose(1, 2)
            u = d * rate.unsqueeze(2)
            y[now] = torch.baddbmm(read[:, c:], ap[:, c:], u).transpose(0, 1)
            saved += [kq, ap, d, u, w, rate, pairs, first, last]
            w = torch.baddbmm(_scaled(w, first[:, -1:]), _scaled(kq[:, :c], last).transpose(1, 2), u)
        ctx.save_for_backward(*saved)
        ctx.chunk = chunk
        return y.view(steps, batch, heads, values), w.view(batch, heads, keys, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_memory: Tensor) -> tuple[Tensor | None, ...]:
        saved: list[Tensor] = list(ctx.saved_tensors)
        (steps, batch, heads, values), keys = grad_y.shape, grad_memory.shape[2]
        n = batch * heads
        grad_q, grad_k = (grad_y.new_empty(steps, n, keys) for _ in range(2))
        grad_v, grad_beta = grad_y.new_empty(steps, n, values), grad_y.new_empty(steps, n)
        grad_w = grad_memory.reshape(n, keys, values)
        for now in reversed(list(_chunks(steps, ctx.chunk))):
            kq, ap, d, u, w, rate, pairs, first, last = saved[-9:]
            del saved[-9:]
            c = first.shape[1]
            k = kq[:, :c]
            g = torch.empty(n, 2 * c, values, dtype=u.dtype, device=u.device)  # -gV above gY
            g[:, c:] = _rows(grad_y[now])
            grad_u = torch.baddbmm(torch.bmm(_scaled(k, last), grad_w), ap[:, c:].transpose(1, 2), g[:, c:])
            system = ap[:, :c] * rate.unsqueeze(2)
            z = _solve(system, grad_u.transpose(1, 2), upper=False).transpose(1, 2)
            torch.mul(z, -rate.unsqueeze(2), out=g[:, :c])
            grad_beta[now] = (z * d).sum(dim=2).t()
            torch.neg(g[:, :c].transpose(0, 1), out=grad_v[now])
            grad_ap = torch.bmm(g, u.transpose(1, 2))
            grad_ap.view(batch, heads, 2 * c, c).mul_(pairs)
            _scale_(g, first, blocks=2)
            grad_kq = torch.bmm(g, w.transpose(1, 2)).baddbmm_(grad_ap, k)
            grad_written = _scale_(torch.bmm(u, grad_w.transpose(1, 2)), last)
            grad_written.baddbmm_(grad_ap.transpose(1, 2), kq)
            torch.add(grad_kq[:, :c].transpose(0, 1), grad_written.transpose(0, 1), out=grad_k[now])
            grad_q[now] = grad_kq[:, c:].transpose(0, 1)
            grad_w = torch.baddbmm(_scaled(grad_w, first[:, -1:]), kq.transpose(1, 2), g)
        shape = (steps, batch, heads)
        return (
            grad_q.view(*shape, keys),
            grad_k.view(*shape, keys),
            grad_v.view(*shape, values),
            grad_beta.view(shape),
            grad_w.view(batch, heads, keys, values),
            None,
            None,
        )


def deltanet_chunk(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """See `policies.ops.deltanet.deltanet`; `chunk` is how many steps are taken at once at most."""
    if chunk is None:
        chunk = CHUNK if v.shape[-1] <= CHUNK else WIDE_CHUNK
    y, new_memory = _ChunkedDeltaNet.apply(q, k, v, beta, memory, reset, chunk)
    return y, new_memory
