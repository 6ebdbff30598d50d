"""The jobs that are measured, one in a process: ``python benchmarks/jobs.py '{"job": "fkl", "ipc": 10}'`` prints a line of JSON.

Each job is done by the product or, with ``"naive": true``, by `benchmarks/naive.py`. FLOPs are those of convolutions and matrix
products, counted by torch while the warm-up runs. Peak memory is the process's on the CPU and the allocator's on a GPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import naive
from benchmarks.native import available, sample
from bpc.augment import AugmentConfig
from bpc.budget import pairs_at_once
from bpc.data import Dataset, load_dataset
from bpc.distill import OuterConfig, distill, initial_coreset, real_batches, start
from bpc.divergences import DIVERGENCES, ExpertWindow
from bpc.estimate import synchronise
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.posterior import Posterior
from bpc.presets import distill_preset, make_divergence
from bpc.runs import device_name, peak_memory_bytes, resolve_device, versions
from bpc.runtime import keep_freed_memory, repeatable_kernels
from bpc.samplers.backends import BackendSettings
from bpc.seeding import make_generator
from bpc.weight_prior import isotropic
from expert_trajectories import ExpertConfig, TrajectoryStore, train_experts

Job = dict[str, Any]


def matmul_flops(device: torch.device, size: int = 4096) -> float:
    """Float32 FLOP/s of a square matrix product, the best of five: the arithmetic limit that the table's ratios are to."""
    a = torch.randn(size, size, device=device)
    best = 0.0
    for _ in range(6):
        synchronise(device)
        started = time.perf_counter()
        a @ a
        synchronise(device)
        best = max(best, 2.0 * size**3 / (time.perf_counter() - started))
    return best


def convnet(job: Job, data: Dataset) -> ConvNet:
    return ConvNet(ConvNetConfig(width=job.get("width", 128)), data.image_shape, data.num_classes)


def iteration(job: Job, data: Dataset, device: torch.device) -> dict[str, Any]:
    """Outer iterations of a divergence under its published settings, augmentation included."""
    name, net = job["job"], convnet(job, data)
    preset = distill_preset("kim2022", name, job["ipc"] if job["ipc"] in (1, 10, 20) else 10)
    preset = dataclasses.replace(
        preset, **{k: v for k, v in job.items() if k in ("inner_steps", "samples", "real_batch")}
    )
    at_once = pairs_at_once(net, device, job.get("memory_budget"), second_order=DIVERGENCES.get(name).second_order)
    divergence = make_divergence(name, preset, Classifier(net), AugmentConfig(), at_once=at_once)
    if job.get("naive"):
        plain = naive.NaiveConvNet(net.config, data.image_shape, data.num_classes)
        divergence = naive.NaiveDivergence(plain, divergence)
    # the cost does not depend on where the experts are
    window = ExpertWindow(net.init(divergence.expert_epochs + 1, make_generator(device, 0)))
    initial = initial_coreset(data, job["ipc"], source="real", total_weight=None, seed=0)
    real = real_batches(data, preset.real_batch)
    loop = distill(
        start(initial, divergence),
        divergence,
        lambda g: window,
        real,
        OuterConfig(lr_points=1e-3),
        steps=job.get("steps", 2) + 1,
        seed=0,
    )
    # the counter's module hooks forbid gradients of leaves, which naive code takes; its FLOPs are not asked for
    with contextlib.nullcontext() if job.get("naive") else FlopCounterMode(display=False) as counter:
        next(loop)
    flops = 0 if counter is None else counter.get_total_flops()
    return {"seconds": _times(loop, device), "flops": flops, "unit": "s per iteration"}


def _times(loop: Any, device: torch.device) -> list[float]:
    times = []
    while True:
        synchronise(device)
        started = time.perf_counter()
        try:
            next(loop)
        except StopIteration:
            return times
        synchronise(device)
        times.append(time.perf_counter() - started)


def experts(job: Job, data: Dataset, device: torch.device) -> dict[str, Any]:
    """Seconds per image, summed over experts, of training epochs on a part of the data: batch 256, augmented."""
    net, k, images = convnet(job, data), job.get("experts", 1), job.get("images", 2048)
    few = dataclasses.replace(data, train=data.train.take(torch.arange(images, device=device)))
    config = ExpertConfig(augment=AugmentConfig())
    times = []
    with contextlib.nullcontext() if job.get("naive") else FlopCounterMode(display=False) as counter:
        one = dataclasses.replace(data, train=data.train.take(torch.arange(256, device=device)))
        _train(net, one, config, k, device, job)
    for _ in range(job.get("steps", 3)):
        synchronise(device)
        started = time.perf_counter()
        _train(net, few, config, k, device, job)
        synchronise(device)
        times.append((time.perf_counter() - started) / (k * images))
    return {
        "seconds": times,
        "flops": 0 if counter is None else counter.get_total_flops() / (k * 256),
        "unit": "s per image",
    }


