r"""What a ConvNet spends outside its large convolutions, with gradients written by hand: the CPU's fast path.

torch's own gradient of a strided average pool allocates and zeroes a full-size tensor for every slice, that of a group norm's
gradient is a dozen elementwise passes, and oneDNN computes the gradient of a three-channel image as if it had sixteen. All of
this is bound by memory, not arithmetic. The functions here give the same numbers to rounding in fewer passes; tests compare first
and second derivatives with torch's. `norm_relu_pool` can be differentiated twice, as the Wasserstein adjoint needs; a third
derivative is refused.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["conv3x3", "norm_relu_pool", "pool2x2"]

EPS = 1e-5  # of the norm, torch's default
_aten = torch.ops.aten


def pool2x2(x: Tensor) -> Tensor:
    """2x2 average pooling with stride 2 of (n, c, h, w); an odd last row or column is dropped."""
    if x.device.type != "cpu":
        return F.avg_pool2d(x, 2)
    # torch's CPU kernel is scalar: two strided sums take a fifth of its time
    h, w = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    x = x[..., :h, 0:w:2] + x[..., :h, 1:w:2]
    return (x[..., 0::2, :] + x[..., 1::2, :]) * 0.25


# Instance norm, ReLU, average pool ----------------------------------------------------------------------------------------


def norm_relu_pool(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """pool2x2(relu(instance_norm(x) * gain + bias)): (n, c, h, w) with h and w even -> (n, c, h / 2, w / 2).

    Args:
        x: (n, c, h, w), contiguous.
        gain, bias: (c,).

    Raises:
        NotImplementedError: a second derivative is taken with ``create_graph=True``, for a third.
    """
    result: Tensor = _NormReluPool.apply(x, gain, bias)
    return result


class _NormReluPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        n, c, h, w = x.shape
        z, mean, rstd = _aten.native_group_norm(x, gain, bias, n, c, h * w, c, EPS)
        z.relu_()
        ctx.save_for_backward(x, gain, z, mean, rstd)
        return pool2x2(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _NormReluPoolGradient.apply(grads[0], *ctx.saved_tensors)


class _NormReluPoolGradient(torch.autograd.Function):
    r"""The gradient (g, x, gain) -> (dx, dgain, dbias), and its own gradient.

    With y = (x - mean) r the normalised x, <.> the mean over an image's pixels, and
    v = mask * up(g) / 4:

        dx = gain r (v - <v> - y <v y>),    dgain = sum v y,    dbias = sum v.

    Its own gradient, for cotangents (A, B, C) of the three, S = A . dx + B . dgain + C . dbias:

        dS/dg = pool(mask * (gain r (A - <A> - y <A y>) + B y + C))
        dS/dy at fixed r = E = (B - gain r <A y>) v - gain r <v y> A,    dS/dr = gain hw q,    q = <A v> - <A><v> - <A y><v y>
        dS/dx = r (E - <E> - y <E y>) - gain q r^2 y,    dS/dgain = sum r hw q.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, gain: Tensor, z: Tensor, mean: Tensor, rstd: Tensor) -> Any:
        n, c, h, w = x.shape
        v = _unpool_masked(g, z)
        ctx.save_for_backward(x, gain, z, mean, rstd, v)
        ctx.set_materialize_grads(False)
        return _aten.native_group_norm_backward(v, x, mean, rstd, gain, n, c, h * w, c, [True, True, True])

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, b: Tensor | None, c: Tensor | None) -> Any:
        # torch's once_differentiable looks at the cotangents only: with constant ones it would drop the terms through x and gain
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "norm_relu_pool has no third derivative: take its second derivatives without create_graph=True."
            )
        x, gain, z, mean, rstd, v = ctx.saved_tensors
        shape, k = x.shape, x.shape[1]
        x, v = x.flatten(2), v.flatten(2)
        r, m = rstd.view(-1, k), mean.view(-1, k)
        s = gain * r
        a = torch.zeros_like(x) if a is None else a.flatten(2)
        b = torch.zeros_like(gain) if b is None else b
        c = torch.zeros_like(gain) if c is None else c
        v_mean, a_mean = v.mean(2), a.mean(2)
        v_y = r * ((v * x).mean(2) - m * v_mean)
        a_y = r * ((a * x).mean(2) - m * a_mean)
        q = (a * v).mean(2) - a_mean * v_mean - a_y * v_y
        keep = b - s * a_y
        # everything below is a combination of a, v, x and 1, with a coefficient for each image and channel
        slope = _combine((s, a), (keep * r, x), (c - s * a_mean - keep * r * m, None))
        grad_g = pool2x2(_aten.threshold_backward(slope.view(shape), z, 0))
        e_mean = keep * v_mean - s * v_y * a_mean
        e_y = keep * v_y - s * v_y * a_y
        along = r * r * (e_y + s * q)
        grad_x = _combine((-r * s * v_y, a), (r * keep, v), (-along, x), (along * m - r * e_mean, None))
        grad_gain = (r * q).sum(0) * x.shape[2]
        return grad_g, grad_x.view(shape), grad_gain, None, None, None


