"""The ConvNet of the dataset-distillation literature as a pure function of k flat parameter vectors.

`depth` blocks of 3x3 convolution (`width` channels), normalisation, activation and 2x2 average pooling, then one linear
layer: 320,010 parameters at width 128, depth 3, on 32x32x3 images with 10 classes (Gidaris & Komodakis 2018; Zhao et al.
2021; Section 5.1 of Kim et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bpc.errors import ConfigError, unknown_name
from bpc.models.fused import conv3x3, norm_relu_pool, pool2x2
from bpc.models.network import Kind, ParameterBlock

__all__ = ["ConvNet", "ConvNetConfig"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}
NORMS = ("instance", "group", "none")
GROUPS = 4  # of the group norm, as in the published ConvNet
FUSED_FROM = 16  # pixels a row; on shorter ones the fused functions cost as much as they save


@dataclass(frozen=True, kw_only=True)
class ConvNetConfig:
    """Shape of a `ConvNet`: `norm` is instance, group (4 groups) or none; `activation` a key of `ACTIVATIONS`."""

    width: int = 128
    depth: int = 3
    norm: str = "instance"
    activation: str = "relu"

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1:
            raise ConfigError(f"ConvNet width and depth must be at least 1; got {self.width} and {self.depth}.")
        if self.norm not in NORMS:
            raise unknown_name("norm", self.norm, NORMS)
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        if self.norm == "group" and self.width % GROUPS:
            raise ConfigError(f"Group norm needs a width divisible by {GROUPS}; got {self.width}.")


class ConvNet:
    """A `bpc.models.Network`. Parameters lie in one vector, block after block: convolution weight (width, in, 3, 3) and
    bias, norm gain and bias, and at the end the linear weight (y, d) and bias: the order of the same `nn.Sequential`.

    Args:
        config: width, depth, norm, activation.
        image_shape: (c, h, w).
        num_classes: y.
    """

    def __init__(self, config: ConvNetConfig, image_shape: tuple[int, int, int], num_classes: int) -> None:
        c, h, w = image_shape
        smallest = 2**config.depth
        # an instance norm over a single pixel would erase it
        if min(h, w) < smallest or (config.norm == "instance" and min(h, w) // (smallest // 2) < 2):
            raise ConfigError(
                f"A ConvNet of depth {config.depth} halves the image {config.depth} times and needs at least "
                f"{smallest} pixels a side; got {h}x{w}. Use a smaller --depth."
            )
        self.config, self.image_shape, self.num_classes = config, image_shape, num_classes
        self.name = f"convnet-w{config.width}-d{config.depth}"
        if config.norm != "instance":
            self.name += f"-{config.norm}norm"
        if config.activation != "relu":
            self.name += f"-{config.activation}"
        self._activation = ACTIVATIONS[config.activation]
        self._fast = config.activation == "relu"  # norm, ReLU and pool in one function, on the CPU
        self.num_features = config.width * (h >> config.depth) * (w >> config.depth)

        self.layout: list[ParameterBlock] = []
        channels = c
        for i in range(config.depth):
            self._add(f"conv{i}.weight", (config.width, channels, 3, 3), "weight", channels * 9)
            self._add(f"conv{i}.bias", (config.width,), "bias", channels * 9)
            if config.norm != "none":
                self._add(f"norm{i}.gain", (config.width,), "gain", 0)
                self._add(f"norm{i}.shift", (config.width,), "shift", 0)
            channels = config.width
        self._add("linear.weight", (num_classes, self.num_features), "weight", self.num_features)
        self._add("linear.bias", (num_classes,), "bias", self.num_features)
        self._shapes = [block.shape for block in self.layout]
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self.num_params = sum(self._sizes)

    def _add(self, name: str, shape: tuple[int, ...], kind: Kind, fan_in: int) -> None:
        self.layout.append(ParameterBlock(name, shape, kind, fan_in))

    def __repr__(self) -> str:
        return f"ConvNet({self.name}, {self.num_params:,} parameters)"

    def init(self, k: int, generator: torch.Generator) -> Tensor:
        """Draw k parameter vectors, (k, p): weights and biases uniform on +-1/sqrt(fan in), norm gains 1, norm biases 0."""
        parts = []
        for size, block in zip(self._sizes, self.layout, strict=True):
            if block.fan_in:
                bound = 1.0 / math.sqrt(block.fan_in)
                draw = torch.rand(k, size, generator=generator, device=generator.device)
                parts.append((2.0 * draw - 1.0) * bound)
            else:
                parts.append(torch.full((k, size), 1.0 if block.kind == "gain" else 0.0, device=generator.device))
        return torch.cat(parts, dim=1)

    def __call__(self, params: Tensor, images: Tensor) -> Tensor:
        """Logits (k, n, y); see `Network`."""
        return self._forward(params, images, logits=True)

    def features(self, params: Tensor, images: Tensor) -> Tensor:
        """Flattened inputs of the linear layer, (k, n, d)."""
        return self._forward(params, images, logits=False)

    def _check(self, params: Tensor, images: Tensor) -> None:
        if params.ndim != 2 or params.shape[1] != self.num_params:
            raise ValueError(f"params must be (k, {self.num_params}); got {tuple(params.shape)}.")
        k = params.shape[0]
        if images.ndim not in (4, 5) or (images.ndim == 5 and images.shape[0] != k):
            raise ValueError(
                f"images must be (n, c, h, w), or (k, n, c, h, w) with k = {k}; got {tuple(images.shape)}."
            )
        if tuple(images.shape[-3:]) != self.image_shape:
            raise ValueError(f"images must be {self.image_shape} each; got {tuple(images.shape[-3:])}.")

    def _forward(self, params: Tensor, images: Tensor, *, logits: bool) -> Tensor:
        """One pass with the k networks side by side on the channel axis: (n, k * c, h, w) and grouped convolutions."""
        self._check(params, images)
        k, n = params.shape[0], images.shape[-4]
        parts = iter(
            [part.reshape(k * shape[0], *shape[1:]) for part, shape in
             zip(params.split(self._sizes, dim=1), self._shapes, strict=True)]
        )  # fmt: skip
        if images.ndim == 5:
            x, groups = images.transpose(0, 1).reshape(n, -1, *images.shape[-2:]), k
        else:
            x, groups = images, 1  # all networks read the same channels: one plain convolution with k * width outputs
        for _ in range(self.config.depth):
            weight, bias = next(parts), next(parts)
            fast = self._fast and x.device.type == "cpu" and x.shape[-1] >= FUSED_FROM
            if self.config.norm == "instance":
                # the norm subtracts each channel's mean, so this bias has no effect and its gradient is exactly zero
                plain = fast and groups == 1
                x = conv3x3(x, weight) if plain else F.conv2d(x, weight, None, padding=1, groups=groups)
                gain, bias = next(parts), next(parts)
                if fast and not (x.shape[-2] % 2 or x.shape[-1] % 2):
                    x, groups = norm_relu_pool(x, gain, bias), k
                    continue
                x = F.group_norm(x, k * self.config.width, gain, bias)
            else:
                x = F.conv2d(x, weight, bias, padding=1, groups=groups)
                if self.config.norm == "group":
                    x = F.group_norm(x, k * GROUPS, next(parts), next(parts))
            x, groups = pool2x2(self._activation(x)), k
        x = x.reshape(n, k, self.num_features).transpose(0, 1)
        if not logits:
            return x
        weight, bias = next(parts), next(parts)
        weight = weight.view(k, self.num_classes, self.num_features)
        return torch.baddbmm(bias.view(k, 1, self.num_classes), x, weight.transpose(1, 2))
