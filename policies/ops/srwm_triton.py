"""The self-referential weight matrix as Triton kernels: a whole sequence in one launch forward and one backward.

Same function as `srwm_naive`; the equations of the backward pass are those of the fused version, and docs/operators.md
says how the kernels work. A program keeps the matrix of one head of one environment, cut into the blocks y (D x E),
q, k (D x D) and beta (D x 4), in registers for all steps. Vectors are short: products are sums over elementwise
products, not `tl.dot`, which would want 16 rows and, for float32, round to TF32.

For the backward pass the forward pass writes down, per step, the matrix that the step used and what it computed from
it. Gradients of `w0` are written per environment and added up afterwards, in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from policies.ops.operator import UNSPECIALIZED, launch, padded, state_dtype

# mypy: disable-error-code="no-untyped-def"


@triton.jit
def _softmax(z, valid):
    z = tl.where(valid, z, float("-inf"))
    e = tl.exp(z - tl.max(z, axis=0))
    return e / tl.sum(e, axis=0)


@triton.jit
def _softmax_backward(gradient, softmax):
    product = gradient * softmax
    return product - softmax * tl.sum(product, axis=0)


@triton.jit
def _key(z, valid, UNIT: tl.constexpr):
    """phi(z), or its root, which has length 1."""
    p = _softmax(z, valid)
    if UNIT:
        return tl.sqrt(p)
    else:  # noqa: RET505 (only one branch is compiled)
        return p


@triton.jit
def _key_backward(gradient, key, UNIT: tl.constexpr):
    if UNIT:
        product = 0.5 * gradient * key
        return product - key * key * tl.sum(product, axis=0)
    else:  # noqa: RET505 (only one branch is compiled)
        return _softmax_backward(gradient, key)


@triton.jit
def _read_with(x, valid, SOFTMAX: tl.constexpr):
    """What the matrix is read with: phi(x), or x itself (which is 0 where it is not valid)."""
    if SOFTMAX:
        return _softmax(x, valid)
    else:  # noqa: RET505 (only one branch is compiled)
        return x


@triton.jit
def _pick(vector, index: tl.constexpr):
    """One of a vector's four entries."""
    return tl.sum(tl.where(tl.arange(0, 4) == index, vector, 0.0), axis=0)


@triton.jit
def _load_blocks(
    base, D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr, STATE: tl.constexpr
):
    """The blocks y, q, k, beta of a (D, E + 2D + 4) matrix, padded with zeros."""
    rows = tl.arange(0, DP)[:, None]
    e, d, four = tl.arange(0, EP)[None, :], tl.arange(0, DP)[None, :], tl.arange(0, 4)[None, :]
    at = base + rows * (E + 2 * D + 4)
    keep = rows < D
    y = tl.load(at + e, mask=keep & (e < E), other=0.0)
    q = tl.load(at + E + d, mask=keep & (d < D), other=0.0)
    k = tl.load(at + E + D + d, mask=keep & (d < D), other=0.0)
    beta = tl.load(at + E + 2 * D + four, mask=keep & (four < 4), other=0.0)
    return y.to(STATE), q.to(STATE), k.to(STATE), beta.to(STATE)


@triton.jit
def _store_blocks(base, y, q, k, beta, D: tl.constexpr, E: tl.constexpr):
    rows, four = tl.arange(0, q.shape[0])[:, None], tl.arange(0, 4)[None, :]
    e, d = tl.arange(0, y.shape[1])[None, :], tl.arange(0, q.shape[1])[None, :]
    at = base + rows * (E + 2 * D + 4)
    keep = rows < D
    kind = base.dtype.element_ty
    tl.store(at + e, y.to(kind), mask=keep & (e < E))
    tl.store(at + E + d, q.to(kind), mask=keep & (d < D))
    tl.store(at + E + D + d, k.to(kind), mask=keep & (d < D))
    tl.store(at + E + 2 * D + four, beta.to(kind), mask=keep & (four < 4))


