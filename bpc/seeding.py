"""Randomness as an argument: seeds derived from one run seed by name, and one generator per chain."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["ChainGenerators", "SharedGenerator", "derive_seed", "make_generator"]


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on every name, and on nothing else (no order of calls)."""
    text = "/".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(device: torch.device | str, seed: int, *names: str | int) -> torch.Generator:
    """A generator on `device`, seeded with `derive_seed(seed, *names)`."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(seed, *names))
    return generator


class ChainGenerators:
    """One generator per chain, so a chain draws the same numbers whichever chains run beside it.

    Args:
        generators: k generators on one device.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        if not generators:
            raise ValueError("ChainGenerators needs at least one generator.")
        self.generators = list(generators)
        self.device = self.generators[0].device

    @classmethod
    def from_seeds(cls, device: torch.device | str, seeds: Sequence[int], *names: str | int) -> ChainGenerators:
        """One generator for each of `seeds`, all derived under the same `names`."""
        return cls([make_generator(device, seed, *names) for seed in seeds])

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws, (k, *shape)."""
        return torch.stack([torch.randn(shape, generator=g, device=self.device) for g in self.generators])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws on [0, 1), (k, *shape)."""
        return torch.stack([torch.rand(shape, generator=g, device=self.device) for g in self.generators])

    def get_state(self) -> Tensor:
        """(k, bytes) uint8: what `set_state` needs to go on with the same numbers."""
        return torch.stack([g.get_state() for g in self.generators])

    def set_state(self, state: Tensor) -> None:
        """Restore a state returned by `get_state`."""
        for generator, row in zip(self.generators, state, strict=True):
            generator.set_state(row.contiguous())


class SharedGenerator(ChainGenerators):
    """One stream for all chains: for thousands of short ones, where a generator each would take longer than the sampler.

    Args:
        generator: the stream.
        chains: k.
    """

    def __init__(self, generator: torch.Generator, chains: int) -> None:
        super().__init__([generator])
        self.chains = chains

    def __len__(self) -> int:
        return self.chains

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws, (k, *shape)."""
        return torch.randn((self.chains, *shape), generator=self.generators[0], device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws on [0, 1), (k, *shape)."""
        return torch.rand((self.chains, *shape), generator=self.generators[0], device=self.device)
