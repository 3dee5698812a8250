"""The self-referential weight matrix (SRWM; Irie et al., ICML 2022, arXiv 2202.05780, equations 5 to 8).

`srwm_naive` is the reference for every other version; the Triton version is in `srwm_triton.py`.
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


def srwm(
    x: Tensor,
    w0: Tensor,
    shift: Tensor,
    reset: Tensor,
    implementation: str = AUTO,
    input_softmax: bool = True,
    rate_offset: float = 0.0,
    unit_key: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run a matrix that rewrites itself over a sequence.

    For each environment and head, with D the head's width, E the width of its output, phi the softmax over D and W a
    D x (E + 2D + 4) matrix:

        [y_t, q_t, k_t, beta_t] = phi(x_t) W_{t-1}
        W_t = W_{t-1} + phi(k_t) (outer) (sigmoid(beta_t) * (phi(q_t) W_{t-1} - phi(k_t) W_{t-1}))

    beta_t has one rate for each of the blocks y, q, k, beta of the columns. E follows from the number of columns of
    `w0`; in the paper's layer it is D. The output is read before the update. Gradient reaches every tensor but
    `reset`, through the updates too, and never crosses a reset. Gradients of gradients exist for "naive" only.

    Three things may differ from the paper: without `input_softmax` x_t itself takes the place of phi(x_t);
    `rate_offset` is added to beta_t before the sigmoid; and with `unit_key`, the root of phi(k_t), which has length 1,
    takes its place. A sharper softmax of q and k needs nothing here: see `sharpened`.

    Keys of length 1 keep the matrix bounded. An update multiplies W from the left by I + beta k (q - k)^T, with k and q
    for what stands for phi(k) and phi(q): its only eigenvalue other than 1 is 1 + beta (q.k - k.k). Where a soft key
    meets a sharp query, q.k > k.k, and while the input hardly changes, the matrix grows exponentially. For |k| = 1 that
    cannot be, since q.k <= |q| <= 1.

    Args:
        x: inputs (T, B, H, D), T at least 1.
        w0: the trained matrix (H, D, E + 2D + 4); columns in the order y, q, k, beta.
        shift: W_0 of this sequence minus `w0` (B, H, D, E + 2D + 4); zero for a fresh environment. Not modified.
        reset: bool (T, B); where true, W is set back to `w0` before step t.
        implementation: a name in `SRWM.versions`, or "auto" for the fastest one that can run these tensors.
        input_softmax: whether the matrix is read with phi(x); if not, with x.
        rate_offset: rates begin at about its sigmoid.
        unit_key: whether keys have length 1; if not, they sum to 1.

    Returns:
        y (T, B, H, E), and the shift after the last step (B, H, D, E + 2D + 4).

    Raises:
        TypeError: `reset` is not bool.
        ValueError: shapes do not fit together.
        UserError: no such implementation, or it cannot run these tensors.
    """
    if x.dim() != 4 or x.shape[0] == 0:
        raise ValueError(f"x must be (T, B, H, D) with T at least 1, got {tuple(x.shape)}")
    steps, batch, heads, width = x.shape
    columns = w0.shape[-1] if w0.dim() else 0
    output = columns - 2 * width - 4
    if output < 1:
        raise ValueError(
            f"w0 must be (H, D, E + 2D + 4) with E at least 1: for D = {width} that is {2 * width + 5} columns "
            f"or more, got {tuple(w0.shape)}"
        )
    check_shape("w0", w0, (heads, width, columns))
    check_shape("shift", shift, (batch, heads, width, columns))
    check_reset(reset, steps, batch)
    run = SRWM.version(x.device, steps, width, output, implementation)
    return run(x, w0, shift, reset, input_softmax, rate_offset, unit_key)


def sharpened(w0: Tensor, sharpness: Tensor) -> Tensor:
    """The matrix whose q and k are s times those of `w0`, so that phi of them is softmax(s q) and softmax(s k).

    An update adds the same multiple of a row to each column of a block, so a block that begins s times as large stays
    s times as large: nothing else changes in what the matrix does. Its shift is s times as large there, too.

    Args:
        w0: (H, D, E + 2D + 4).
        sharpness: s of q and of k, each for all heads or one by one: (2, H) or (2, 1).
    """
    width = w0.shape[1]
    output = w0.shape[2] - 2 * width - 4
    y, qk, beta = w0.split([output, 2 * width, 4], dim=2)
    return torch.cat([y, qk * sharpness.t().repeat_interleave(width, dim=1).unsqueeze(1), beta], dim=2)


def read_with(x: Tensor, input_softmax: bool) -> Tensor:
    """What the matrix is read with: phi(x), or x itself."""
    return x.softmax(dim=-1) if input_softmax else x


