"""Any `torch.nn.Module` classifier as a `Network`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bpc.errors import ConfigError
from bpc.models.network import ParameterBlock

__all__ = ["ModuleNetwork"]


class ModuleNetwork:
    """A `bpc.models.Network` around a module without buffers; the k parameter vectors are run one after another.

    Args:
        build: makes a freshly initialised module that maps (n, c, h, w) to logits (n, y). It is called again for each
            initial parameter vector, under a seed of its own.
        image_shape: (c, h, w).
        num_classes: y.
        name: unique for the architecture.

    Its `layout` goes by shape and name. What has two dimensions or more is a weight, its fan-in the product of all but the first
    (torch's order of Linear and Conv). Of the others, ``weight`` is a gain, as torch's norms name it, and the ``bias`` beside it
    is a shift; everything else is a bias.

    Raises:
        ConfigError: the module has buffers (a batch norm's running statistics are no function of the parameters), or
            its output has the wrong shape.
    """

    def __init__(
        self, build: Callable[[], nn.Module], image_shape: tuple[int, int, int], num_classes: int, name: str
    ) -> None:
        self._build, self.image_shape, self.num_classes, self.name = build, image_shape, num_classes, name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._module = build()
        if any(True for _ in self._module.buffers()):
            raise ConfigError(
                f"{name} has buffers (such as a batch norm's running statistics); a network here must be a pure "
                "function of its parameters. Use instance or group norm."
            )
        self._names = [n for n, _ in self._module.named_parameters()]
        self._shapes = [p.shape for _, p in self._module.named_parameters()]
        self._sizes = [p.numel() for _, p in self._module.named_parameters()]
        self.num_params = sum(self._sizes)
        self.layout = _layout(self._module)
        linear = [m for m in self._module.modules() if isinstance(m, nn.Linear)]
        self._last = linear[-1] if linear else None
        with torch.no_grad():
            shape = tuple(self._module(torch.zeros(2, *image_shape)).shape)
        if shape != (2, num_classes):
            raise ConfigError(f"{name} maps 2 images to {shape}; expected logits of shape (2, {num_classes}).")

    def __repr__(self) -> str:
        return f"ModuleNetwork({self.name}, {self.num_params:,} parameters)"

    def init(self, k: int, generator: torch.Generator) -> Tensor:
        """Draw k parameter vectors, (k, p), by building the module k times."""
        rows = []
        for _ in range(k):
            seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
            with torch.random.fork_rng(devices=[]):  # modules draw from the global generator; give it back untouched
                torch.manual_seed(seed)
                rows.append(nn.utils.parameters_to_vector(self._build().parameters()).detach())
        return torch.stack(rows).to(generator.device)

    def __call__(self, params: Tensor, images: Tensor) -> Tensor:
        """Logits (k, n, y); see `Network`."""
        each = images.unbind(0) if images.ndim == 5 else (images,) * len(params)
        return torch.stack([self._one(row, x) for row, x in zip(params.unbind(0), each, strict=True)])

    def features(self, params: Tensor, images: Tensor) -> Tensor:
        """Inputs of the last `nn.Linear`, (k, n, d); the logits themselves where there is none."""
        if self._last is None:
            return self(params, images)
        caught: list[Tensor] = []
        hook = self._last.register_forward_pre_hook(lambda _, args: caught.append(args[0].flatten(1)))
        try:
            self(params, images)
        finally:
            hook.remove()
        return torch.stack(caught)

    def _one(self, row: Tensor, images: Tensor) -> Tensor:
        parts = row.split(self._sizes)
        named = {n: p.view(s) for n, p, s in zip(self._names, parts, self._shapes, strict=True)}
        output: Tensor = functional_call(self._module, named, (images,))
        return output


def _layout(module: nn.Module) -> list[ParameterBlock]:
    """By the rule in `ModuleNetwork`."""
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    found = []
    for name, shape in shapes.items():
        stem, _, last = name.rpartition(".")
        beside = shapes.get(f"{stem}.weight" if stem else "weight", ())
        if len(shape) >= 2:
            found.append(ParameterBlock(name, shape, "weight", math.prod(shape[1:])))
        elif last == "weight":
            found.append(ParameterBlock(name, shape, "gain", 0))
        elif last == "bias" and len(beside) == 1:
            found.append(ParameterBlock(name, shape, "shift", 0))
        else:
            found.append(ParameterBlock(name, shape, "bias", math.prod(beside[1:])))
    return found
