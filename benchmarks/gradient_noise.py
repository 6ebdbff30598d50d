"""How alike are independent estimates of each divergence's gradient? Mean pairwise cosine at the initial coreset.

    python benchmarks/gradient_noise.py --data-root DIR --experts runs/card-cpu/experts --width 32 --ipc 10 --max-start-epoch 6

Two kinds: estimates that differ in everything random (expert, start epoch, noise, augmentation, real batch), and estimates
that differ in the noise and augmentation alone. A cosine near 1 says that one step goes where the mean of many would go.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from bpc.augment import AugmentConfig
from bpc.data import load_dataset
from bpc.distill import initial_coreset, real_batches, start
from bpc.divergences import DIVERGENCES
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.presets import distill_preset, make_divergence
from bpc.runtime import keep_freed_memory
from bpc.seeding import make_generator
from expert_trajectories import TrajectoryStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--experts", type=Path, required=True)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--max-start-epoch", type=int)
    parser.add_argument("--estimates", type=int, default=6)
    args = parser.parse_args()
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load_dataset("cifar10", data_root=args.data_root).to(device)
    net = ConvNet(ConvNetConfig(width=args.width), data.image_shape, data.num_classes)
    store = TrajectoryStore.open(args.experts)
    print("| divergence | everything random | same expert, epoch and real batch |\n| :-- | --: | --: |")
    for name in (record.name for record in DIVERGENCES if "kim2022" in record.presets):
        preset = distill_preset("kim2022", name, args.ipc)
        if args.max_start_epoch:
            preset = dataclasses.replace(preset, max_start_epoch=args.max_start_epoch)
        divergence = make_divergence(name, preset, Classifier(net), AugmentConfig())
        coreset = start(initial_coreset(data, args.ipc, source="real", total_weight=None, seed=0), divergence).coreset
        windows = store.sampler(preset.max_start_epoch, divergence.expert_epochs, device)
        batches = real_batches(data, preset.real_batch)
        cells = []
        for varied in (True, False):
            found = []
            for i in range(args.estimates):
                choose = make_generator("cpu", i if varied else 0, "choose")
                window = windows(choose)
                real = batches(choose) if divergence.needs_real else None
                gradient = divergence.gradient(coreset, window, real, make_generator(device, i, "noise"))
                found.append(gradient.points.flatten())
            unit = torch.nn.functional.normalize(torch.stack(found), dim=1)
            cosines = (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)]
            cells.append(f"{cosines.mean():.3f} ± {cosines.std():.3f}")
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