@triton.jit
def _save_step(
    matrix_at, vector_at, w_y, w_q, w_k, w_beta, phi_x, phi_q, phi_k, d_y, d_q, d_k, d_beta, rate,
    DP: tl.constexpr, EP: tl.constexpr,
):  # fmt: skip
    """Write down what the backward pass needs of a step: block after block, padding included."""
    rows = tl.arange(0, DP)[:, None]
    d, e, four = tl.arange(0, DP), tl.arange(0, EP), tl.arange(0, 4)
    tl.store(matrix_at + rows * EP + e[None, :], w_y)
    tl.store(matrix_at + DP * EP + rows * DP + d[None, :], w_q)
    tl.store(matrix_at + DP * (EP + DP) + rows * DP + d[None, :], w_k)
    tl.store(matrix_at + DP * (EP + 2 * DP) + rows * 4 + four[None, :], w_beta)
    tl.store(vector_at + d, phi_x)
    tl.store(vector_at + DP + d, phi_q)
    tl.store(vector_at + 2 * DP + d, phi_k)
    tl.store(vector_at + 3 * DP + d, d_q)
    tl.store(vector_at + 4 * DP + d, d_k)
    tl.store(vector_at + 5 * DP + e, d_y)
    tl.store(vector_at + 5 * DP + EP + four, d_beta)
    tl.store(vector_at + 5 * DP + EP + 4 + four, rate)


