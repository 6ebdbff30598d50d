"""Runs that differ in more than their seed are never averaged: what tells them apart, in words."""

from __future__ import annotations

import pandas as pd

__all__ = ["differences"]


def differences(rows: pd.DataFrame, prefix: str) -> pd.Series:
    """For each row ``, name value`` of every setting that is not the same in all rows.

    Args:
        rows: any table.
        prefix: of the columns that are settings, ``augment.temperature`` say.
    """
    words = pd.Series("", index=rows.index)
    for column in [c for c in rows.columns if c.startswith(prefix) and rows[c].nunique(dropna=False) > 1]:
        name = column.removeprefix(prefix).replace("_", " ")
        words += rows[column].map(lambda v, name=name: f", {name} {v:g}" if isinstance(v, float) else f", {name} {v}")
    return words
