"""The delta rule (DeltaNet; Schlag, Irie, Schmidhuber, ICML 2021, arXiv 2102.11174, equations 23 to 25).

`deltanet_naive` is the reference for every other version; the Triton version is in `deltanet_triton.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from policies.ops.operator import (
    AUTO,
    Operator,
    check_reset,
    check_shape,
    cleared,
    steps_with_resets,
    wants_gradient,
)

CHUNK, WIDE_CHUNK = 16, 20
"""Steps of a chunk at most, for values up to 16 wide and for wider ones: see docs/operators.md."""


def deltanet(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    reset: Tensor,
    implementation: str = AUTO,
) -> tuple[Tensor, Tensor]:
    """Write key-value pairs into a fast weight matrix with the delta rule, and read it with queries.

    For each environment and head, with W a D x E matrix:

        W_t = W_{t-1} + k_t (outer) (beta_t * (v_t - k_t W_{t-1}))
        y_t = q_t W_t

    The output is read after the update. Queries and keys are used as they come: feature map, normalisation
    and the sigmoid of the rate are the caller's. Gradient reaches every argument but `reset`, and never
    crosses a reset. Gradients of gradients exist for "naive" only.

    Args:
        q, k: queries and keys (T, B, H, D), T at least 1.
        v: values (T, B, H, E).
        beta: writing rates (T, B, H).
        memory: W before the first step (B, H, D, E). Not modified.
        reset: bool (T, B); where true, W is set to zero before step t.
        implementation: a name in `DELTANET.versions`, or "auto" for the fastest one that can run these tensors.

    Returns:
        y (T, B, H, E), and W after the last step (B, H, D, E).

    Raises:
        TypeError: `reset` is not bool.
        ValueError: shapes do not fit together.
        UserError: no such implementation, or it cannot run these tensors.
    """
    if q.dim() != 4 or q.shape[0] == 0:
        raise ValueError(f"q must be (T, B, H, D) with T at least 1, got {tuple(q.shape)}")
    steps, batch, heads, width = q.shape
    values = v.shape[-1]
    check_shape("k", k, (steps, batch, heads, width))
    check_shape("v", v, (steps, batch, heads, values))
    check_shape("beta", beta, (steps, batch, heads))
    check_shape("memory", memory, (batch, heads, width, values))
    check_reset(reset, steps, batch)
    run = DELTANET.version(q.device, steps, width, values, implementation)
    return run(q, k, v, beta, memory, reset)


def deltanet_naive(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """`deltanet` as a plain loop."""
    resets = steps_with_resets(reset)
    q, k, v = q.unsqueeze(-2), k.unsqueeze(-2), v.unsqueeze(-2)  # (T, B, H, 1, D): rows
    beta = beta[..., None, None]  # (T, B, H, 1, 1)
    w = memory  # (B, H, D, E)
    outputs = []
    for t in range(q.shape[0]):
        if resets[t]:
            w = torch.where(reset[t, :, None, None, None], 0.0, w)
        v_old = k[t] @ w
        w = w + k[t].transpose(-1, -2) * (beta[t] * (v[t] - v_old))
        outputs.append((q[t] @ w).squeeze(-2))
    return torch.stack(outputs), w


def deltanet_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """`deltanet` for calls of a single step, as in acting: few operations, and few passes over the memory, which are
    all that a step costs. Longer sequences take one step after the other."""
    (steps, batch, heads, values), width = v.shape, k.shape[3]
    n = batch * heads
    q, k = q.reshape(steps, n, 1, width), k.reshape(steps, n, 1, width)
    v, beta = v.reshape(steps, n, 1, values), beta.reshape(steps, n, 1, 1)
    outputs = []
    for t in range(steps):
        w = cleared(memory, reset[t]).reshape(n, width, values)
        step = beta[t] * (v[t] - torch.bmm(k[t], w))
        w = torch.addcmul(w, k[t].transpose(1, 2), step)
        outputs.append(torch.bmm(q[t], w).view(batch, heads, values))
        memory = w.view(batch, heads, width, values)
    return torch.stack(outputs), memory


def _chunks(steps: int, chunk: int) -> list[slice]:
    """Cut into as few chunks as there can be, of about the same length."""
    count = -(-steps // chunk)
    length = -(-steps // count)
    return [slice(begin, begin + length) for begin in range(0, steps, length)]


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
    """Chunks of steps: matrix products in place of a loop over time (the WY form of Yang et al., "Parallelizing Linear
    Transformers with the Delta Rule over Sequence Length", NeurIPS 2024, arXiv 2406.06484; derived in
    docs/operators.md).

    For one environment and head, K, Q (C x D) and V (C x E) hold the keys, queries and values of the C steps of a chunk
    as rows, b (C) their rates, W (D x E) is the memory before the chunk. A segment is what lies between two resets. f_t
    is 1 in the first segment, which still sees W, and 0 after it; l_t is 1 in the last one, whose writes survive the
    chunk; S is 1 for pairs of steps (t, s) of one segment with s <= t, and S' for those with s < t. Each step adds
    k_t^T u_t, and all d_t = v_t - k_t W_{t-1} of a chunk solve one triangular system:

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

    Products of keys and of queries with the same matrix are made at once, with K above Q in one matrix. Environments
    and heads are one dimension, n = B * H, wherever they need not be told apart. Triangular systems are solved
    transposed (X M = R for rows X and R): that is the memory's own order, and saves the solver two copies.
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
        for now in reversed(_chunks(steps, ctx.chunk)):
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
        gradients = (grad.unflatten(1, (batch, heads)) for grad in (grad_q, grad_k, grad_v, grad_beta))
        return *gradients, grad_w.unflatten(0, (batch, heads)), None, None


def deltanet_chunk(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """`deltanet` with chunks of at most `chunk` steps; see `_ChunkedDeltaNet`."""
    if chunk is None:
        chunk = CHUNK if v.shape[-1] <= CHUNK else WIDE_CHUNK
    y, new_memory = _ChunkedDeltaNet.apply(q, k, v, beta, memory, reset, chunk)
    return y, new_memory


def deltanet_triton(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """`deltanet` in one launch of a kernel."""
    from policies.ops.deltanet_triton import DeltaNetScan  # here, since Triton need not be installed

    y, new_memory = DeltaNetScan.apply(q, k, v, beta, memory, reset, wants_gradient(q, k, v, beta, memory))
    return y, new_memory


DELTANET = Operator(
    "deltanet",
    {"naive": deltanet_naive, "chunk": deltanet_chunk, "step": deltanet_step, "triton": deltanet_triton},
    sequence="chunk",
)
