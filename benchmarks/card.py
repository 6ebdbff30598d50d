"""The card's job as one resumable script: experts, three divergences, baselines, HMC and A-SGHMC, comparison tables.

    python benchmarks/card.py --scale cpu  --data-root DIR     # what benchmarks/results/cifar10-cpu was made by
    python benchmarks/card.py --scale full --data-root DIR     # Table 1 of Kim et al. (2022), for a GPU

Every step is a command of run.py and is skipped when it is done. `--stop-after 540` ends in time for a scheduler that gives ten
minutes: the running command is interrupted, and the next call goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEARNED = ("fkl", "rkl", "wasserstein")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done; `None` leaves a published setting alone."""

    width: int
    num_experts: int
    epochs: int
    ipcs: tuple[int, ...]
    seeds: int
    protocol: str
    test_images: int
    steps: dict[int, int | None]
    max_start_epoch: dict[int, int | None]
    baselines: tuple[str, ...]
    together: int


SCALES = {
    "cpu": Scale(
        width=32,
        num_experts=4,
        epochs=8,
        ipcs=(10, 1),
        seeds=5,
        protocol="kim2022-scaled",
        test_images=2000,
        steps={1: 300, 10: 200},
        max_start_epoch={1: 2, 10: 6},
        baselines=("random", "herding", "kcenter"),
        together=1,
    ),
    "full": Scale(
        width=128,
        num_experts=100,
        epochs=50,
        ipcs=(1, 10, 20),
        seeds=10,
        protocol="kim2022",
        test_images=0,
        steps={1: None, 10: None, 20: None},
        max_start_epoch={1: None, 10: None, 20: None},
        baselines=("random", "herding", "kcenter"),
        together=10,
    ),
}


def commands(scale: Scale, out: Path, data_root: str | None) -> Iterator[list[str]]:
    """Every run.py command of the job, in order."""
    network = ["--width", str(scale.width)]
    root = ["--data-root", data_root] if data_root else []
    experts = ["--experts", str(out / "experts"), "--num-experts", str(scale.num_experts)]
    experts += ["--epochs", str(scale.epochs), *network, *root]
    yield ["experts", *experts, "--together", str(scale.together)]
    for ipc in scale.ipcs:
        made: dict[str, list[Path]] = {}
        for method in LEARNED:
            made[method] = [out / f"{method}-{ipc}"]
            options = ["--steps", str(scale.steps[ipc])] if scale.steps[ipc] else []
            if scale.max_start_epoch[ipc]:
                options += ["--max-start-epoch", str(scale.max_start_epoch[ipc])]
            where = ["--out", str(made[method][0]), "--no-evaluate"]
            yield ["distill", "--divergence", method, "--ipc", str(ipc), *options, *where, *experts]
        for method in scale.baselines:
            seeds = range(scale.seeds) if method == "random" else range(1)
            for seed in seeds:
                made.setdefault(method, []).append(out / f"{method}-{ipc}-{seed}")
                where = ["--out", str(made[method][-1]), "--seed", str(seed)]
                yield ["select", "--method", method, "--ipc", str(ipc), *where, *experts]
        for sampler in ("hmc", "asghmc"):
            for method, paths in made.items():
                options = ["--sampler", sampler, "--protocol", scale.protocol, "--seeds", str(scale.seeds)]
                options += ["--test-images", str(scale.test_images), "--no-table", *network, *root]
                where = ["--out", str(out / "scores" / f"{method}-{ipc}-{sampler}")]
                yield ["evaluate", "--coreset", *map(str, paths), *options, *where]
    yield ["compare", str(out), "--out", str(out / "comparison"), "--title", "CIFAR-10"]


def main() -> int:
    """Run what is not done yet; exit code 75 when the time was up first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stop-after", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument("--only", default="", help="only commands whose words contain this, e.g. 'evaluate' or 'fkl'")
    args = parser.parse_args()
    out = args.out or Path("runs") / f"card-{args.scale}"
    out.mkdir(parents=True, exist_ok=True)
    done = out / "done.txt"
    finished = set(done.read_text().splitlines()) if done.exists() else set()
    deadline = time.monotonic() + args.stop_after
    for command in commands(SCALES[args.scale], out, args.data_root):
        line = " ".join(command)
        if args.only not in line or line in finished:
            continue
        print(f"run.py {line}", flush=True)
        process = subprocess.Popen([sys.executable, str(ROOT / "run.py"), *command])
        try:
            code = process.wait(timeout=max(0.0, deadline - time.monotonic()) if deadline < float("inf") else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
            print("Time is up; the same command goes on from here.")
            return 75
        if code:
            return code
        if command[0] != "compare":
            with done.open("a") as stream:
                stream.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
