"""The numbers of Kim et al. (2022), "On Divergence Measures for Bayesian Pseudocoresets", under our names.

Which of our metrics may stand beside them: `accuracy` and `brier` beside themselves, `nll_kim2022` and
`ece_kim2022` beside the published NLL and ECE, which were computed batch by batch. Our `nll` and `ece` have
no published counterpart.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

import bpc.divergences  # they register their methods
import bpc.selection  # noqa: F401
from bpc.data import DATASETS
from bpc.errors import unknown_name
from bpc.methods import METHODS

__all__ = ["load_published", "published_value"]

PAPER = "kim2022"
# The order in which a number is looked for, where several tables print one. Table 4 repeats Table 1.
TABLES = ("Table 1", "Table 5", "Table 6", "Table 7")
_METRICS = {"accuracy": "accuracy", "nll_kim2022": "nll", "ece_kim2022": "ece", "brier": "brier"}


def load_published() -> pd.DataFrame:
    """One row for each printed number, under their names and not ours.

    Columns: paper, table, dataset, method, architecture, setting, ipc (empty for the full data), metric,
    value, std, unit, higher_is_better, note.
    """
    return _published().copy()


@cache
def _published() -> pd.DataFrame:
    source = files("evaluation") / "published" / "kim2022_divergence.csv"
    with source.open() as stream:
        return pd.read_csv(stream, dtype={"ipc": "Int64", "note": "str"}, keep_default_na=True)


def published_value(
    dataset: str, method: str, sampler: str, augmented: bool, ipc: int, metric: str, table: str | None = None
) -> tuple[float, float] | None:
    """The published mean and its printed spread, or None where the paper has no such number.

    Args:
        dataset, method, sampler, metric: our names; one that the paper lacks gives None.
        augmented: the coreset was learned with augmentation. It does not matter for real points (they are not
            learned), for A-SGHMC (printed only with augmentation), nor for Table 6 (which does not say).
        ipc: images per class; ignored for the full data.
        table: only this one (``"Table 6"``); otherwise the first that has the number of Tables 1, 5, 6 and 7,
            since Table 6 prints other values than Table 1 for the same setting.

    Returns:
        (value, std), fractions or nats; the paper does not say whether its +- is a standard deviation over
        ten seeds.
    """
    data = _published()
    if table is not None and table not in set(data["table"]):
        raise unknown_name("table", table, set(data["table"]))
    printed_dataset = DATASETS.get(dataset).published.get(PAPER) if dataset in DATASETS else None
    printed_method = METHODS.get(method).published.get(PAPER) if method in METHODS else None
    if printed_dataset is None or printed_method is None or metric not in _METRICS:
        return None
    found = data[
        (data["dataset"] == printed_dataset) & (data["method"] == printed_method) & (data["metric"] == _METRICS[metric])
    ]
    if method != "full":
        found = found[found["ipc"] == ipc]
    for name in TABLES if table is None else (table,):
        settings = _settings(method, sampler, augmented, name)
        match = found[(found["table"] == name) & found["setting"].isin(settings)]
        if len(match):
            row = match.iloc[0]
            return float(row["value"]), float(row["std"])
    return None


def _settings(method: str, sampler: str, augmented: bool, table: str) -> tuple[str, ...]:
    """Their `setting` for a sampler of ours."""
    if method == "full":  # SGHMC over minibatches of the data, which is what A-SGHMC is an altered form of
        return ("sghmc",) if sampler in ("sghmc", "asghmc") else ()
    if sampler == "asghmc":
        return ("asghmc_aug",)
    if sampler != "hmc":
        return ()
    if not METHODS.get(method).learned or table == "Table 6":
        return ("hmc", "hmc_aug")
    return ("hmc_aug",) if augmented else ("hmc",)