def _rates(beta: Tensor, rate_offset: float) -> Tensor:
    # Where nothing is added, nothing is done: in acting, each small operation counts.
    return (beta + rate_offset if rate_offset else beta).sigmoid()


def _key(k: Tensor, unit_key: bool) -> Tensor:
    """phi(k), or its root; not by way of phi(k), at whose zeros the root has no derivative."""
    return (0.5 * k.log_softmax(dim=-1)).exp() if unit_key else k.softmax(dim=-1)


def srwm_naive(
    x: Tensor,
    w0: Tensor,
    shift: Tensor,
    reset: Tensor,
    input_softmax: bool = True,
    rate_offset: float = 0.0,
    unit_key: bool = False,
) -> tuple[Tensor, Tensor]:
    """`srwm` as a plain loop."""
    width = x.shape[-1]
    blocks = [w0.shape[-1] - 2 * width - 4, width, width, 4]
    resets = steps_with_resets(reset)
    phi_x = read_with(x, input_softmax).unsqueeze(-2)  # (T, B, H, 1, D)
    w = w0 + shift  # (B, H, D, E + 2D + 4)
    outputs = []
    for t in range(x.shape[0]):
        if resets[t]:
            w = torch.where(reset[t, :, None, None, None], w0, w)
        y, q, k, beta = (phi_x[t] @ w).split(blocks, dim=-1)  # each (B, H, 1, its block)
        outputs.append(y.squeeze(-2))
        phi_q, phi_k = q.softmax(dim=-1), _key(k, unit_key)
        rates = _rates(beta, rate_offset).split(1, dim=-1)
        # v_new - v_old = phi(q) W - phi(k) W, in one product.
        difference = ((phi_q - phi_k) @ w).split(blocks, dim=-1)
        step = torch.cat([rate * block for rate, block in zip(rates, difference, strict=True)], dim=-1)
        w = w + phi_k.transpose(-1, -2) * step
    return torch.stack(outputs), w - w0


def _block_of_column(output: int, width: int, device: torch.device) -> Tensor:
    """For each of the E + 2D + 4 columns, which of the blocks y, q, k, beta (0 to 3) it is in."""
    return torch.tensor([0] * output + [1] * width + [2] * width + [3] * 4, device=device)


def srwm_step(
    x: Tensor,
    w0: Tensor,
    shift: Tensor,
    reset: Tensor,
    input_softmax: bool = True,
    rate_offset: float = 0.0,
    unit_key: bool = False,
) -> tuple[Tensor, Tensor]:
    """`srwm` for calls of a single step, as in acting: few operations, and few passes over the matrices, which are all
    that a step costs. Longer sequences take one step after the other."""
    steps, batch, heads, width = x.shape
    n, columns = batch * heads, w0.shape[-1]
    output = columns - 2 * width - 4
    block = _block_of_column(output, width, x.device)
    phi_x = read_with(x, input_softmax).reshape(steps, n, 1, width)
    outputs = []
    for t in range(steps):
        shift = cleared(shift, reset[t])
        w = (w0 + shift).view(n, width, columns)
        z = torch.bmm(phi_x[t], w)
        phi_q, phi_k = z[:, 0, output:-4].unflatten(1, (2, width)).softmax(dim=-1).split(1, dim=1)
        if unit_key:
            phi_k = phi_k.sqrt()
        rate = _rates(z[..., -4:], rate_offset).index_select(2, block)
        step = rate * torch.bmm(phi_q - phi_k, w)
        # The new shift comes from the old one, not from the matrix: that saves a pass, and the rounding of it.
        shift = torch.addcmul(
            shift, phi_k.reshape(batch, heads, width, 1), step.view(batch, heads, 1, columns)
        )
        outputs.append(z[..., :output].reshape(batch, heads, output))
    return torch.stack(outputs), shift


def _rows_to_reset(reset: Tensor) -> list[Tensor]:
    """For each step, the indices of the environments that are reset there. Waits for the device once."""
    counts = reset.sum(dim=1).tolist()
    return list(reset.nonzero()[:, 1].split(counts))


