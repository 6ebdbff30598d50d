"""How much work fits into memory at once: measured for the network at hand, decided by a budget, the same every time."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bpc.errors import ConfigError
from bpc.models.network import Network

__all__ = ["bytes_per_pair", "default_budget", "exact_pairs_at_once", "pairs_at_once"]

GIB = 2**30
CPU_BUDGET = 0.5 * GIB  # more is no faster: a piece of this size keeps every core busy
GPU_SHARE = 0.5  # of the card's memory
EXACT_GIB = {"cpu": 1 / 16, "cuda": 0.5}  # a piece of the exact protocols: the fastest measured on the CPU, see below
WORKING = 2.1  # what a pass needs in all, relative to what autograd keeps (measured at width 128)


def default_budget(device: torch.device) -> float:
    """Bytes for activations: half a GiB on the CPU, half of the card on a GPU. It depends on the device alone, so that the same
    command gives the same bits.
    """
    if device.type == "cuda":
        return GPU_SHARE * torch.cuda.get_device_properties(device).total_memory
    return CPU_BUDGET


def bytes_per_pair(network: Network, device: torch.device, *, second_order: bool = False) -> int:
    """Bytes that autograd keeps for one image under one parameter vector, found by watching it do so.

    Args:
        network: any.
        device: where.
        second_order: also keep the graph of the gradient, as the Wasserstein adjoint does.
    """

    def kept(images: int) -> int:
        generator = torch.Generator().manual_seed(0)
        params = network.init(1, generator).to(device).requires_grad_(True)
        points = torch.randn(images, *network.image_shape, generator=generator).to(device).requires_grad_(True)
        storages: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            labels = torch.zeros(images, dtype=torch.long, device=device)
            loss = F.cross_entropy(network(params, points)[0], labels)
            if second_order:
                torch.autograd.grad(loss, params, create_graph=True)
        return sum(storages.values())

    return max(1, (kept(9) - kept(1)) // 8)


def pairs_at_once(
    network: Network, device: torch.device, budget_gib: float | None = None, *, second_order: bool = False
) -> int:
    """Pairs of parameter vector and image whose activations fit the budget; at least 1.

    Args:
        network, device, second_order: as for `bytes_per_pair`.
        budget_gib: GiB; None takes `default_budget`.

    Raises:
        ConfigError: the budget is not positive.
    """
    if budget_gib is not None and budget_gib <= 0:
        raise ConfigError(f"The memory budget must be above 0 GiB; got {budget_gib}.")
    budget = default_budget(device) if budget_gib is None else budget_gib * GIB
    return max(1, int(budget / (WORKING * bytes_per_pair(network, device, second_order=second_order))))


def exact_pairs_at_once(network: Network, device: torch.device) -> int:
    """Pairs in a piece where a long chain turns other last bits into other draws: the exact protocols and the reference.

    It depends on the network and the kind of device alone, not on a budget or on how much memory there is. On the CPU a piece of
    64 MiB (1,339 pairs of the digits' network of 10,986 parameters, 79 of CIFAR-10's of 24,714) was 1.1 to 1.6 times as fast as
    all pairs at once, and as 8 MiB: activations stay near the core that made them.
    """
    return pairs_at_once(network, device, EXACT_GIB["cuda" if device.type == "cuda" else "cpu"])
