"""Seconds, peak memory and quality of CRAIG's 10 % of generated candidates: lazy and stochastic greedy, four sizes.

    OMP_NUM_THREADS=1 python benchmarks/selection.py --out benchmarks/results

Candidates are p - y of a made-up classifier that is right 81 % of the time: ten classes of equal size, logits 2 N(0, I) plus 5 on
the label. Every case runs in a process of its own; memory is what its resident set rises by at most (Linux, glibc).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

from bpc.files import write_atomic
from bpc.runs import device_name, versions
from bpc.seeding import make_generator
from bpc.selection import craig, last_layer_gradients

CLASSES, FRACTION = 10, 0.1
SIZES = (10_000, 50_000, 100_000, 200_000)
MIB = 2**20


def candidates(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients p - y (n, 10) float32, and labels (n,)."""
    labels = torch.arange(n) % CLASSES
    logits = 2.0 * torch.randn(n, CLASSES, generator=make_generator("cpu", seed, "candidates"))
    return last_layer_gradients(logits + 5.0 * F.one_hot(labels, CLASSES), labels), labels


def measure(n: int, method: str, budget_mib: int, seed: int) -> dict[str, float]:
    """One case, in this process."""

    def memory(name: str) -> float:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024

    gradients, labels = candidates(n, seed)
    options = {"fraction": FRACTION, "num_classes": CLASSES, "method": method}
    craig(gradients[:200], labels[:200], generator=make_generator("cpu", 0), **options)  # what code and libraries need
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that glibc keeps would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before, started = memory("VmRSS"), time.perf_counter()
    found = craig(
        gradients, labels, generator=make_generator("cpu", seed), memory_budget_bytes=budget_mib * MIB, **options
    )
    seconds, grown = time.perf_counter() - started, memory("VmHWM") - before
    distance = 0.0
    for y in range(CLASSES):
        own, chosen = gradients[labels == y].double(), found.indices[labels[found.indices] == y]
        for part in own.split(2000):
            distance += float(torch.cdist(part, gradients[chosen].double()).min(1).values.sum())
    g = gradients.double()
    error = float((g.sum(0) - found.weights.double() @ g[found.indices]).norm())
    shuffled = torch.randperm(n, generator=make_generator("cpu", seed, "random"))[: len(found.indices)]
    random = float((g.sum(0) - n / len(shuffled) * g[shuffled].sum(0)).norm())
    return {
        "seconds": seconds,
        "peak_mib": grown,
        "mean_distance": distance / n,
        "error": error,
        "error_random": random,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--budget", type=int, default=256, help="MiB for distances")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--lazy-up-to", type=int, default=100_000, help="candidates; beyond, stochastic greedy alone")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(int(args.case[0]), args.case[1], args.budget, args.seed)))
        return
    rows = []
    for n in args.sizes:
        for method in ("lazy", "stochastic") if n <= args.lazy_up_to else ("stochastic",):
            command = [sys.executable, __file__, "--case", str(n), method, "--budget", str(args.budget)]
            done = subprocess.run([*command, "--seed", str(args.seed)], capture_output=True, text=True, check=True)
            rows.append({"candidates": n, "kept": round(FRACTION * n), "method": method, **json.loads(done.stdout)})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table["budget_mib"], table["seed"] = args.budget, args.seed
    found = versions()
    lines = [
        "# CRAIG: 10 % of the candidates, by class",
        "",
        f"{device_name(torch.device('cpu'))} of {os.cpu_count()} cores; "
        + ", ".join(f"{name} {found[name]}" for name in sorted(found))
        + f"; seed {args.seed}; `memory_budget_bytes` {args.budget} MiB. {args.note}".rstrip(),
        "",
        "Candidates are p - y of a made-up classifier, ten classes of equal size. Memory is what the resident set rose by. "
        "The mean distance, of a candidate to the nearest kept one of its class, is what is minimised. The error is that of the "
        "weighted sum of gradients, ||sum_i g_i - sum_j gamma_j g_j||, beside that of as many random points weighted n / m.",
        "",
        "| candidates | kept | greedy | seconds | peak, MiB | mean distance | error | error, random |",
        "|--:|--:|:--|--:|--:|--:|--:|--:|",
        *(
            f"| {r['candidates']:,} | {r['kept']:,} | {r['method']} | {r['seconds']:.1f} | {r['peak_mib']:.0f} "
            f"| {r['mean_distance']:.4f} | {r['error']:.1f} | {r['error_random']:.1f} |"
            for r in rows
        ),
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    write_atomic(args.out / "selection-cpu.md", lambda stream: stream.write(text.encode()))
    write_atomic(args.out / "selection-cpu.csv", lambda stream: stream.write(table.to_csv(index=False).encode()))
    print(text)


if __name__ == "__main__":
    main()