class _FusedSrwm(torch.autograd.Function):
    """A backward pass derived by hand.

    The loop over time stays, since each step's matrix depends on all of the one before; but a step is a handful of
    batched products over all environments and heads at once, without a record of each elementary operation for
    autograd, and without memory of its own: buffers are made once, and every step writes into them.

    The matrices themselves are not kept for the backward pass. It starts from the last one and takes the updates back,
    one after the other, so that the matrix stays in the processor's cache; only where a reset threw a matrix away is
    there a copy. Taking back an addition loses no more than rounding does in making it.

    For one environment and head (vectors are rows), W is the matrix used at a step, z = phi(x) W = [y, q, k, beta],
    m = phi(q) - phi(k), d = m W, r = sigmoid(beta) spread over the blocks of columns, u = r * d, and
    W' = W + phi(k)^T u is the matrix after it. g is the gradient with respect to what follows it, and G = gW':

        gu = phi(k) G        gd = r * gu        gbeta = (1 - r) * u * gu, summed over each block
        gm = gd W^T          gphi(q) = gm       gphi(k) = u G^T - gm
        gz = [gy, gq, gk, gbeta], with gq and gk through softmax
        gphi(x) = gz W^T     gW = G + m^T gd + phi(x)^T gz

    Without a softmax on the input, phi(x) is x; an offset of beta changes r alone. A key of length 1, p = phi(k)^(1/2),
    stands wherever phi(k) does, and gk = (gp * p - p^2 sum(gp * p)) / 2.

    Environments and heads are one dimension, n = B * H, wherever they need not be told apart. A product of batches of
    matrices is fast only if what it writes is contiguous; what it reads need not be.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w0: Tensor,
        shift: Tensor,
        reset: Tensor,
        input_softmax: bool,
        rate_offset: float,
        unit_key: bool,
    ) -> tuple[Tensor, Tensor]:
        steps, batch, heads, width = x.shape
        n, columns = batch * heads, w0.shape[-1]
        output = columns - 2 * width - 4  # E
        block = _block_of_column(output, width, x.device)
        # What is kept for the backward pass, one step after the other.
        m_phi_x = x.new_empty(steps, n, 2, width)  # m above phi(x)
        m_phi_x[:, :, 1] = read_with(x, input_softmax).reshape(steps, n, width)
        phi = x.new_empty(steps, 2, n, width)  # phi(q) and phi(k)
        rate, u = x.new_empty(steps, n, columns), x.new_empty(steps, n, 1, columns)
        y = x.new_empty(steps, n, output)
        discarded: list[Tensor] = []
        # What each step uses up.
        z, d, sigmoid = x.new_empty(n, 1, columns), x.new_empty(n, 1, columns), x.new_empty(n, 4)
        z_y, z_beta = z[:, 0, :output], z[:, 0, -4:]
        z_qk = z[:, 0, output:-4].unflatten(1, (2, width)).transpose(0, 1)
        w = w0 + shift  # (B, H, D, columns); updated in place
        w_n = w.view(n, width, columns)
        m_and_phi_x = m_phi_x.unsqueeze(3).unbind(2)
        views = (*m_and_phi_x, phi, phi.unsqueeze(3), phi.unsqueeze(4), rate, rate.unsqueeze(2), u, y)
        per_step = zip(*(view.unbind() for view in views), _rows_to_reset(reset), strict=True)
        for m, phi_x, phi_t, phi_row, phi_column, rate_t, rate_row, u_t, y_t, rows in per_step:
            if len(rows):
                discarded.append(w[rows])
                w[rows] = w0
            torch.bmm(phi_x, w_n, out=z)
            y_t.copy_(z_y)
            torch.softmax(z_qk, dim=-1, out=phi_t)
            if unit_key:
                phi_t[1].sqrt_()
            torch.sub(phi_row[0], phi_row[1], out=m)
            torch.bmm(m, w_n, out=d)
            torch.sigmoid(z_beta + rate_offset if rate_offset else z_beta, out=sigmoid)
            torch.index_select(sigmoid, 1, block, out=rate_t)
            torch.mul(rate_row, d, out=u_t)
            w_n.addcmul_(phi_column[1], u_t)
        ctx.save_for_backward(m_phi_x, phi, rate, u, w, reset, *discarded)
        ctx.input_softmax, ctx.unit_key = input_softmax, unit_key
        return y.view(steps, batch, heads, output), w - w0

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_shift: Tensor) -> tuple[Tensor | None, ...]:
        m_phi_x, phi, rate, u, w, reset, *discarded = ctx.saved_tensors
        steps, batch, heads, output = grad_y.shape
        n, (width, columns) = batch * heads, w.shape[-2:]
        in_block = torch.eye(4, dtype=w.dtype, device=w.device)
        in_block = in_block[:, _block_of_column(output, width, w.device)].t()  # (columns, 4)
        w = w.clone()
        grad_w = grad_shift.clone(memory_format=torch.contiguous_format)
        w_n, grad_w_n = w.view(n, width, columns), grad_w.view(n, width, columns)
        w_n_t, grad_w_n_t = w_n.transpose(1, 2), grad_w_n.transpose(1, 2)
        grad_w0 = -grad_shift.sum(dim=0)
        grad_phi_x = w.new_empty(steps, n, 1, width)
        # What each step uses up.
        grad_u, by_rate = w.new_empty(n, 1, columns), w.new_empty(n, 1, columns)
        grad_phi, product, sums = (w.new_empty(2, n, size) for size in (width, width, 1))
        grad_m, grad_phi_k = grad_phi.unsqueeze(2).unbind()
        grad_dz = w.new_empty(n, 2, columns)  # gd above gz
        grad_d, grad_z = grad_dz[:, :1], grad_dz[:, 1:]
        grad_z_y, grad_z_beta = grad_dz[:, 1, :output], grad_dz[:, 1, -4:]
        grad_z_qk = grad_dz[:, 1, output:-4].unflatten(1, (2, width)).transpose(0, 1)
        phi_k_row, phi_k_column = phi[:, 1].unsqueeze(2), phi[:, 1].unsqueeze(3)
        # Through phi: gz = g * outer - inner * sum(g * outer).
        outer, inner = phi, phi
        if ctx.unit_key:
            outer, inner = phi.clone(), phi.clone()
            outer[:, 1] *= 0.5
            inner[:, 1] *= phi[:, 1]
        grad_y = grad_y.reshape(steps, n, output)
        views = (m_phi_x.mT, outer, inner, phi_k_row, phi_k_column, rate.unsqueeze(2), u, grad_y, grad_phi_x)
        per_step = list(zip(*(view.unbind() for view in views), _rows_to_reset(reset), strict=True))
        for (
            columns_t,
            outer_t,
            inner_t,
            phi_k,
            phi_k_t,
            rate_t,
            u_t,
            grad_y_t,
            grad_phi_x_t,
            rows,
        ) in reversed(per_step):
            w_n.addcmul_(phi_k_t, u_t, value=-1.0)  # the matrix that the step's products used
            torch.bmm(phi_k, grad_w_n, out=grad_u)
            torch.bmm(u_t, grad_w_n_t, out=grad_phi_k)
            torch.mul(rate_t, grad_u, out=grad_d)
            torch.bmm(grad_d, w_n_t, out=grad_m)
            grad_phi_k.sub_(grad_m)
            torch.sub(grad_u, grad_d, out=by_rate).mul_(u_t)
            grad_z_y.copy_(grad_y_t)
            grad_z_beta.copy_(by_rate.squeeze(1) @ in_block)
            torch.mul(grad_phi, outer_t, out=product)
            torch.sum(product, dim=2, keepdim=True, out=sums)
            torch.addcmul(product, inner_t, sums, value=-1.0, out=grad_z_qk)
            torch.bmm(grad_z, w_n_t, out=grad_phi_x_t)
            grad_w_n.baddbmm_(columns_t, grad_dz)
            if len(rows):
                grad_w0 += grad_w[rows].sum(dim=0)
                grad_w[rows] = 0.0
                w[rows] = discarded.pop()
        grad_x = grad_phi_x
        if ctx.input_softmax:
            phi_x = m_phi_x[:, :, 1:]
            product_x = grad_phi_x * phi_x
            grad_x = torch.addcmul(product_x, phi_x, product_x.sum(dim=-1, keepdim=True), value=-1.0)
        return (
            grad_x.view(steps, batch, heads, width),
            grad_w0 + grad_w.sum(dim=0),
            grad_w,
            None,
            None,
            None,
            None,
        )


def srwm_fused(
    x: Tensor,
    w0: Tensor,
    shift: Tensor,
    reset: Tensor,
    input_softmax: bool = True,
    rate_offset: float = 0.0,
    unit_key: bool = False,
) -> tuple[Tensor, Tensor]:
    """`srwm` with few operations per step and a backward pass by hand; see `_FusedSrwm`."""
    y, new_shift = _FusedSrwm.apply(x, w0, shift, reset, input_softmax, rate_offset, unit_key)
    return y, new_shift


def srwm_triton(
    x: Tensor,
    w0: Tensor,
    shift: Tensor,
    reset: Tensor,
    input_softmax: bool = True,
    rate_offset: float = 0.0,
    unit_key: bool = False,
) -> tuple[Tensor, Tensor]:
    """`srwm` in one launch of a kernel."""
    from policies.ops.srwm_triton import SrwmScan  # here, since Triton need not be installed

    save = wants_gradient(x, w0, shift)
    y, new_shift = SrwmScan.apply(x, w0, shift, reset, save, input_softmax, rate_offset, unit_key)
    return y, new_shift


SRWM = Operator(
    "srwm",
    {"naive": srwm_naive, "fused": srwm_fused, "step": srwm_step, "triton": srwm_triton},
    sequence="fused",
)