@triton.jit
def _load_step(
    matrix_at, vector_at, gradient_at, reset_at, keep, gradient_e,
    E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """What `_save_step` wrote, and the step's gradient and reset; zeros if not `keep`: there is no such step."""
    rows = tl.arange(0, DP)[:, None]
    d, e, four = tl.arange(0, DP), tl.arange(0, EP), tl.arange(0, 4)
    w_y = tl.load(matrix_at + rows * EP + e[None, :], mask=keep, other=0.0)
    w_q = tl.load(matrix_at + DP * EP + rows * DP + d[None, :], mask=keep, other=0.0)
    w_k = tl.load(matrix_at + DP * (EP + DP) + rows * DP + d[None, :], mask=keep, other=0.0)
    w_beta = tl.load(matrix_at + DP * (EP + 2 * DP) + rows * 4 + four[None, :], mask=keep, other=0.0)
    phi_x = tl.load(vector_at + d, mask=keep, other=0.0)
    phi_q = tl.load(vector_at + DP + d, mask=keep, other=0.0)
    phi_k = tl.load(vector_at + 2 * DP + d, mask=keep, other=0.0)
    d_q = tl.load(vector_at + 3 * DP + d, mask=keep, other=0.0)
    d_k = tl.load(vector_at + 4 * DP + d, mask=keep, other=0.0)
    d_y = tl.load(vector_at + 5 * DP + e, mask=keep, other=0.0)
    d_beta = tl.load(vector_at + 5 * DP + EP + four, mask=keep, other=0.0)
    rate = tl.load(vector_at + 5 * DP + EP + 4 + four, mask=keep, other=0.0)
    grad_y = tl.load(gradient_at + e * gradient_e, mask=keep & (e < E), other=0.0).to(STATE)
    is_reset = tl.load(reset_at, mask=keep, other=0) != 0
    return w_y, w_q, w_k, w_beta, phi_x, phi_q, phi_k, d_y, d_q, d_k, d_beta, rate, grad_y, is_reset


@triton.jit
def _row_times(row, y, q, k, beta):
    """A row (D) times the matrix, block by block."""
    row = row[:, None]
    return (
        tl.sum(row * y, axis=0),
        tl.sum(row * q, axis=0),
        tl.sum(row * k, axis=0),
        tl.sum(row * beta, axis=0),
    )


@triton.jit
def _times_columns(y, q, k, beta, c_y, c_q, c_k, c_beta):
    """The matrix times a vector over its columns: (D)."""
    square = q * c_q[None, :] + k * c_k[None, :]
    wide = y * c_y[None, :]
    rest = tl.sum(beta * c_beta[None, :], axis=1)
    if y.shape[1] == q.shape[1]:  # one sum over lanes instead of two
        return tl.sum(square + wide, axis=1) + rest
    else:  # noqa: RET505 (only one branch is compiled)
        return tl.sum(square, axis=1) + tl.sum(wide, axis=1) + rest


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _forward_kernel(
    x, w0, shift, reset, y, new_shift, matrices, vectors,
    steps, heads, programs,
    x_t, x_b, x_h, x_d, reset_t, reset_b,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
    SAVE: tl.constexpr, SOFTMAX: tl.constexpr, OFFSET: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    STATE: tl.constexpr = matrices.dtype.element_ty
    SIZE: tl.constexpr = D * (E + 2 * D + 4)
    MATRIX: tl.constexpr = DP * (EP + 2 * DP + 4)
    VECTOR: tl.constexpr = 5 * DP + EP + 8
    program = tl.program_id(0).to(tl.int64)
    programs = tl.cast(programs, tl.int64)  # in a large batch, steps may lie 2^31 numbers apart
    b, h = program // heads, program % heads
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    in_d, in_e = d < D, e < E

    i_y, i_q, i_k, i_beta = _load_blocks(w0 + h * SIZE, D, E, DP, EP, STATE)
    w_y, w_q, w_k, w_beta = _load_blocks(shift + program * SIZE, D, E, DP, EP, STATE)
    w_y, w_q, w_k, w_beta = i_y + w_y, i_q + w_q, i_k + w_k, i_beta + w_beta

    x_at = x + b * x_b + h * x_h + d * x_d
    reset_at = reset + b * reset_b
    y_at = y + program * E + e
    matrix_at = matrices + program * MATRIX
    vector_at = vectors + program * VECTOR
    phi_x = _read_with(tl.load(x_at, mask=in_d, other=0.0).to(STATE), in_d, SOFTMAX)
    is_reset = tl.load(reset_at) != 0
    for t in range(steps):
        # Of the next step, so that its latency passes behind the work on this one.
        x_at += x_t
        reset_at += reset_t
        more = t + 1 < steps
        next_x = tl.load(x_at, mask=in_d & more, other=0.0).to(STATE)
        next_reset = tl.load(reset_at, mask=more, other=0) != 0

        w_y, w_q = tl.where(is_reset, i_y, w_y), tl.where(is_reset, i_q, w_q)
        w_k, w_beta = tl.where(is_reset, i_k, w_k), tl.where(is_reset, i_beta, w_beta)
        z_y, z_q, z_k, z_beta = _row_times(phi_x, w_y, w_q, w_k, w_beta)
        tl.store(y_at, z_y.to(y.dtype.element_ty), mask=in_e)
        phi_q, phi_k = _softmax(z_q, in_d), _key(z_k, in_d, UNIT)
        rate = 1.0 / (1.0 + tl.exp(-(z_beta + OFFSET)))
        d_y, d_q, d_k, d_beta = _row_times(phi_q - phi_k, w_y, w_q, w_k, w_beta)
        if SAVE:
            _save_step(
                matrix_at, vector_at, w_y, w_q, w_k, w_beta, phi_x, phi_q, phi_k, d_y, d_q, d_k, d_beta, rate, DP, EP
            )  # fmt: skip
            matrix_at += programs * MATRIX
            vector_at += programs * VECTOR
        column = phi_k[:, None]
        w_y += column * (_pick(rate, 0) * d_y)[None, :]
        w_q += column * (_pick(rate, 1) * d_q)[None, :]
        w_k += column * (_pick(rate, 2) * d_k)[None, :]
        w_beta += column * (_pick(rate, 3) * d_beta)[None, :]

        y_at += programs * E
        phi_x = _read_with(next_x, in_d, SOFTMAX)
        is_reset = next_reset
    _store_blocks(new_shift + program * SIZE, w_y - i_y, w_q - i_q, w_k - i_k, w_beta - i_beta, D, E)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _backward_kernel(
    matrices, vectors, reset, grad_y, grad_new_shift, grad_x, grad_w0, grad_shift,
    steps, heads, programs,
    g_t, g_b, g_h, g_e, reset_t, reset_b,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
    SOFTMAX: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    STATE: tl.constexpr = matrices.dtype.element_ty
    SIZE: tl.constexpr = D * (E + 2 * D + 4)
    MATRIX: tl.constexpr = DP * (EP + 2 * DP + 4)
    VECTOR: tl.constexpr = 5 * DP + EP + 8
    program = tl.program_id(0).to(tl.int64)
    programs = tl.cast(programs, tl.int64)
    b, h = program // heads, program % heads
    d, four = tl.arange(0, DP), tl.arange(0, 4)
    last = tl.cast(steps, tl.int64) - 1

    # G, the gradient of the matrix behind a step; and what has left through resets, which reaches w0 alone.
    g_y, g_q, g_k, g_beta = _load_blocks(grad_new_shift + program * SIZE, D, E, DP, EP, STATE)
    # The shift is the last matrix minus w0.
    a_y, a_q, a_k, a_beta = -g_y, -g_q, -g_k, -g_beta

    matrix_at = matrices + (last * programs + program) * MATRIX
    vector_at = vectors + (last * programs + program) * VECTOR
    gradient_at = grad_y + last * g_t + b * g_b + h * g_h
    reset_at = reset + last * reset_t + b * reset_b
    grad_x_at = grad_x + (last * programs + program) * D + d
    w_y, w_q, w_k, w_beta, phi_x, phi_q, phi_k, d_y, d_q, d_k, d_beta, rate, gz_y, is_reset = _load_step(
        matrix_at, vector_at, gradient_at, reset_at, True, g_e, E, DP, EP, STATE
    )
    for done in range(steps):
        matrix_at -= programs * MATRIX
        vector_at -= programs * VECTOR
        gradient_at -= g_t
        reset_at -= reset_t
        n_y, n_q, n_k, n_beta, n_phi_x, n_phi_q, n_phi_k, n_dy, n_dq, n_dk, n_dbeta, n_rate, n_gy, n_reset = (
            _load_step(matrix_at, vector_at, gradient_at, reset_at, done + 1 < steps, g_e, E, DP, EP, STATE)
        )

        r_y, r_q, r_k, r_beta = _pick(rate, 0), _pick(rate, 1), _pick(rate, 2), _pick(rate, 3)
        gu_y, gu_q, gu_k, gu_beta = _row_times(phi_k, g_y, g_q, g_k, g_beta)
        grad_phi_k = _times_columns(g_y, g_q, g_k, g_beta, r_y * d_y, r_q * d_q, r_k * d_k, r_beta * d_beta)
        rate_y, rate_q = tl.sum(d_y * gu_y, axis=0), tl.sum(d_q * gu_q, axis=0)
        rate_k, rate_beta = tl.sum(d_k * gu_k, axis=0), tl.sum(d_beta * gu_beta, axis=0)
        grad_rate = tl.where(
            four == 0, rate_y, tl.where(four == 1, rate_q, tl.where(four == 2, rate_k, rate_beta))
        )
        gz_beta = grad_rate * rate * (1.0 - rate)
        gd_y, gd_q, gd_k, gd_beta = r_y * gu_y, r_q * gu_q, r_k * gu_k, r_beta * gu_beta
        grad_m = _times_columns(w_y, w_q, w_k, w_beta, gd_y, gd_q, gd_k, gd_beta)
        gz_q = _softmax_backward(grad_m, phi_q)
        gz_k = _key_backward(grad_phi_k - grad_m, phi_k, UNIT)
        grad_phi_x = _times_columns(w_y, w_q, w_k, w_beta, gz_y, gz_q, gz_k, gz_beta)
        grad_read = _softmax_backward(grad_phi_x, phi_x) if SOFTMAX else grad_phi_x
        tl.store(grad_x_at, grad_read.to(grad_x.dtype.element_ty), mask=d < D)
        grad_x_at -= programs * D

        m, p = (phi_q - phi_k)[:, None], phi_x[:, None]
        g_y += m * gd_y[None, :] + p * gz_y[None, :]
        g_q += m * gd_q[None, :] + p * gz_q[None, :]
        g_k += m * gd_k[None, :] + p * gz_k[None, :]
        g_beta += m * gd_beta[None, :] + p * gz_beta[None, :]
        if is_reset:
            a_y, a_q, a_k, a_beta = a_y + g_y, a_q + g_q, a_k + g_k, a_beta + g_beta
            g_y, g_q = tl.zeros_like(g_y), tl.zeros_like(g_q)
            g_k, g_beta = tl.zeros_like(g_k), tl.zeros_like(g_beta)

        w_y, w_q, w_k, w_beta, phi_x, phi_q, phi_k = n_y, n_q, n_k, n_beta, n_phi_x, n_phi_q, n_phi_k
        d_y, d_q, d_k, d_beta, rate, gz_y, is_reset = n_dy, n_dq, n_dk, n_dbeta, n_rate, n_gy, n_reset
    _store_blocks(grad_shift + program * SIZE, g_y, g_q, g_k, g_beta, D, E)
    _store_blocks(grad_w0 + program * SIZE, a_y + g_y, a_q + g_q, a_k + g_k, a_beta + g_beta, D, E)


class SrwmScan(torch.autograd.Function):
    """The self-referential weight matrix in one launch; `save` for what the backward pass needs."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w0: Tensor,
        shift: Tensor,
        reset: Tensor,
        save: bool,
        input_softmax: bool,
        rate_offset: float,
        unit_key: bool,
    ) -> tuple[Tensor, Tensor]:
        steps, batch, heads, width = x.shape
        output = w0.shape[-1] - 2 * width - 4
        high, wide = padded(width), padded(output)
        y = x.new_empty(steps, batch, heads, output)
        new_shift = shift.new_empty(shift.shape)
        saved = (steps, batch, heads) if save else (0,)
        matrices = x.new_empty(*saved, high * (wide + 2 * high + 4), dtype=state_dtype(x, w0, shift))
        vectors = matrices.new_empty(*saved, 5 * high + wide + 8)
        launch(
            _forward_kernel,
            (steps, batch, heads, width, output),
            (
                x,
                w0.contiguous(),
                shift.contiguous(),
                reset.view(torch.uint8),
                y,
                new_shift,
                matrices,
                vectors,
            ),
            strided=(x, reset),
            matrix=high * (2 * high + wide),
            SAVE=save,
            SOFTMAX=input_softmax,
            OFFSET=rate_offset,
            UNIT=unit_key,
        )
        if save:
            ctx.save_for_backward(matrices, vectors, reset)
            ctx.width, ctx.input_softmax, ctx.unit_key = width, input_softmax, unit_key
            ctx.dtypes = x.dtype, w0.dtype, shift.dtype
        return y, new_shift

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_new_shift: Tensor) -> tuple[Tensor | None, ...]:
        matrices, vectors, reset = ctx.saved_tensors
        x_dtype, w0_dtype, shift_dtype = ctx.dtypes
        (steps, batch, heads, output), width = grad_y.shape, ctx.width
        shape = (batch, heads, width, output + 2 * width + 4)
        grad_x = grad_y.new_empty(steps, batch, heads, width, dtype=x_dtype)
        grad_w0 = matrices.new_empty(shape)
        grad_shift = grad_y.new_empty(shape, dtype=shift_dtype)
        inputs = (matrices, vectors, reset.view(torch.uint8), grad_y, grad_new_shift.contiguous())
        launch(
            _backward_kernel,
            (steps, batch, heads, width, output),
            (*inputs, grad_x, grad_w0, grad_shift),
            strided=(grad_y, reset),
            matrix=padded(width) * (2 * padded(width) + padded(output)),
            SOFTMAX=ctx.input_softmax,
            UNIT=ctx.unit_key,
        )
        return grad_x, grad_w0.sum(dim=0).to(w0_dtype), grad_shift, None, None, None, None, None
