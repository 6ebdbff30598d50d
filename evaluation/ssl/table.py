"""Runs of semi-supervised learning side by side: accuracy by setting and number of samples, as Table 1 of the paper prints it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pandas as pd

from bpc.ebm.train import SETTINGS
from bpc.errors import DataError
from bpc.files import own_content, write_atomic
from bpc.runs import read_run
from evaluation.rows import read_rows
from evaluation.ssl.pictures import plot_accuracy
from evaluation.variants import differences

__all__ = ["compare", "published"]

NAMES = {
    "baseline": "Baseline", "unfiltered": "Unfiltered", "entropy": "H", "entropy-random": "H & random",
    "entropy-craig": "H & CRAIG", "entropy-adacore": "H & AdaCore", "entropy-craig-pl": "H & CRAIG & PL",
}  # fmt: skip


def published() -> pd.DataFrame:
    """Table 1 of Pooladzandi et al. (2022): columns setting (our names), samples (L), value, std; percent, on SVHN."""
    with (files("evaluation") / "published" / "pooladzandi2022_entropic.csv").open() as stream:
        rows = pd.read_csv(stream)
    rows = rows[rows["table"] == "Table 1"]
    samples = rows["setting"].str.removeprefix("L=").astype(int)
    words = {"H": "entropy", "H & CRAIG": "entropy-craig", "H & CRAIG & PL": "entropy-craig-pl"}
    setting = (
        rows["method"].map(words).fillna("baseline").where(samples.eq(0) | rows["method"].ne("Baseline"), "unfiltered")
    )
    return pd.DataFrame({"setting": setting, "samples": samples, "value": rows["value"], "std": rows["std"]})


def _load(paths: Sequence[Path]) -> pd.DataFrame:
    frames = []
    for folder in dict.fromkeys(p.parent for path in paths for p in sorted(path.rglob("rows.csv"))):
        record = read_run(folder, needs=()) if (folder / "run.json").exists() else {}
        if record.get("job") != "ssl":
            continue
        config = record.get("config", {})
        with own_content(folder / "run.json"):
            augment, samples, labelled = config["augment"], config["augment"]["samples"], config["labelled"]
            phase = {k: v for part in ("learn", "model") for k, v in config.get(part, {}).items()}
        phase |= {k: config.get(k) for k in ("unlabelled", "validation_fraction")}
        counts = {k: record.get(k) for k in ("generated", "agreed", "kept", "kept_agreed")}
        frames.append(
            read_rows(folder / "rows.csv").assign(
                samples=samples,
                labelled=labelled,
                scale=record.get("scale", ""),
                **{f"phase.{k}": v for k, v in phase.items()},
                **{f"augment.{k}": v for k, v in augment.items() if k not in ("setting", "samples")},
                **counts,
            )
        )
    if not frames:
        raise DataError(
            f"No scored run of run.py ssl in {', '.join(map(str, paths))}; run.py ssl evaluate writes the scores."
        )
    rows = pd.concat(frames, ignore_index=True)
    rows["label"] = rows["method"].map(NAMES)
    rows["phase"] = ""
    for _, group in rows.groupby(["dataset", "labelled"]):
        rows.loc[group.index, "phase"] += differences(group, "phase.")
        generating = group[group["method"] != "baseline"]  # which has none of the settings of augmentation
        rows.loc[generating.index, "label"] += differences(generating, "augment.")
    return rows


def _spread(values: pd.Series, factor: float = 100.0, digits: int = 2) -> str:
    if values.empty:
        return "-"
    spread = f" ± {factor * values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{factor * values.mean():.{digits}f}{spread}"


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def compare(paths: Sequence[Path], out: Path, title: str) -> str:
    """Write ``comparison.md``, ``.csv`` and a figure for each dataset, number of labels and protocol; returns the Markdown."""
    rows = _load(paths)
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"# {title}", ""]
    lines += [f"- {scale}" for scale in sorted(set(rows["scale"]))]
    several = rows["protocol"].nunique() > 1
    for number, ((dataset, labelled, protocol, phase), group) in enumerate(
        rows.groupby(["dataset", "labelled", "protocol", "phase"], sort=True)
    ):
        words = f"{dataset}, {labelled:,} labels{phase}" + (f", {protocol}" if several else "")
        accuracy = group[group["metric"] == "accuracy"]
        sizes = sorted(set(accuracy["samples"]))
        order = [label for s in SETTINGS for label in sorted(set(accuracy.loc[accuracy["method"] == s, "label"]))]
        lines += [
            "",
            f"## {words}",
            "",
            "Test accuracy (%) by L, the number of generated images:",
            "",
        ]
        lines += [_line(["Setting", "seeds", *(f"{s:,}" for s in sizes)]), _line([":--", "--:", *["--:"] * len(sizes)])]
        for setting in order:
            mine = accuracy[accuracy["label"] == setting]
            cells = [_spread(mine.loc[mine["samples"] == s, "value"]) for s in sizes]
            lines.append(_line([setting, mine["seed"].nunique(), *cells]))
        lines += _details(group, order)
        name = f"accuracy-{dataset}-{labelled}" + (f"-{protocol}" if several else "") + (f"-{number}" if phase else "")
        plot_accuracy(accuracy, out / f"{name}.png", title=words)
    lines += ["", *_printed()]
    text = "\n".join(lines) + "\n"
    write_atomic(out / "comparison.md", lambda stream: stream.write(text.encode()))
    write_atomic(out / "comparison.csv", lambda stream: stream.write(rows.to_csv(index=False).encode()))
    return text


def _details(group: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """A line a setting and L: change against the baseline of the same seed, other metrics, what the filter let through."""
    head = ["Setting", "L", "change of accuracy (points)", "NLL", "ECE (%)", "agreed", "kept", "of those agreed"]
    lines = ["", _line(head), _line([":--", *["--:"] * (len(head) - 1)])]
    by = {m: group[group["metric"] == m].set_index("seed") for m in ("accuracy", "nll", "ece")}
    baseline = by["accuracy"][by["accuracy"]["method"] == "baseline"]["value"]
    for setting in order:
        for size in sorted(set(group.loc[group["label"] == setting, "samples"])):
            mine = {m: f[(f["label"] == setting) & (f["samples"] == size)] for m, f in by.items()}
            change = (
                (mine["accuracy"]["value"] - baseline).dropna() if not baseline.index.has_duplicates else pd.Series()
            )
            first = mine["accuracy"]
            shares = ["-", "-", "-"]
            if setting != NAMES["baseline"] and first["generated"].notna().all():
                shares = [
                    f"{(first[a] / first[b]).mean():.1%}"
                    for a, b in (("agreed", "generated"), ("kept", "generated"), ("kept_agreed", "kept"))
                ]
            lines.append(
                _line([
                    setting, f"{size:,}", "-" if setting == NAMES["baseline"] else _signed(change),
                    _spread(mine["nll"]["value"], 1.0, 3), _spread(mine["ece"]["value"]), *shares,
                ])
            )  # fmt: skip
    lines += [
        "",
        "Mean ± standard deviation over seeds; a seed fixes the labelled images, the initial weights and all draws. Change: "
        "against the baseline of the same seed, which shares the first phase, ± standard error. Agreed: generated images whose "
        "own latent the classifier gives the class they were made for; kept: those that pass the filter (if any), before "
        "any selection.",
    ]
    return lines


def _signed(change: pd.Series) -> str:
    if change.empty:
        return "-"
    error = f" ± {100 * change.std() / len(change) ** 0.5:.2f}" if len(change) > 1 else ""
    return f"{100 * change.mean():+.2f}{error}"


def _printed() -> list[str]:
    table = published()
    sizes = sorted(set(table["samples"]))
    lines = [
        "## As published: SVHN, 1,000 labels, 1,200,000 iterations (Pooladzandi et al. 2022, Table 1)",
        "",
        _line(["Setting", *(f"{s:,}" for s in sizes)]),
        _line([":--", *["--:"] * len(sizes)]),
    ]
    for setting in [s for s in SETTINGS if s in set(table["setting"])]:
        mine = table[table["setting"] == setting].set_index("samples")
        cells = [f"{mine.value[s]:.1f} ± {mine['std'][s]:.1f}" if s in mine.index else "-" for s in sizes]
        lines.append(_line([NAMES[setting], *cells]))
    return lines
