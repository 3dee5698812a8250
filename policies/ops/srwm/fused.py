"""The self-referential weight matrix with a hand-derived backward pass.

Same function as `naive`. The loop over time stays, since each step's matrix depends on all of the one before;
but a step is a handful of batched products over all streams and heads at once, without a record of each
elementary operation for autograd.

The matrices themselves are not kept for the backward pass. It starts from the last one and takes the updates
back, one after the other, so that the matrix stays in the processor's cache; only where a reset threw a
matrix away is there a copy. Taking back an addition loses no more than rounding does in making it.

Notation, for one stream and head, as in `policies.ops.srwm.srwm` (vectors are rows): W is the matrix used at
a step, z = phi(x) W = [y, q, k, beta], m = phi(q) - phi(k), d = m W, r = sigmoid(beta) spread over the blocks
of columns, u = r * d, and W' = W + phi(k)^T u is the matrix after it. g is the gradient with respect to what
follows it, and G = gW':

    gu = phi(k) G        gd = r * gu        gr = d * gu, summed over each block
    gm = gd W^T          gphi(q) = gm       gphi(k) = u G^T - gm
    gz = [gy, gq, gk, gbeta], through softmax and sigmoid
    gphi(x) = gz W^T     gW = G + m^T gd + phi(x)^T gz
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from policies.ops.checks import rows_to_reset


def _spread(output: int, width: int, like: Tensor) -> Tensor:
    """(4, E + 2D + 4): one where a column is in the rate's block; rates @ spread has each column's rate."""
    sizes = torch.tensor([output, width, width, 4], device=like.device)
    return torch.eye(4, dtype=like.dtype, device=like.device).repeat_interleave(sizes, dim=1)


def _softmax_backward(gradient: Tensor, softmax: Tensor) -> Tensor:
    product = gradient * softmax
    return torch.addcmul(product, softmax, product.sum(dim=-1, keepdim=True), value=-1.0)


class _FusedSrwm(torch.autograd.Function):
    """Streams and heads are one dimension, n = B * H, wherever they need not be told apart."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w0: Tensor, shift: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        steps, batch, heads, width = x.shape
        n, columns = batch * heads, w0.shape[-1]
        output = columns - 2 * width - 4  # E
        spread = _spread(output, width, x)
        phi_x = x.softmax(dim=-1).reshape(steps, n, 1, width)
        w = w0 + shift  # (B, H, D, columns); updated in place
        w_n = w.view(n, width, columns)
        outputs, every_phi, every_m, every_d, every_sigmoid, discarded = [], [], [], [], [], []
        for phi_x_t, rows in zip(phi_x.unbind(), rows_to_reset(reset), strict=True):
            if len(rows):
                discarded.append(w[rows])
                w[rows] = w0
            z = torch.bmm(phi_x_t, w_n)
            phi = z[:, 0, output:-4].unflatten(1, (2, width)).softmax(dim=-1)
            phi_q, phi_k = phi.split(1, dim=1)
            m = phi_q - phi_k
            d = torch.bmm(m, w_n)
            sigmoid = z[:, 0, -4:].sigmoid()
            w_n.addcmul_(phi_k.transpose(1, 2), d * (sigmoid @ spread).unsqueeze(1))
            outputs.append(z[..., :output])
            every_phi.append(phi)
            every_m.append(m)
            every_d.append(d)
            every_sigmoid.append(sigmoid)
        saved = [torch.stack(every) for every in (every_phi, every_m, every_d, every_sigmoid)]
        ctx.save_for_backward(phi_x, *saved, w, reset, *discarded)
        return torch.stack(outputs).view(steps, batch, heads, output), w - w0

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_shift: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        phi_x, every_phi, every_m, every_d, every_sigmoid, w, reset, *discarded = ctx.saved_tensors
        steps, batch, heads, output = grad_y.shape
        n, (width, columns) = batch * heads, w.shape[-2:]
        spread = _spread(output, width, w)
        spread_t = spread.t()
        # What the loop needs of each step: (T, n, ...), made for all steps at once.
        every_rate = (every_sigmoid @ spread).unsqueeze(2)
        every_slope = ((every_sigmoid - every_sigmoid.square()) @ spread).unsqueeze(2)
        per_step = zip(
            every_phi.unbind(),
            (every_rate * every_d).unbind(),
            every_rate.unbind(),
            (every_slope * every_d).squeeze(2).unbind(),
            torch.cat([every_m, phi_x], dim=2).transpose(2, 3).unbind(),
            grad_y.reshape(steps, n, 1, output).unbind(),
            rows_to_reset(reset),
            strict=True,
        )
        w = w.clone()
        grad_w = grad_shift.clone(memory_format=torch.contiguous_format)
        w_n, grad_w_n = w.view(n, width, columns), grad_w.view(n, width, columns)
        w_n_t, grad_w_n_t = w_n.transpose(1, 2), grad_w_n.transpose(1, 2)
        grad_w0 = -grad_shift.sum(dim=0)
        grad_phi_x = []
        for phi, u, rate, d_slope, m_and_phi_x, grad_y_t, rows in reversed(list(per_step)):
            phi_k = phi[:, 1:]
            w_n.addcmul_(phi_k.transpose(1, 2), u, value=-1.0)  # the matrix that the step's products used
            grad_u = torch.bmm(phi_k, grad_w_n)
            grad_phi_k = torch.bmm(u, grad_w_n_t)
            grad_d = rate * grad_u
            grad_beta = (d_slope * grad_u.squeeze(1)) @ spread_t
            grad_m = torch.bmm(grad_d, w_n_t)
            grad_qk = _softmax_backward(torch.cat([grad_m, grad_phi_k - grad_m], dim=1), phi)
            grad_z = torch.cat([grad_y_t, grad_qk.view(n, 1, 2 * width), grad_beta.unsqueeze(1)], dim=2)
            grad_phi_x.append(torch.bmm(grad_z, w_n_t))
            grad_w_n.baddbmm_(m_and_phi_x, torch.cat([grad_d, grad_z], dim=1))
            if len(rows):
                grad_w0 += grad_w[rows].sum(dim=0)
                grad_w[rows] = 0.0
                w[rows] = discarded.pop()
        grad_x = _softmax_backward(torch.stack(grad_phi_x[::-1]), phi_x).view(steps, batch, heads, width)
        return grad_x, grad_w0 + grad_w.sum(dim=0), grad_w, None


def srwm_fused(x: Tensor, w0: Tensor, shift: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """See `policies.ops.srwm.srwm`."""
    y, new_shift = _FusedSrwm.apply(x, w0, shift, reset)
    return y, new_shift
