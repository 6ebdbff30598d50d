"""Every job's time and memory beside a naive implementation, Pyro, hamiltorch and the paper's public code, in one run.

    python benchmarks/speed.py --data-root DIR --out benchmarks/results/speed-cpu          # the table
    python benchmarks/speed.py --data-root DIR --out benchmarks/results/speed-cpu --curves # the scaling curves
    python benchmarks/speed.py ... --peer DIR                                              # a clone of the authors' code

Each measurement is a process of its own (peak memory is the process's), one after the other. What is done already is
read from ``<out>/measurements.jsonl``, so a run that was stopped goes on; delete the file to measure anew.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
NAMES = {"fkl": "fKL", "rkl": "rKL", "wasserstein": "Wasserstein"}


class Measurements:
    """Runs a job in a process, unless its answer is on disk."""

    def __init__(self, path: Path, shared: dict[str, Any]) -> None:
        self.path, self.shared = path, shared
        self.known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                self.known[record["key"]] = record

    def __call__(self, **job: Any) -> dict[str, Any]:
        """The job's answer: seconds (a list), flops, peak_bytes; or the reason why there is none."""
        command = [sys.executable, str(HERE / "jobs.py"), json.dumps({**job, **self.shared})]
        return self._run(json.dumps(job, sort_keys=True), command)

    def peer(self, folder: Path, divergence: str, ipc: int) -> dict[str, Any]:
        """An iteration of the authors' code, as it is."""
        command = [sys.executable, str(HERE / "peer.py"), "--peer", str(folder), "--divergence", divergence]
        command += ["--ipc", str(ipc), "--steps", "2"]
        if self.shared.get("data_root"):
            command += ["--data-root", str(self.shared["data_root"])]
        return self._run(f"peer {divergence} {ipc}", command)

    def _run(self, key: str, command: list[str]) -> dict[str, Any]:
        if key not in self.known:
            print(f"{datetime.datetime.now():%H:%M:%S} {key}", file=sys.stderr, flush=True)
            done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
            try:
                answer = json.loads(done.stdout.strip().splitlines()[-1])
            except (IndexError, json.JSONDecodeError):
                reason = (
                    "killed, out of memory"
                    if done.returncode == -9
                    else (done.stderr.strip() or "failed").splitlines()[-1]
                )
                answer = {"missing": reason}
            self.known[key] = {"key": key, **answer}
            with self.path.open("a") as file:
                file.write(json.dumps(self.known[key]) + "\n")
        return self.known[key]


def seconds(answer: dict[str, Any]) -> float:
    found = answer.get("seconds")
    if found is None:
        return float("nan")
    return float(median(found)) if isinstance(found, list) else float(found)


def spread(answer: dict[str, Any]) -> str:
    found = answer.get("seconds")
    low, high = (min(found), max(found)) if isinstance(found, list) else (answer.get("min"), answer.get("max"))
    return "" if low is None else f" ({low:.3g} to {high:.3g})"


def memory(answer: dict[str, Any]) -> str:
    return "—" if "peak_bytes" not in answer else f"{answer['peak_bytes'] / 1e9:.2f}"


def ratio(slow: dict[str, Any], fast: dict[str, Any]) -> str:
    value = seconds(slow) / seconds(fast)
    return "—" if value != value else f"{value:.2f}x"


