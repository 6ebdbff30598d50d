"""Trained VAEs side by side: mean and spread over seeds, the published numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from bpc.errors import DataError
from bpc.files import load_tensors, own_content, write_atomic
from bpc.runs import read_run
from evaluation.rows import read_rows
from evaluation.vae.pictures import plot_curves, plot_histogram, plot_knn
from evaluation.variants import differences

__all__ = ["compare", "published", "published_error"]

PRIOR_NAMES = {
    "gaussian": "Gaussian", "mog": "Mixture of Gaussians", "vampprior": "VampPrior", "vampprior-data": "VampPrior, data",
    "vampprior-weighted": "VampPrior, weighted", "exemplar": "Exemplar", "bype": "ByPE",
}  # fmt: skip
# the papers' words for our names
_AI = {"gaussian": "Gaussian prior", "vampprior": "VampPrior", "exemplar": "Exemplar prior", "bype": "ByPE"}
_TOMCZAK = {"gaussian": "standard", "vampprior": "VampPrior", "mog": "MoG", "vampprior-data": "VampPrior data"}
_AI_DATA = {"mnist": "Dynamic MNIST", "fashion_mnist": "Fashion MNIST", "cifar10": "CIFAR10", "celeba": "CelebA"}
_TOMCZAK_DATA = {
    "mnist": "dynamic MNIST", "static_mnist": "static MNIST", "omniglot": "OMNIGLOT", "frey_faces": "Frey Faces",
    "caltech101_silhouettes": "Caltech 101 Silhouettes", "histopathology": "Histopathology",
}  # fmt: skip
_AI_MODELS = {"vae": "VAE", "hvae": "HVAE", "convhvae": "ConvHVAE", "fullconv": "Fully convolutional VAE"}
_TOMCZAK_MODELS = {
    "vae": "VAE (L=1)",
    "hvae": "HVAE (L=2)",
    "convhvae": "convHVAE (L=2)",
    "pixelhvae": "PixelHVAE (L=2)",
}


@cache
def _table(name: str) -> pd.DataFrame:
    with (files("evaluation") / "published" / name).open() as stream:
        return pd.read_csv(stream)


def published(dataset: str, model: str, prior: str, likelihood: str) -> tuple[float, str] | None:
    """The printed NLL (or bits/dim) of this cell and which paper's, or None.

    Squared error is Ai et al. (2021), Table 1; Bernoulli and the discretised logistic are Tomczak and Welling (2018), Table 1.
    """
    if likelihood == "mse":
        rows, words = _table("ai2021_bypevae.csv"), (_AI_DATA, _AI_MODELS, _AI)
        tables, sign, paper = ["Table 1", "Table 4 (supp)"], 1.0, "Ai et al. 2021"
    else:
        rows, words = _table("tomczak2018_vampprior.csv"), (_TOMCZAK_DATA, _TOMCZAK_MODELS, _TOMCZAK)
        tables, sign, paper = ["Table 1"], -1.0, "Tomczak & Welling 2018"
    metric = {"mse": "nll", "bernoulli": "test_ll", "logistic": "bits_per_dim"}.get(likelihood)
    found = rows[
        (rows["dataset"] == words[0].get(dataset)) & (rows["architecture"] == words[1].get(model))
        & (rows["method"] == words[2].get(prior)) & (rows["metric"] == metric) & rows["table"].isin(tables)
    ]  # fmt: skip
    if found.empty:
        return None
    return (float(found["value"].iloc[0]) * (1.0 if metric == "bits_per_dim" else sign), paper)


def published_error(dataset: str, prior: str, way: str) -> float | None:
    """Percent, of the augmented classifier at lambda 0.4 (Ai et al. 2021, Table 3: MNIST only)."""
    rows = _table("ai2021_bypevae.csv")
    setting = {"posterior": "variational_posterior"}.get(way, way)
    found = rows[(rows["table"] == "Table 3") & (rows["method"] == _AI.get(prior)) & (rows["setting"] == setting)]
    return float(found["value"].iloc[0]) if dataset == "mnist" and len(found) else None


def _folders(paths: Sequence[Path]) -> list[Path]:
    found = dict.fromkeys(p.parent for path in paths for p in sorted([*path.rglob("rows.csv"), *path.glob("rows.csv")]))
    folders = [f for f in found if (f / "run.json").exists() and read_run(f, needs=()).get("job") == "vae"]
    if not folders:
        raise DataError(f"No scored VAE in {', '.join(map(str, paths))}; run.py vae evaluate writes the scores.")
    return folders


def _cell(values: pd.Series, digits: int) -> str:
    if values.empty:
        return ""
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


COLUMNS = (
    # metric, head, digits
    ("nll_is", "NLL ↓", 2),
    ("bits_per_dim", "bits/dim ↓", 3),
    ("elbo", "bound ↑", 2),
    ("reconstruction", "reconstruction", 2),
    ("kl", "KL", 2),
    ("active_units", "active units", 1),
    ("knn_accuracy@5", "5-NN accuracy ↑", 4),
)


def _scores(folder: Path, record: dict[str, Any]) -> pd.DataFrame:
    """A model's rows beside its settings."""
    config = record["config"]
    with own_content(folder / "run.json"):
        settings = {k: v for part in ("model", "prior", "train") for k, v in config[part].items() if k != "name"}
        settings |= {"train_images": config["train_images"]}
        likelihood = str(config["likelihood"])
    return read_rows(folder / "rows.csv").assign(
        folder=str(folder),
        likelihood=likelihood,
        epochs_done=record.get("epochs"),
        seconds_an_epoch=record.get("seconds_an_epoch"),
        **{f"setting.{k}": v for k, v in settings.items()},
    )


