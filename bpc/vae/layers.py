"""The layers of the VampPrior paper's networks: gated, Glorot-initialised, masked for PixelCNN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GatedConv2d", "GatedLinear", "LogVariance", "MaskedConv2d", "glorot_"]

MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -6.0, 2.0


class GatedLinear(nn.Module):
    """h = (A x + a) * sigmoid(B x + b): (..., d_in) -> (..., d_out). Both products are one."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.both = nn.Linear(d_in, 2 * d_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.both(x), dim=-1)


class GatedConv2d(nn.Module):
    """The same with a convolution: (b, c, h, w) -> (b, d, h', w')."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, *, padding: int | None = None) -> None:
        super().__init__()
        self.both = nn.Conv2d(c_in, 2 * c_out, kernel, stride, kernel // 2 if padding is None else padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.both(x), dim=1)


class LogVariance(nn.Module):
    """A linear layer whose output is kept within [-6, 2]."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_in, d_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees only pixels before its own in raster order (van den Oord et al. 2016).

    Args:
        kind: "A" hides the pixel itself as well (first layer), "B" shows it.
    """

    mask: Tensor

    def __init__(self, kind: str, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__(c_in, c_out, kernel, padding=kernel // 2)
        mask = torch.ones(kernel, kernel)
        centre = kernel // 2
        mask[centre, centre + (kind == "B") :] = 0
        mask[centre + 1 :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


def glorot_(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight uniform on +-sqrt(6 / (fan in + fan out)) and zero the biases (Glorot and Bengio 2010).

    A gated layer holds two matrices, each with its own fan out.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            weight = layer.weight
            field = weight[0, 0].numel() if weight.ndim > 2 else 1
            fan = field * (weight.shape[0] + weight.shape[1])
            with torch.no_grad():
                bound = (6.0 / fan) ** 0.5
                weight.copy_((2.0 * torch.rand(weight.shape, generator=generator) - 1.0) * bound)
                if layer.bias is not None:
                    layer.bias.zero_()
    for layer in module.modules():
        if isinstance(layer, (GatedLinear, GatedConv2d)):
            weight = layer.both.weight
            field = weight[0, 0].numel() if weight.ndim > 2 else 1
            d_out, d_in = weight.shape[0] // 2, weight.shape[1]
            with torch.no_grad():
                weight.mul_(((2 * d_out + d_in) / (d_out + d_in)) ** 0.5)
