"""The study of posteriors: from run folders whose numbers are known to tables and figures."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from study_folder import CEILING, EXPONENT, QUALITY, StudyFolder, whole_study

from bpc.errors import DataError
from evaluation.plan import SCALES
from evaluation.posteriors import tabulate_posteriors
from evaluation.posteriors.collect import cell_of, cells_of, collect, main_setting
from evaluation.posteriors.power_law import fit_power_law
from evaluation.posteriors.relations import laws_of, paired_scores
from evaluation.posteriors.tables import tables_of
from evaluation.posteriors_plan import POSTERIORS_TARGETS


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return whole_study(tmp_path_factory.mktemp("study"), ipcs=(1, 2, 10))


@pytest.fixture(scope="module")
def frame(study):
    return collect(study)


def test_every_posterior_counts_once(frame):
    of = frame.groupby("method").size()
    assert of["herding"] == 3 * (3 + 3 + 2)  # coresets, by N / M, published chain and weights 1
    assert of["fkl"] == 3 * (3 + 3 + 2 + 1 + 6)  # with learned weights, and on the grid
    assert of["full"] == 2 * 7  # two runs at each temperature and prior, from some forty folders
    assert frame.loc[frame["learned_weights"], "method"].unique().tolist() == ["fkl"]
    assert set(frame.loc[frame["method"] != "full", "points"]) == {10.0, 20.0, 100.0}


def test_the_grid_is_no_part_of_the_main_tables(frame):
    main = main_setting(frame)
    assert set(main["temperature"]) == {1.0} and set(main["prior_std"]) == {1.0}
    assert len(main[main["method"] == "full"]) == 2 and not main["protocol"].str.startswith("kim2022").any()


def test_a_cell_keeps_its_two_uncertainties_apart(frame):
    part = frame[(frame["method"] == "rkl") & (frame["ipc"] == 2) & (frame["protocol"] == "exact-scaled")].copy()
    part["tv_mcse"] = [0.003, 0.004, 0.012]
    cell = cell_of(part, "tv")
    assert cell.over_coresets.mean == pytest.approx(part["tv"].mean())
    assert cell.over_coresets.std == pytest.approx(part["tv"].std(ddof=1)) and cell.over_coresets.n == 3
    assert cell.monte_carlo == pytest.approx(math.sqrt((0.003**2 + 0.004**2 + 0.012**2) / 3))
    part.iloc[0, part.columns.get_loc("tv")] = math.nan
    assert math.isnan(cell_of(part, "tv").over_coresets.mean)  # a lost chain is not left out
    full = main_setting(frame)
    full = full[full["method"] == "full"]
    assert cell_of(full, "tv").over_coresets.mean == CEILING and cell_of(full, "tv").over_coresets.n == 1
    assert cell_of(full, "accuracy").over_coresets.n == 2
    assert cell_of(full, "kl") is None


def test_a_noiseless_power_law_is_found_and_meets_the_ceiling_where_algebra_says():
    points = np.repeat([10.0, 20.0, 50.0, 100.0], 3)
    law = fit_power_law(points, 2.0 * points**-0.7, ceiling=0.02, resamples=50)
    assert law.exponent == pytest.approx(0.7) and law.scale == pytest.approx(2.0)
    assert law.needed.value == pytest.approx((2.0 / 0.02) ** (1 / 0.7)) and law.needed.low == pytest.approx(
        law.needed.high
    )
    np.testing.assert_allclose(law.at([10.0, 1000.0]), 2.0 * np.array([10.0, 1000.0]) ** -0.7)


def test_the_interval_of_the_exponent_covers():
    points, rng, covered = np.repeat([10.0, 20.0, 50.0, 100.0, 200.0], 5), np.random.default_rng(0), 0
    for repeat in range(100):
        tv = points**-EXPONENT * np.exp(0.2 * rng.normal(size=len(points)))
        low, high = fit_power_law(points, tv, seed=repeat, resamples=200).exponent_interval
        covered += low <= EXPONENT <= high
    assert 80 <= covered <= 99  # percentiles of five coresets are a little narrow


def test_what_does_not_fall_never_gets_there_and_one_size_is_no_law():
    points = np.repeat([10.0, 100.0], 3)
    law = fit_power_law(points, 0.1 * points**0.1, ceiling=0.01, resamples=20)
    assert law.needed.value == math.inf and law.needed.high == math.inf
    assert fit_power_law([10.0, 10.0], [0.5, 0.4]) is None
    assert math.isnan(fit_power_law(points, points**-0.5, resamples=20).needed.value)


def test_laws_are_of_weights_n_over_m_alone(frame):
    laws = laws_of(frame)
    assert list(laws) == sorted(laws, key=list(laws).index) and set(laws) == set(QUALITY)
    for law in laws.values():
        assert law.coresets == 9 and law.exponent == pytest.approx(EXPONENT, abs=0.12)


def test_published_and_exact_scores_meet_at_the_coreset(frame):
    pairs = paired_scores(frame)
    assert len(pairs) == 5 * 3 * 3
    np.testing.assert_allclose(pairs["published_accuracy"], 1 - 0.5 * pairs["exact_tv"])


def test_tables_say_what_has_not_mixed_and_what_is_extrapolated(frame):
    tables = tables_of(frame)
    assert [t.caption.split("?")[0] for t in tables] == [
        "Which divergence gives the nearest posterior", "Which divergence gives the nearest posterior",
        "How many points does a posterior need", "Does the published score rank as the posterior does", "Cold or warm",
        "Is a coreset's posterior calibrated", "Which rows have mixed",
    ]  # fmt: skip
    for table in (tables[0], tables[1], tables[2], tables[5], tables[6]):
        rows = [line for line in table.to_markdown().splitlines() if "Herding" in line and line.startswith("|")]
        assert rows and all("†" in row for row in rows)
        assert any("†" in note for note in table.notes)
        assert not any("†" in line for line in table.to_markdown().splitlines() if "| Random" in line)
    assert "† 9 of 45" in " ".join(tables[3].notes)
    assert "extrapolat" in tables[2].to_markdown()
    ranks = tables[3].rows[0].cells
    assert ranks[2].startswith("1.00") and ranks[4] == "45"
    assert len(tables[4].rows) == 3 * 7  # full data, random, fkl: the middle and two arms of three
    learned = [row for row in tables[0].rows if row.cells[0] == "learned, sum N"]
    assert len(learned) == 1
    corrupted = [h for h in tables[5].headings if "corrupted" in h]
    assert len(corrupted) == 4 and not any("corrupted" in h for h in tables[5].headings[:11])


def test_files(study):
    tabulate_posteriors(study)
    names = ("divergence", "points", "ranks", "warmth", "calibration")
    for name in names:
        assert imread(study / f"posteriors-{name}.png").std() > 0.05 and (study / f"posteriors-{name}.pdf").is_file()
    cells = pd.read_csv(study / "posteriors.csv")
    row = cells[
        (cells["method"] == "random")
        & (cells["ipc"] == 1)
        & (cells["protocol"] == "exact-scaled")
        & (cells["metric"] == "tv")
    ]
    assert len(row) == 1 and row["monte_carlo"].iloc[0] == 0.004 and row["n"].iloc[0] == 3
    assert "posteriors-points.png" in (study / "posteriors.md").read_text()
    assert r"\begin{table}" in (study / "posteriors.tex").read_text()
    assert len(cells) == len(cells_of(collect(study)))


def test_without_a_reference_there_is_calibration_and_no_fidelity(tmp_path):
    study = StudyFolder(tmp_path, coresets=2)
    folder = study.scores("fkl", 1, "exact-scaled", full=False)
    lines = (folder / "rows.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not any(f",{m}" in line for m in ("tv", "agreement", "sym_kl", "entropy_gap"))]
    (folder / "rows.csv").write_text("".join(kept))
    titles = [table.caption.split("?")[0] for table in tabulate_posteriors(tmp_path)]
    assert titles == ["Is a coreset's posterior calibrated", "Which rows have mixed"]
    assert {p.name for p in tmp_path.glob("*.png")} == {"posteriors-calibration.png"}


def test_nothing_to_tabulate_is_said(tmp_path):
    with pytest.raises(DataError, match="run the plan first"):
        collect(tmp_path)
    StudyFolder(tmp_path, coresets=1).scores("fkl", 1, "kim2022-scaled")
    with pytest.raises(DataError, match="exact-scaled"):
        tabulate_posteriors(tmp_path)


@pytest.mark.parametrize("name", POSTERIORS_TARGETS)
@pytest.mark.parametrize("scale", SCALES)
def test_the_plan_is_made_of_commands_that_parse(name, scale, tmp_path):
    from bpc_cli.main import parse

    steps = POSTERIORS_TARGETS[name].steps(scale, tmp_path / "out", [])
    for step in {step.command[0]: step for step in steps}.values():
        parse(list(step.command))
    last = steps[-1]
    assert last.command[:2] == ("tabulate", "posteriors")
    scores = [i for i, step in enumerate(steps) if step.command[0] == "evaluate"]
    assert len(POSTERIORS_TARGETS[name].steps(scale, tmp_path, [])) == len(steps)
    if not any(p.name == "width-8-depth-1" for step in steps for path in step.writes for p in path.parents):
        assert set(scores) <= set(last.needs)
    for i in scores:  # all coresets, and the reference where there is one
        needed = {steps[j].command[0] for j in steps[i].needs}
        assert needed & {"select", "distill"}
        assert ("reference" in needed) == ("none" not in steps[i].command and "exact" in " ".join(steps[i].command))