def compare(paths: Sequence[Path], out: Path, title: str) -> str:
    """Write ``comparison.md``, ``.csv`` and figures of all scored models below `paths`; returns the Markdown."""
    folders = _folders(paths)
    records = {f: read_run(f, needs=("config",)) for f in folders}
    rows = pd.concat([_scores(f, records[f]) for f in folders], ignore_index=True)
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"# {title}", ""]
    for scale in sorted({str(r.get("scale", "")) for r in records.values()}):
        lines.append(f"- {scale}")
    rows["label"] = rows["method"].map(lambda prior: PRIOR_NAMES.get(prior, prior))
    for _, group in rows.groupby(["dataset", "likelihood", "architecture", "protocol", "method"]):
        rows.loc[group.index, "label"] += differences(group, "setting.")
    keys = ["dataset", "likelihood", "architecture", "protocol"]
    scored = rows[~rows["protocol"].str.startswith("augment")]
    for (dataset, likelihood, model, protocol), group in scored.groupby(keys, sort=False):
        shown = [c for c in COLUMNS if (group["metric"] == c[0]).any()]
        lines += ["", f"## {dataset}, {model}, {likelihood}, {protocol}", ""]
        lines.append("| Prior | seeds | " + " | ".join(c[1] for c in shown) + " | published | epochs | s an epoch |")
        lines.append("| :-- | --: |" + " --: |" * len(shown) + " --: | --: | --: |")
        order = [p for p in PRIOR_NAMES if p in set(group["method"])] + sorted(set(group["method"]) - set(PRIOR_NAMES))
        for prior in order:
            value = published(str(dataset), str(model), prior, str(likelihood))
            beside = "" if value is None else f"{value[0]:.2f} ({value[1]})"
            for label, mine in group[group["method"] == prior].groupby("label", sort=False):
                one = mine[mine["metric"] == "nll_is"]
                cells = [_cell(mine.loc[mine["metric"] == metric, "value"], digits) for metric, _, digits in shown]
                tail = [beside, _cell(one["epochs_done"], 0), _cell(one["seconds_an_epoch"], 1)]
                lines.append(f"| {label} | {mine['seed'].nunique()} | " + " | ".join([*cells, *tail]) + " |")
    augmented = rows[rows["protocol"].str.startswith("augment")]
    for (dataset, protocol), group in augmented.groupby(["dataset", "protocol"], sort=False):
        group = group.assign(weight=group["metric"].str.partition("@")[2].astype(float))
        weights = sorted(set(group["weight"]))
        lines += [
            "",
            f"## Test error (%) of the classifier on {dataset}, by the weight of the real images ({protocol})",
            "",
            "| Prior | seeds | " + " | ".join(f"{w:g}" for w in weights) + " | published, 0.4 |",
            "| :-- | --: |" + " --: |" * len(weights) + " --: |",
        ]
        for label, mine in group.groupby("label", sort=False):
            error = published_error(str(dataset), mine["method"].iloc[0], str(protocol).split("-")[1])
            cells = [_cell(100 * mine.loc[mine["weight"] == w, "value"], 2) for w in weights]
            cells.append("" if error is None else f"{error:.2f}")
            lines.append(f"| {label!s} | {mine['seed'].nunique()} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "NLL: importance sampling, nats; protocol `is5000-n1000` is 5,000 draws for each of 1,000 test images. The bound and its "
        "terms are of the whole test set. Mean ± standard deviation over seeds. Published: the paper's full training, all test "
        "images.",
    ]
    text = "\n".join(lines) + "\n"
    write_atomic(out / "comparison.md", lambda stream: stream.write(text.encode()))
    write_atomic(
        out / "comparison.csv", lambda stream: stream.write(rows.drop(columns="folder").to_csv(index=False).encode())
    )
    _figures(scored, out)
    return text


def _figures(scored: pd.DataFrame, out: Path) -> None:
    """Curves and histograms of the first model of each label, neighbours over all; a set of figures for each table."""
    tables = list(scored.groupby(["dataset", "architecture", "likelihood", "protocol"], sort=False))
    places = [f"{dataset}-{model}" for (dataset, model, *_), _ in tables]
    for place, ((dataset, model, likelihood, protocol), group) in zip(places, tables, strict=True):
        alone = places.count(place) == 1
        name = place if alone else f"{place}-{likelihood}-{protocol}"
        title = f"{dataset}, {model}" if alone else f"{dataset}, {model}, {likelihood}, {protocol}"
        first = {str(label): Path(mine["folder"].iloc[0]) for label, mine in group.groupby("label", sort=False)}
        curves = {label: pd.read_json(folder / "log.jsonl", lines=True) for label, folder in first.items()}
        plot_curves(curves, out / f"learning-{name}.png", title=title)
        files = {label: folder / f"log-likelihood-{protocol}.safetensors" for label, folder in first.items()}
        histograms = {label: load_tensors(f)[0]["log_likelihood"] for label, f in files.items() if f.exists()}
        if histograms:
            plot_histogram(histograms, out / f"histogram-{name}.png", title=f"Test images: {title}")
        knn = group[group["metric"].str.startswith("knn_accuracy@")]
        if not knn.empty:
            plot_knn(knn, out / f"knn-{name}.png", title=f"Nearest neighbours of latents: {title}")
