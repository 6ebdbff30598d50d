"""What the rest of the project needs of a network: a pure function of a flat parameter vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["HasLayout", "Kind", "Network", "ParameterBlock"]


@runtime_checkable
class Network(Protocol):
    """A classifier as a pure function of k flat parameter vectors. Any object with these members will do.

    Attributes:
        num_params: p, the length of one parameter vector.
        num_classes: y.
        image_shape: (c, h, w) it accepts.
        name: short and unique for the architecture (``convnet-w128-d3``); it goes into rows and store keys.
    """

    num_params: int
    num_classes: int
    image_shape: tuple[int, int, int]
    name: str

    def init(self, k: int, generator: torch.Generator) -> Tensor:
        """Draw k initial parameter vectors, (k, p), on the generator's device."""
        ...

    def __call__(self, params: Tensor, images: Tensor) -> Tensor:
        """Logits (k, n, y) of images (n, c, h, w) shared by all k vectors, or (k, n, c, h, w), one set each.

        Args:
            params: (k, p).
            images: channel-normalised pixels.
        """
        ...

    def features(self, params: Tensor, images: Tensor) -> Tensor:
        """Inputs of the last layer, (k, n, d); images as in `__call__`. Used by herding and k-center."""
        ...


Kind = Literal["weight", "bias", "gain", "shift"]  # gain and shift are a norm's


class ParameterBlock(NamedTuple):
    """Some of a network's flat parameters that lie side by side and play one part."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    fan_in: int  # inputs that a unit adds up: of a weight, and of the bias beside it; 0 for gain and shift


@runtime_checkable
class HasLayout(Protocol):
    """A network that says which parameter is what; a prior that differs from layer to layer needs it.

    Attributes:
        layout: blocks in the order of the flat vector; their sizes sum to p.
    """

    layout: Sequence[ParameterBlock]
