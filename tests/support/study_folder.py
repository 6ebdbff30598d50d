"""A study of posteriors as its plan would leave it, with numbers from a formula in place of chains."""

import dataclasses
import math

import pandas as pd
import torch

from bpc.coreset import Pseudocoreset
from bpc.runs import Run
from bpc.seeding import derive_seed, make_generator
from evaluation.rows import COLUMNS, PosteriorKey, Row

QUALITY = {"random": 0.6, "herding": 0.45, "rkl": 0.5, "wasserstein": 0.38, "fkl": 0.35}
EXPONENT, CEILING, CLASSES = 0.5, 0.015, 10
PLACES = {"": 1.0, "_corrupted": 0.9, "_foreign": 1.2}


def fidelity_rows(tv, mcse):
    found = {}
    for place, factor in PLACES.items():
        values = {"tv": tv, "agreement": 1 - tv, "sym_kl": tv**2, "entropy_gap": 0.5 * tv}
        for name, value in values.items():
            found[f"{name}{place}"], found[f"{name}{place}_mcse"] = factor * value, mcse
    return found


def metric_rows(error, mcse):
    found = {}
    for place, factor in (("", 1.0), ("_corrupted", 1.5)):
        wrong = factor * error
        values = {"accuracy": 1 - wrong, "nll": 3 * wrong, "nll_calibrated": 2 * wrong, "ece": 0.3 * error}
        found |= {f"{name}{place}": value for name, value in values.items()}
        found |= {f"{name}{place}_mcse": mcse for name in values}
    return found


def diagnostic_rows(mixed):
    return {
        "rhat_predictions": 1.02 if mixed else 1.7, "ess_bulk_predictions": 600.0 if mixed else 9.0, "tv_halves": 0.01,
        "tv_halves_error": 0.01, "acceptance": 0.8, "divergences": 0.0, "mixed": float(mixed),
    }  # fmt: skip


class StudyFolder:
    """Writes the folders of a study."""

    def __init__(self, path, coresets=3):
        self.path, self.coresets = path, coresets
        self.device = torch.device("cpu")

    def coreset(self, method, ipc, seed, learn_weights=False):
        """A coreset's folder; returns its path."""
        path = self.path / "coresets" / f"{method}-{'weights-' if learn_weights else ''}{ipc}-{seed}"
        if (path / "run.json").exists():
            return path
        count = ipc * CLASSES
        points = torch.randn(count, 1, 8, 8, generator=make_generator("cpu", seed, method, ipc, learn_weights))
        method += "+weights" if learn_weights else ""
        coreset = Pseudocoreset(
            points=points, labels=torch.arange(CLASSES).repeat(ipc), weights=torch.ones(count), mean=(0.5,), std=(0.5,),
            dataset="digits", method=method, num_classes=CLASSES,
        )  # fmt: skip
        with Run(path, "distill", {"learn_weights": learn_weights, "name": path.name}, self.device) as run:
            coreset.save(run.file("coreset.safetensors"))
            run.record("done")
        return path

    def scores(self, method, ipc, protocol, *, learn_weights=False, mixed=True, full=True, folder="scores", **setting):
        """An evaluation of `coresets` coresets: TV falls as (10 ipc)^-0.5, times a coreset's own factor."""
        from bpc_cli.evaluate import fingerprint

        paths = [self.coreset(method, ipc, seed, learn_weights) for seed in range(self.coresets)]
        exact = protocol.startswith("exact")
        asked = {"protocol": protocol} | ({"prior": "isotropic", "prior_std": 1.0, **setting} if exact else {})
        config = {"coreset": [fingerprint(p) for p in paths], "method": method, "ipc": ipc, "evaluation": asked}
        words = "-".join(
            [
                method,
                *(["weights"] if learn_weights else []),
                str(ipc),
                protocol,
                *(f"{k}{v}" for k, v in setting.items()),
            ]
        )
        warmth = setting.get("temperature", 1.0) * setting.get("prior_std", 1.0)
        with Run(self.path / folder / words, "evaluate", config, self.device, scale="made up") as run:
            rows: list[Row] = []

            def write(key, seed, values):
                for metric, value in values.items():
                    rows.append(
                        Row(run=run.path.name, config_hash=run.hash, dataset="digits", architecture="ConvNet", seed=seed,
                            metric=metric, value=value, seconds=1.0, device="CPU (1 thread)", **key._asdict())
                    )  # fmt: skip

            for seed in range(self.coresets):
                noise = math.exp(0.1 * (derive_seed(0, method, ipc, seed) % 1000 / 500 - 1))
                tv = QUALITY[method] * noise * ipc**-EXPONENT * (1.3 if protocol == "exact" else 1.0)
                error = 0.5 * tv * (1 + 0.1 * abs(math.log(warmth)))
                values = metric_rows(error, 0.003)
                if exact:
                    values |= fidelity_rows(tv, 0.004) | diagnostic_rows(mixed)
                name = f"{method}+weights" if learn_weights else method
                write(PosteriorKey(name, ipc, "hmc", protocol), seed, values)
            if exact and full:
                key = PosteriorKey("full", 129, "hmc", "exact")
                for seed in (0, 1):
                    again = fidelity_rows(CEILING, 0.002) if seed else {}
                    write(key, seed, {**metric_rows(0.02, 0.001), **again, **diagnostic_rows(True)})
            table = pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=list(COLUMNS))
            flags = table["higher_is_better"].map({True: "true", False: "false"})
            table.assign(higher_is_better=flags).to_csv(run.file("rows.csv"), index=False, lineterminator="\n")
            run.record("done")
        return run.path


def whole_study(path, ipcs=(1, 2, 5, 10), coresets=3):
    """Every part of the plan; herding has not mixed."""
    study = StudyFolder(path, coresets)
    for method in QUALITY:
        for ipc in ipcs:
            study.scores(method, ipc, "exact-scaled", mixed=method != "herding")
            study.scores(method, ipc, "kim2022-scaled")
        for ipc in (ipcs[0], ipcs[-1]):
            study.scores(method, ipc, "exact", mixed=method != "herding")
    study.scores("fkl", ipcs[-1], "exact-scaled", learn_weights=True)
    for method in ("random", "fkl"):
        for value in (0.1, 0.3, 3.0):
            study.scores(method, ipcs[-1], "exact-scaled", folder="grid", temperature=value)
            study.scores(method, ipcs[-1], "exact-scaled", folder="grid", prior_std=value)
    return path