def learning_table(measure: Measurements, rate: float, peer: Path | None) -> list[str]:
    lines = [
        "| job | s (min to max) | GB | GFLOP | of the matrix-product rate | naive: s, GB | ratio | naive, default allocator: s "
        "| ratio | public code: s, GB | ratio |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for job, ipc in (("fkl", 1), ("fkl", 10), ("wasserstein", 1), ("wasserstein", 10), ("rkl", 1)):
        ours = measure(job=job, ipc=ipc)
        plain = measure(job=job, ipc=ipc, naive=True)
        default = measure(job=job, ipc=ipc, naive=True, keep_freed_memory=False)
        public = measure.peer(peer, job, ipc) if peer else {}
        share = ours["flops"] / seconds(ours) / rate
        cells = [
            f"{NAMES[job]} iteration, ipc {ipc}",
            f"{seconds(ours):.2f}{spread(ours)}",
            memory(ours),
            f"{ours['flops'] / 1e9:,.0f}",
            f"{share:.0%}",
            f"{seconds(plain):.2f}, {memory(plain)}",
            ratio(plain, ours),
            f"{seconds(default):.2f}",
            ratio(default, ours),
            f"{seconds(public):.2f}, {memory(public)}",
            ratio(public, ours),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def throughput_table(measure: Measurements, rate: float) -> list[str]:
    lines = [
        "| job | a second (min to max) | GB | of the matrix-product rate | beside | ratio |",
        "| :-- | --: | --: | --: | :-- | --: |",
    ]

    def row(name: str, ours: dict[str, Any], beside: str, other: dict[str, Any]) -> None:
        found = ours["seconds"]
        share = f"{ours['flops'] / seconds(ours) / rate:.0%}" if ours["flops"] else "—"
        against = f"{beside}: {1 / seconds(other):,.0f}" if "seconds" in other else other.get("missing", "—")
        lines.append(
            f"| {name} | {1 / seconds(ours):,.0f} ({1 / max(found):,.0f} to {1 / min(found):,.0f}) | {memory(ours)} | {share} "
            f"| {against} | {ratio(other, ours)} |"
        )

    for together in (1, 4):
        ours = measure(job="experts", experts=together, images=2048 // together)
        for beside, changes in (("naive", {}), ("naive, default allocator", {"keep_freed_memory": False})):
            other = measure(job="experts", experts=together, images=2048 // together, naive=True, **changes)
            row(f"training images, {together} expert{'s' * (together > 1)}", ours, beside, other)
    for name, where in (
        ("leapfrog steps, ConvNet width 128, 10 images, 8 chains", {"ipc": 1}),
        ("leapfrog steps, ConvNet of 1,026 parameters, 10 digits, 8 chains", {"small": True}),
        ("the same, 32 chains", {"small": True, "chains": 32}),
    ):
        ours = measure(job="leapfrog", **where)
        for beside in ("pyro", "hamiltorch"):
            row(name, ours, beside, measure(job="leapfrog", backend=beside, **{**where, "chains": 2}))
        row(name, ours, "naive", measure(job="leapfrog", naive=True, **{**where, "chains": 2}))
    return lines


CURVES: dict[str, tuple[str, list[int], dict[str, Any], list[str]]] = {
    # what varies: (its name in a job, values, what else is fixed, divergences)
    "images per class (L_u 5, S 5)": (
        "ipc",
        [1, 2, 5, 10, 20, 50, 100],
        {"inner_steps": 5, "samples": 5},
        ["fkl", "wasserstein", "rkl"],
    ),
    "inner steps L_u (ipc 1, S 5)": (
        "inner_steps",
        [5, 10, 30, 100, 300],
        {"ipc": 1, "samples": 5},
        ["fkl", "wasserstein", "rkl"],
    ),
    "draws S (ipc 1, L_u 5)": ("samples", [2, 5, 10, 30, 100], {"ipc": 1, "inner_steps": 5}, ["fkl", "rkl"]),
}
MANY: dict[str, tuple[str, list[int], dict[str, Any]]] = {
    "chains (leapfrog steps, 1,026 parameters)": (
        "chains",
        [1, 2, 4, 8, 16, 32, 64],
        {"job": "leapfrog", "small": True},
    ),
    "experts together (width 128)": ("experts", [1, 2, 4, 8], {"job": "experts", "images": 512, "steps": 1}),
}
NAIVE_LIMIT = 14e9  # bytes; a naive point that would need more is left out


def _ticks(axis: Any, values: list[int]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(values, [str(v) for v in values])
    axis.minorticks_off()


def curves(measure: Measurements, out: Path) -> None:
    """Seconds and GB against what a user may turn up; one figure."""
    colours = {"fkl": "#0072B2", "wasserstein": "#E69F00", "rkl": "#009E73"}
    figure, axes = plt.subplots(2, len(CURVES) + len(MANY), figsize=(20, 7), squeeze=False)
    for column, (title, (name, values, fixed, methods)) in enumerate(CURVES.items()):
        for method in methods:
            if method == "rkl":
                fixed = {**fixed, "real_batch": 100}
            for naive in (False, True):
                xs, ys, zs = [], [], []
                for value in values:
                    if naive and zs and zs[-1] * value / xs[-1] * 1e9 > NAIVE_LIMIT:
                        break
                    answer = measure(
                        job=method, steps=1, **fixed, **{name: value}, **({"naive": True} if naive else {})
                    )
                    if "seconds" not in answer:
                        break
                    xs.append(value)
                    ys.append(seconds(answer))
                    zs.append(answer["peak_bytes"] / 1e9)
                style = {
                    "color": colours[method],
                    "ls": "--" if naive else "-",
                    "marker": "x" if naive else "o",
                    "ms": 4,
                }
                label = NAMES[method] + (", naive" if naive else "")
                axes[0, column].plot(xs, ys, label=label, **style)
                axes[1, column].plot(xs, zs, **style)
        for axis in axes[:, column]:
            _ticks(axis, values)
        axes[0, column].set(yscale="log", title=title, ylabel="seconds per iteration")
        axes[1, column].set(yscale="log", ylabel="peak memory (GB)", xlabel=title.split(" (")[0])
    for column, (title, (name, values, fixed)) in enumerate(MANY.items(), len(CURVES)):
        answers = [(value, measure(**fixed, **{name: value})) for value in values]
        axes[0, column].plot([v for v, _ in answers], [1 / seconds(a) for _, a in answers], "o-", color="black", ms=4)
        axes[1, column].plot(
            [v for v, _ in answers], [a["peak_bytes"] / 1e9 for _, a in answers], "o-", color="black", ms=4
        )
        axes[0, column].set(title=title, ylabel="a second, summed")
        axes[1, column].set(ylabel="peak memory (GB)", xlabel=title.split(" (")[0])
        for row in axes[:, column]:
            _ticks(row, values)
            row.set_ylim(bottom=0)
    for axis in axes.flat:
        axis.grid(alpha=0.3, which="both")
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=6, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(out / "scaling.png", dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=str, help="where CIFAR-10 is")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    parser.add_argument("--peer", type=Path, help="a clone of github.com/balhaekim/BPC-Divergences")
    parser.add_argument("--curves", action="store_true", help="the scaling curves instead of the table")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    shared = {"device": args.device, **({"data_root": args.data_root} if args.data_root else {})}
    measure = Measurements(args.out / "measurements.jsonl", shared)
    limit = measure(job="matmul")
    rate = limit["flops_per_second"]
    found = ", ".join(f"{k} {v}" for k, v in limit["versions"].items())
    if args.curves:
        curves(measure, args.out)
        note = f"{limit['device']}; {found}; {datetime.date.today()}; ConvNet width 128, CIFAR-10. rKL with a batch of 100."
        (args.out / "scaling.md").write_text(f"# Scaling\n\n{note}\n\n![Scaling](scaling.png)\n")
        print(f"Written to {args.out}")
        return
    text = [
        "# Speed and memory",
        "",
        f"{limit['device']}; matrix product {rate / 1e9:,.0f} GFLOP/s in float32; {found}; {datetime.date.today()}. ConvNet "
        "width 128, CIFAR-10, published settings with augmentation, unless said. Each number is a process of its own; seconds "
        "are the median of the timed repeats after a warm-up; GB is the process's peak, dataset and libraries included "
        f"({measure(job='load')['loading_bytes'] / 1e9:.2f} before the job begins).",
        "",
        *learning_table(measure, rate, args.peer),
        "",
        *throughput_table(measure, rate),
        "",
        f"Loading CIFAR-10 to a device tensor from a warm cache: {measure(job='load')['seconds'][0]:.2f} s.",
        "",
        "Naive: `benchmarks/naive.py`, the paper's algorithms as one would write them and as the published code structures them. "
        "The product tells glibc to keep freed memory; naive is given that too, and once more without it, as a script that knows "
        "nothing of it runs. Public code: the authors' own, unchanged, through `benchmarks/peer.py`. FLOPs: convolutions and "
        "matrix products that were executed; the Wasserstein adjoint computes most steps' gradients twice, up to a third "
        "more than an unrolled graph, which is what its flat memory costs.",
        "",
    ]
    (args.out / "README.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