def _unpool_masked(g: Tensor, z: Tensor) -> Tensor:
    """The gradient of pool2x2(relu) at z >= 0: a quarter of g at each of its four pixels, zero where z is not positive."""
    n, c, h, w = z.shape
    quarter = g * 0.25
    rows = torch.stack((quarter, quarter), -1).view(n, c, h // 2, 1, w)
    return _aten.threshold_backward(rows.expand(n, c, h // 2, 2, w), z.view(n, c, h // 2, 2, w), 0).view(n, c, h, w)


def _combine(*terms: tuple[Tensor, Tensor | None]) -> Tensor:
    """Sum of coefficient (n, c) times (n, c, hw), None standing for ones, in one buffer."""
    (first, x), *rest = terms
    assert x is not None
    total = x * first.unsqueeze(-1)
    for coefficient, x in rest:
        if x is None:
            total.add_(coefficient.unsqueeze(-1))
        else:
            total.addcmul_(x, coefficient.unsqueeze(-1))
    return total


# 3x3 convolution ----------------------------------------------------------------------------------------------------------
# y = C(x, w), and the maps to its gradients, dx = X(dy, w) and dw = W(x, dy), are each linear in both arguments, and their own
# gradients are among the three again: three functions that can be differentiated any number of times. torch's second
# derivative of a convolution goes through transposed copies of everything instead.

FEW_CHANNELS = 4  # of images: up to here X is better computed as one matrix product


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """F.conv2d(x, weight, padding=1): (n, c, h, w), (d, c, 3, 3) -> (n, d, h, w)."""
    result: Tensor = _Conv.apply(x, weight)
    return result


def _conv_backward(dy: Tensor, x: Tensor, w: Tensor, *, of_input: bool) -> Tensor:
    """X or W by torch's kernel; of the argument that is asked for only the shape is looked at."""
    ones, mask = [1, 1], [of_input, not of_input, False]
    gradients = _aten.convolution_backward(dy, x, w, None, ones, ones, ones, False, [0, 0], 1, mask)
    answer: Tensor = gradients[0 if of_input else 1]
    return answer


class _Conv(torch.autograd.Function):
    """C(x, w)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return F.conv2d(x, w, padding=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, w = ctx.saved_tensors
        need_x, need_w = ctx.needs_input_grad
        return (
            _ConvInputGradient.apply(grads[0], w) if need_x else None,
            _ConvWeightGradient.apply(x, grads[0]) if need_w else None,
        )


class _ConvInputGradient(torch.autograd.Function):
    """X(dy, w). For few channels one matrix product for the nine shifts, then their sum: oneDNN would pad c to 16."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(dy, w)
        (n, d, height, width), c = dy.shape, w.shape[1]
        if c > FEW_CHANNELS:
            return _conv_backward(dy, dy.new_empty(1).expand(n, c, height, width), w, of_input=True)
        shifted = w.permute(2, 3, 1, 0).reshape(9 * c, d) @ dy.flatten(2)
        shifted = shifted.view(n, 3, 3, c, height, width)
        total = dy.new_zeros(n, c, height + 2, width + 2)
        for i in range(3):
            for j in range(3):
                total[:, :, i : i + height, j : j + width] += shifted[:, i, j]
        return total[:, :, 1:-1, 1:-1].contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        dy, w = ctx.saved_tensors
        need_dy, need_w = ctx.needs_input_grad
        return (
            _Conv.apply(grads[0], w) if need_dy else None,
            _ConvWeightGradient.apply(grads[0], dy) if need_w else None,
        )


class _ConvWeightGradient(torch.autograd.Function):
    """W(x, dy)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dy: Tensor) -> Tensor:
        ctx.save_for_backward(x, dy)
        shape = (dy.shape[1], x.shape[1], 3, 3)
        return _conv_backward(dy, x, dy.new_empty(1).expand(shape), of_input=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, dy = ctx.saved_tensors
        need_x, need_dy = ctx.needs_input_grad
        return (
            _ConvInputGradient.apply(dy, grads[0]) if need_x else None,
            _Conv.apply(x, grads[0]) if need_dy else None,
        )
