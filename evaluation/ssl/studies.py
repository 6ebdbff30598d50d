"""Table 1 of Pooladzandi et al. (2022) as a list of `run.py ssl` commands, at three scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluation.plan import Command

__all__ = ["SSL_SCALES", "table1"]

# setting, factors of the scale's smallest L (10,000 as published)
CELLS = (
    ("baseline", (0,)),
    ("unfiltered", (1,)),
    ("entropy", (1, 4)),
    ("entropy-craig", (1, 4, 10, 20)),
    ("entropy-craig-pl", (4,)),
    # not in the paper: whether it matters how a tenth is chosen
    ("entropy-random", (4,)),
    ("entropy-adacore", (4,)),
)


@dataclass(frozen=True, kw_only=True)
class SslScale:
    """How much is done."""

    dataset: str
    labels: tuple[int, ...]
    seeds: int
    samples: int = 10_000
    largest: int = 20  # factors above are left out


SSL_SCALES = {
    "smoke": SslScale(dataset="digits", labels=(50,), seeds=2, samples=1_000),
    "cpu": SslScale(dataset="mnist", labels=(100, 1_000), seeds=3, largest=10),
    "full": SslScale(dataset="svhn", labels=(1_000,), seeds=3),
}


def table1(scale: SslScale, out: Path, common: Command) -> Iterator[Command]:
    """Every setting of every seed, over one first phase a seed; then the comparison and the best model's pictures."""
    for seed in range(scale.seeds):
        for labels in scale.labels:
            what = ["--dataset", scale.dataset, "--labelled", str(labels), "--seed", str(seed)]
            base = ["--base", str(out / "base" / f"{labels}-{seed}")]
            for setting, factors in CELLS:
                for factor in [f for f in factors if f <= scale.largest]:
                    size = ["--samples", str(factor * scale.samples)] if factor else []
                    name = f"{labels}-{setting}-{factor * scale.samples}-{seed}"
                    folder = ["--out", str(out / "models" / name)]
                    yield ["ssl", "train", *what, "--setting", setting, *size, *base, *folder, *common]
    yield ["ssl", "synthesise", str(out / "models" / f"{scale.labels[0]}-entropy-{scale.samples}-0"), *common]
    yield [
        "ssl", "compare", str(out / "models"), "--out", str(out / "comparison"),
        "--title", "Learning from chosen samples (Pooladzandi et al. 2022, Table 1)",
    ]  # fmt: skip
