"""Trained VAEs side by side: mean and spread over seeds, the published numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from bpc.data import DATASETS, UNLABELLED
from bpc.errors import DataError
from bpc.files import load_tensors, own_content, write_text
from bpc.runs import read_run
from bpc.vae.priors import PRIORS
from evaluation.moments import Moments, moments
from evaluation.rows import read_rows
from evaluation.table import Cell, Column, Table, TableRow, tables_to_markdown, unique_clauses
from evaluation.vae.pictures import plot_curves, plot_histogram, plot_knn, prior_labels
from evaluation.variants import differences

__all__ = ["compare", "published", "published_error"]

# the papers' words for our names of models; those of datasets and priors stand in their records
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


def _dataset_in(paper: str, name: str) -> str | None:
    """A dataset's name in a paper's tables, or None."""
    for registry in (DATASETS, UNLABELLED):
        if name in registry:
            return registry.get(name).published.get(paper)
    return None


def _prior_in(paper: str, name: str) -> str | None:
    """A prior's name in a paper's tables, or None."""
    return PRIORS.get(name).published.get(paper) if name in PRIORS else None


def published(dataset: str, model: str, prior: str, likelihood: str) -> tuple[float, str] | None:
    """The printed NLL (or bits/dim) of this cell and which paper's, or None.

    Squared error is Ai et al. (2021), Tables 1 and 4; Bernoulli and the discretised logistic are Tomczak and Welling (2018),
    Table 1, and Tables 2 and 3 for the priors that Table 1 has not.
    """
    if likelihood == "mse":
        rows, (key, models) = _table("ai2021_bypevae.csv"), ("ai2021", _AI_MODELS)
        tables, sign, paper = ["Table 1", "Table 4 (supp)"], 1.0, "Ai et al. 2021"
    else:
        rows, (key, models) = _table("tomczak2018_vampprior.csv"), ("tomczak2018", _TOMCZAK_MODELS)
        tables, sign, paper = ["Table 1", "Table 2", "Table 3"], -1.0, "Tomczak & Welling 2018"
    metric = {"mse": "nll", "bernoulli": "test_ll", "logistic": "bits_per_dim"}.get(likelihood)
    found = rows[
        (rows["dataset"] == _dataset_in(key, dataset)) & (rows["architecture"] == models.get(model))
        & (rows["method"] == _prior_in(key, prior)) & (rows["metric"] == metric) & rows["table"].isin(tables)
    ]  # fmt: skip
    if found.empty:
        return None
    return (float(found["value"].iloc[0]) * (1.0 if metric == "bits_per_dim" else sign), paper)


def published_error(dataset: str, prior: str, way: str) -> float | None:
    """Percent, of the augmented classifier at lambda 0.4 (Ai et al. 2021, Table 3: MNIST; Table 6: the others)."""
    rows = _table("ai2021_bypevae.csv")
    setting = {"posterior": "variational_posterior"}.get(way, way)
    # Table 3 says MNIST where Table 1 has its dynamic binarisation
    printed = "MNIST" if dataset == "mnist" else _dataset_in("ai2021", dataset)
    found = rows[
        rows["table"].isin(["Table 3", "Table 6 (supp)"]) & (rows["dataset"] == printed)
        & (rows["method"] == _prior_in("ai2021", prior)) & (rows["setting"] == setting)
    ]  # fmt: skip
    return float(found["value"].iloc[0]) if len(found) else None


def _folders(paths: Sequence[Path]) -> list[Path]:
    found = dict.fromkeys(p.parent for path in paths for p in sorted([*path.rglob("rows.csv"), *path.glob("rows.csv")]))
    folders = [f for f in found if (f / "run.json").exists() and read_run(f, needs=()).get("job") == "vae"]
    if not folders:
        raise DataError(f"No scored VAE in {', '.join(map(str, paths))}; run.py vae evaluate writes the scores.")
    return folders


COLUMNS = {
    "nll_is": Column(name="NLL", unit="nats", better="lower", digits=2),
    "bits_per_dim": Column(name="bits/dim", better="lower", digits=3),
    "elbo": Column(name="bound", unit="nats", better="higher", digits=2),
    "reconstruction": Column(name="reconstruction", unit="nats", digits=2),
    "kl": Column(name="KL", unit="nats", digits=2),
    "active_units": Column(name="active units", digits=1),
    "knn_accuracy@5": Column(name="5-NN accuracy", better="higher"),
}
_PRIOR, _SEEDS = Column(name="Prior", key=True, left=True), Column(name="seeds")
_COST = (Column(name="epochs", digits=0, noted=False), Column(name="s per epoch", digits=1, noted=False))
_SPREAD = "Mean ± standard deviation over seeds."
_SCORED = (
    "NLL: importance sampling; protocol is5000-n1000 is 5,000 draws for each of 1,000 test images. The bound and its terms are "
    "of the whole test set. Published: the paper's full training, all test images.",
    _SPREAD,
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
        scale=str(record.get("scale", "")),
        **{f"setting.{k}": v for k, v in settings.items()},
    )


def compare(paths: Sequence[Path], out: Path, title: str) -> list[Table]:
    """Write ``comparison.md``, ``.csv`` and figures of all scored models below `paths`; returns the tables.

    Raises:
        DataError: no scored model is there.
    """
    folders = _folders(paths)
    records = {f: read_run(f, needs=("config",)) for f in folders}
    rows = pd.concat([_scores(f, records[f]) for f in folders], ignore_index=True)
    rows["label"] = rows["method"].map(lambda prior: prior_labels().get(prior, prior))
    for _, group in rows.groupby(["dataset", "likelihood", "architecture", "protocol", "method"]):
        rows.loc[group.index, "label"] += differences(group, "setting.")
    augmented = rows["protocol"].str.startswith("augment")
    scored = rows[~augmented]
    keys = ["dataset", "likelihood", "architecture", "protocol"]
    tables = [_scored_table(part) for _, part in scored.groupby(keys, sort=False)]
    tables += [_augmented_table(part) for _, part in rows[augmented].groupby(["dataset", "protocol"], sort=False)]
    write_text(out / "comparison.md", tables_to_markdown(tables, title))
    write_text(out / "comparison.csv", rows.drop(columns=["folder", "scale"]).to_csv(index=False))
    _figures(scored, out)
    return tables


def _scored_table(rows: pd.DataFrame) -> Table:
    """A row for each prior (and setting of it): the scores, the published number, what training took."""
    dataset, model, likelihood, protocol = rows.iloc[0][["dataset", "architecture", "likelihood", "protocol"]]
    shown = {metric: column for metric, column in COLUMNS.items() if (rows["metric"] == metric).any()}
    known = list(prior_labels())
    order = [p for p in known if p in set(rows["method"])] + sorted(set(rows["method"]) - set(known))
    lines = []
    for prior in order:
        printed = published(dataset, model, prior, likelihood)
        beside = None if printed is None else f"{printed[0]:.2f} ({printed[1]})"
        for label, mine in rows[rows["method"] == prior].groupby("label", sort=False):
            one = mine[mine["metric"] == "nll_is"]
            cells: list[Cell] = [moments(mine.loc[mine["metric"] == metric, "value"]) for metric in shown]
            cost = [moments(one[name].dropna()) for name in ("epochs_done", "seconds_an_epoch")]
            lines.append(TableRow((str(label), str(mine["seed"].nunique()), *cells, beside, *cost), str(label)))
    return Table(
        caption="; ".join(
            filter(None, [f"{dataset}, {model}, {likelihood}, {protocol}", unique_clauses(rows["scale"])])
        )
        + ".",
        columns=(_PRIOR, _SEEDS, *shown.values(), Column(name="published"), *_COST),
        blocks=(tuple(lines),),
        notes=_SCORED,
    )


def _augmented_table(rows: pd.DataFrame) -> Table:
    """A row for each prior: the classifier's test error by the weight of the real images."""
    dataset, protocol = rows.iloc[0][["dataset", "protocol"]]
    rows = rows.assign(weight=rows["metric"].str.partition("@")[2].astype(float))
    weights = sorted(set(rows["weight"]))
    lines = []
    for label, mine in rows.groupby("label", sort=False):
        printed = published_error(dataset, mine["method"].iloc[0], protocol.split("-")[1])
        cells: list[Cell] = [moments(100 * mine.loc[mine["weight"] == weight, "value"]) for weight in weights]
        beside = None if printed is None else Moments(printed)
        lines.append(TableRow((str(label), str(mine["seed"].nunique()), *cells, beside), str(label)))
    return Table(
        caption=f"Test error (%) of the classifier on {dataset}, by the weight of the real images ({protocol}).",
        columns=(
            _PRIOR,
            _SEEDS,
            *(Column(name=f"{weight:g}", better="lower", digits=2) for weight in weights),
            Column(name="published, 0.4", digits=2),
        ),
        blocks=(tuple(lines),),
        notes=("Published: the paper's full training, all test images.", _SPREAD),
    )


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
