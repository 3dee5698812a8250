"""The delta rule as Triton kernels: a whole sequence in one launch forward and one backward.

Same function as `deltanet_naive`: a scan, write then read, with the matrix of one head of one environment in registers
for all steps; docs/operators.md says how the kernels work. For the backward pass, the forward pass writes down the
matrix before each write, and the error e = v - k W that was corrected.

With W the matrix before a step's write, W' = W + k^T (beta e) behind it, y = q W', and G the gradient of W' (vectors
are rows; g is the gradient with respect to what follows it):

    G += q^T gy             gq = gy W'^T = gy W^T + beta (e gy^T) k
    gu = k G                gbeta = gu e^T        ge = gv = beta gu
    gk = beta e G^T - ge W^T                      gW = G - k^T ge
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
def _load_inputs(
    q_at, k_at, v_at, beta_at, reset_at, keep, D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
    STATE: tl.constexpr,
):  # fmt: skip
    """q, k, v (or the gradient of y), beta and whether to reset; zeros if not `keep`: there is no such step."""
    in_d, in_e = keep & (tl.arange(0, DP) < D), keep & (tl.arange(0, EP) < E)
    q = tl.load(q_at, mask=in_d, other=0.0).to(STATE)
    k = tl.load(k_at, mask=in_d, other=0.0).to(STATE)
    v = tl.load(v_at, mask=in_e, other=0.0).to(STATE)
    beta = tl.load(beta_at, mask=keep, other=0.0).to(STATE)
    return q, k, v, beta, tl.load(reset_at, mask=keep, other=0) != 0


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _forward_kernel(
    q, k, v, beta, memory, reset, y, new_memory, matrices, errors,
    steps, heads, programs,
    q_t, q_b, q_h, q_d, k_t, k_b, k_h, k_d, v_t, v_b, v_h, v_e, beta_t, beta_b, beta_h, reset_t, reset_b,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
    SAVE: tl.constexpr,
):  # fmt: skip
    STATE: tl.constexpr = matrices.dtype.element_ty
    program = tl.program_id(0).to(tl.int64)
    programs = tl.cast(programs, tl.int64)  # in a large batch, steps may lie 2^31 numbers apart
    b, h = program // heads, program % heads
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    inside = (d < D)[:, None] & (e < E)[None, :]
    of_state = program * (D * E) + d[:, None] * E + e[None, :]
    of_matrix = d[:, None] * EP + e[None, :]

    q_at = q + b * q_b + h * q_h + d * q_d
    k_at = k + b * k_b + h * k_h + d * k_d
    v_at = v + b * v_b + h * v_h + e * v_e
    beta_at = beta + b * beta_b + h * beta_h
    reset_at = reset + b * reset_b
    y_at = y + program * E + e
    matrix_at = matrices + program * (DP * EP)
    error_at = errors + program * EP
    w = tl.load(memory + of_state, mask=inside, other=0.0).to(STATE)
    query, key, value, rate, is_reset = _load_inputs(
        q_at, k_at, v_at, beta_at, reset_at, True, D, E, DP, EP, STATE
    )
    for t in range(steps):
        # Of the next step, so that its latency passes behind the work on this one.
        q_at += q_t
        k_at += k_t
        v_at += v_t
        beta_at += beta_t
        reset_at += reset_t
        n_q, n_k, n_v, n_beta, n_reset = _load_inputs(
            q_at, k_at, v_at, beta_at, reset_at, t + 1 < steps, D, E, DP, EP, STATE
        )

        w = tl.where(is_reset, 0.0, w)
        error = value - tl.sum(key[:, None] * w, axis=0)
        if SAVE:
            tl.store(matrix_at + of_matrix, w)
            tl.store(error_at + e, error)
            matrix_at += programs * (DP * EP)
            error_at += programs * EP
        w += key[:, None] * (rate * error)[None, :]
        tl.store(y_at, tl.sum(query[:, None] * w, axis=0).to(y.dtype.element_ty), mask=e < E)
        y_at += programs * E
        query, key, value, rate, is_reset = n_q, n_k, n_v, n_beta, n_reset
    tl.store(new_memory + of_state, w.to(new_memory.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _backward_kernel(
    q, k, beta, reset, matrices, errors, grad_y, grad_new_memory,
    grad_q, grad_k, grad_v, grad_beta, grad_memory,
    steps, heads, programs,
    q_t, q_b, q_h, q_d, k_t, k_b, k_h, k_d, beta_t, beta_b, beta_h, g_t, g_b, g_h, g_e, reset_t, reset_b,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
):  # fmt: skip
    STATE: tl.constexpr = matrices.dtype.element_ty
    program = tl.program_id(0).to(tl.int64)
    programs = tl.cast(programs, tl.int64)
    b, h = program // heads, program % heads
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    inside = (d < D)[:, None] & (e < E)[None, :]
    of_state = program * (D * E) + d[:, None] * E + e[None, :]
    of_matrix = d[:, None] * EP + e[None, :]
    last = tl.cast(steps, tl.int64) - 1
    row = last * programs + program

    q_at = q + last * q_t + b * q_b + h * q_h + d * q_d
    k_at = k + last * k_t + b * k_b + h * k_h + d * k_d
    beta_at = beta + last * beta_t + b * beta_b + h * beta_h
    reset_at = reset + last * reset_t + b * reset_b
    gradient_at = grad_y + last * g_t + b * g_b + h * g_h + e * g_e
    matrix_at = matrices + row * (DP * EP)
    error_at = errors + row * EP
    grad_q_at = grad_q + row * D + d
    grad_k_at = grad_k + row * D + d
    grad_v_at = grad_v + row * E + e
    grad_beta_at = grad_beta + row
    g = tl.load(grad_new_memory + of_state, mask=inside, other=0.0).to(STATE)
    query, key, gradient, rate, is_reset = _load_inputs(
        q_at, k_at, gradient_at, beta_at, reset_at, True, D, E, DP, EP, STATE
    )
    w, error = tl.load(matrix_at + of_matrix), tl.load(error_at + e)
    for done in range(steps):
        q_at -= q_t
        k_at -= k_t
        beta_at -= beta_t
        reset_at -= reset_t
        gradient_at -= g_t
        matrix_at -= programs * (DP * EP)
        error_at -= programs * EP
        more = done + 1 < steps
        n_query, n_key, n_gradient, n_rate, n_reset = _load_inputs(
            q_at, k_at, gradient_at, beta_at, reset_at, more, D, E, DP, EP, STATE
        )
        n_w = tl.load(matrix_at + of_matrix, mask=more, other=0.0)
        n_error = tl.load(error_at + e, mask=more, other=0.0)

        g += query[:, None] * gradient[None, :]
        grad_u = tl.sum(key[:, None] * g, axis=0)
        grad_error = rate * grad_u
        update = rate * error
        query_gradient = tl.sum(w * gradient[None, :], axis=1) + key * tl.sum(update * gradient, axis=0)
        key_gradient = tl.sum(g * update[None, :] - w * grad_error[None, :], axis=1)
        tl.store(grad_q_at, query_gradient.to(grad_q.dtype.element_ty), mask=d < D)
        tl.store(grad_k_at, key_gradient.to(grad_k.dtype.element_ty), mask=d < D)
        tl.store(grad_v_at, grad_error.to(grad_v.dtype.element_ty), mask=e < E)
        tl.store(grad_beta_at, tl.sum(grad_u * error, axis=0).to(grad_beta.dtype.element_ty))
        grad_q_at -= programs * D
        grad_k_at -= programs * D
        grad_v_at -= programs * E
        grad_beta_at -= programs
        g -= key[:, None] * grad_error[None, :]
        g = tl.where(is_reset, 0.0, g)
        query, key, rate, gradient = n_query, n_key, n_rate, n_gradient
        w, error, is_reset = n_w, n_error, n_reset
    tl.store(grad_memory + of_state, g.to(grad_memory.dtype.element_ty), mask=inside)


class DeltaNetScan(torch.autograd.Function):
    """The delta rule in one launch; `save` for what the backward pass needs."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor, save: bool
    ) -> tuple[Tensor, Tensor]:
        (steps, batch, heads, width), output = q.shape, v.shape[-1]
        high, wide = padded(width), padded(output)
        y = v.new_empty(v.shape)
        new_memory = memory.new_empty(memory.shape)
        saved = (steps, batch, heads) if save else (0,)
        matrices = v.new_empty(*saved, high * wide, dtype=state_dtype(q, k, v, beta, memory))
        errors = matrices.new_empty(*saved, wide)
        launch(
            _forward_kernel,
            (steps, batch, heads, width, output),
            (q, k, v, beta, memory.contiguous(), reset.view(torch.uint8), y, new_memory, matrices, errors),
            strided=(q, k, v, beta, reset),
            matrix=high * wide,
            SAVE=save,
        )
        if save:
            ctx.save_for_backward(q, k, beta, reset, matrices, errors)
            ctx.dtypes = v.dtype, memory.dtype
        return y, new_memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_new_memory: Tensor) -> tuple[Tensor | None, ...]:
        q, k, beta, reset, matrices, errors = ctx.saved_tensors
        v_dtype, memory_dtype = ctx.dtypes
        (steps, batch, heads, width), output = q.shape, grad_y.shape[-1]
        grad_q, grad_k, grad_beta = (tensor.new_empty(tensor.shape) for tensor in (q, k, beta))
        grad_v = grad_y.new_empty(grad_y.shape, dtype=v_dtype)
        grad_memory = grad_y.new_empty(batch, heads, width, output, dtype=memory_dtype)
        inputs = (q, k, beta, reset.view(torch.uint8), matrices, errors, grad_y, grad_new_memory.contiguous())
        gradients = (grad_q, grad_k, grad_v, grad_beta, grad_memory)
        launch(
            _backward_kernel,
            (steps, batch, heads, width, output),
            (*inputs, *gradients),
            strided=(q, k, beta, grad_y, reset),
            matrix=padded(width) * padded(output),
        )
        return *gradients, None, None