def _train(net: ConvNet, data: Dataset, config: ExpertConfig, k: int, device: torch.device, job: Job) -> None:
    if job.get("naive"):
        plain = naive.NaiveConvNet(net.config, data.image_shape, data.num_classes)
        for e in range(k):
            begin = net.init(1, make_generator(device, 0, "expert", e, "init"))[0]
            naive.train_expert(plain, begin, data, config, expert=e, epochs=1, seed=0)
        return
    from expert_trajectories.train import (
        _epoch,
    )  # an epoch alone: the store and the test scores are not what is measured

    params = torch.cat([net.init(1, make_generator(device, 0, "expert", e, "init")) for e in range(k)])
    at_once = pairs_at_once(net, device, job.get("memory_budget"))
    _epoch(net, params, data, config, 0, list(range(k)), 1, at_once)


def whole_experts(job: Job, data: Dataset, device: torch.device) -> dict[str, Any]:
    """The same through the store, test scores included: what a user waits for."""
    net, images = convnet(job, data), job.get("images", 2048)
    few = dataclasses.replace(data, train=data.train.take(torch.arange(images, device=device)))
    times = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            store = TrajectoryStore.create(Path(folder) / "store", net.num_params, {"dataset": "timing"})
            started = time.perf_counter()
            at_once = pairs_at_once(net, device)
            config = ExpertConfig(augment=AugmentConfig())
            list(train_experts(store, net, few, config, num_experts=1, epochs=1, seed=0, at_once=at_once))
            times.append((time.perf_counter() - started) / images)
    return {"seconds": times, "flops": 0, "unit": "s per image"}


def leapfrog(job: Job, data: Dataset, device: torch.device) -> dict[str, Any]:
    """Seconds per leapfrog step, summed over chains, of HMC on one density by one of the backends (or `naive.hmc`)."""
    chains, backend = job.get("chains", 8), job.get("backend", "native")
    if not job.get("naive") and not available(backend):
        return {"missing": f"{backend} is not installed"}
    small = job.get("small", False)
    source = load_dataset("digits").to(device) if small else data
    config = ConvNetConfig(width=8, depth=2) if small else ConvNetConfig(width=job.get("width", 128))
    net = ConvNet(config, source.image_shape, source.num_classes)
    coreset = initial_coreset(source, job.get("ipc", 1), source="real", total_weight=None, seed=0)
    at_once = pairs_at_once(net, device, job.get("memory_budget"))
    posterior = Posterior(
        Classifier(net), coreset.points, coreset.labels, coreset.weights, prior=isotropic(0.1), points_at_once=at_once
    )
    begin = 0.1 * torch.randn(chains, net.num_params, generator=make_generator(device, 0), device=device)
    steps, draws, warmup = job.get("leapfrog_steps", 20), job.get("draws", 4), 2
    settings = BackendSettings(
        sampler="hmc", warmup=warmup, samples=draws, leapfrog_steps=steps, step_size=1e-3, adapt_mass=False
    )
    times = []
    for _ in range(job.get("steps", 2) + 1):
        if job.get("naive"):
            from bpc.samplers.hmc import HMCConfig
            from bpc.seeding import ChainGenerators

            plain = naive.NaiveConvNet(net.config, source.image_shape, source.num_classes)
            density = naive.coreset_log_density(plain, coreset, 0.1)
            generators = ChainGenerators.from_seeds(device, range(chains), "naive").generators
            synchronise(device)
            started = time.perf_counter()
            naive.hmc(
                density, begin, HMCConfig(step_size=1e-3, leapfrog_steps=steps), draws=draws, generators=generators
            )
            synchronise(device)
            times.append((time.perf_counter() - started) / (chains * draws * steps))
        else:
            found = sample(backend, posterior, begin, settings, seeds=range(chains))
            times.append(found.sampling_seconds / (chains * draws * steps))
    with FlopCounterMode(display=False) as counter:
        leaf = begin[:1].clone().requires_grad_(True)
        torch.autograd.grad(posterior(leaf).sum(), leaf)
    return {"seconds": times[1:], "flops": counter.get_total_flops(), "unit": "s per leapfrog step"}


def load(job: Job, data: Dataset, device: torch.device) -> dict[str, Any]:
    """CIFAR-10 from its official files in a warm cache to a tensor on the device."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        load_dataset("cifar10", data_root=job.get("data_root")).to(device)
        synchronise(device)
        times.append(time.perf_counter() - started)
    return {"seconds": times, "flops": 0, "unit": "s"}


JOBS: dict[str, Callable[[Job, Dataset, torch.device], dict[str, Any]]] = {
    **dict.fromkeys(DIVERGENCES.names(), iteration),
    "experts": experts,
    "experts-stored": whole_experts,
    "leapfrog": leapfrog,
    "load": load,
}


def main() -> None:
    job: Job = json.loads(sys.argv[1])
    if job.get("keep_freed_memory", True):
        keep_freed_memory()
    repeatable_kernels()
    device = resolve_device(job.get("device", "auto"))
    if job["job"] == "matmul":
        print(
            json.dumps(
                {"flops_per_second": matmul_flops(device), "device": device_name(device), "versions": versions()}
            )
        )
        return
    data = load_dataset("cifar10", data_root=job.get("data_root")).to(device)
    before = peak_memory_bytes(device)
    result = JOBS[job["job"]](job, data, device)
    print(json.dumps({**result, "peak_bytes": peak_memory_bytes(device), "loading_bytes": before}))


if __name__ == "__main__":
    main()
