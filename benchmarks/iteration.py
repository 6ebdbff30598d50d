"""Seconds and peak memory of one outer iteration of each divergence under its published settings, width 128 by default.

    python benchmarks/iteration.py --data-root DIR --ipc 10 --divergence fkl

One divergence a process, because peak memory is the process's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bpc.augment import AugmentConfig
from bpc.budget import pairs_at_once
from bpc.data import load_dataset
from bpc.distill import OuterConfig, distill, initial_coreset, real_batches, start
from bpc.divergences import ExpertWindow
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.presets import DIVERGENCES, distill_preset, make_divergence
from bpc.runs import device_name, peak_memory_bytes, resolve_device, versions
from bpc.runtime import keep_freed_memory, repeatable_kernels
from bpc.seeding import make_generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--divergence", choices=DIVERGENCES, required=True)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2, help="timed, after one warm-up")
    args = parser.parse_args()
    keep_freed_memory()
    repeatable_kernels()
    device = resolve_device("auto")
    data = load_dataset("cifar10", data_root=args.data_root).to(device)
    net = ConvNet(ConvNetConfig(width=args.width), data.image_shape, data.num_classes)
    preset = distill_preset("kim2022", args.divergence, args.ipc)
    at_once = pairs_at_once(net, device, second_order=args.divergence == "wasserstein")
    divergence = make_divergence(args.divergence, preset, Classifier(net), AugmentConfig(), at_once=at_once)
    # the cost does not depend on where the experts are
    window = ExpertWindow(net.init(divergence.expert_epochs + 1, make_generator(device, 0)))
    initial = initial_coreset(data, args.ipc, source="real", student_lr=preset.student_lr, total_weight=None, seed=0)
    real = real_batches(data, preset.real_batch)
    times = []
    last = time.perf_counter()
    for state in distill(
        start(initial), divergence, lambda g: window, real, OuterConfig(lr_points=1e-3), steps=args.steps + 1, seed=0
    ):
        float(state.grad_norm)  # wait for the device
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
    timed = sorted(times[1:])
    print(
        f"{args.divergence} ipc {args.ipc} width {args.width}: {timed[len(timed) // 2]:.2f} s an iteration "
        f"(min {timed[0]:.2f}, max {timed[-1]:.2f}, n {len(timed)}), peak {peak_memory_bytes(device) / 1e9:.2f} GB; "
        f"{device_name(device)}, torch {versions()['torch']}"
    )


if __name__ == "__main__":
    main()
