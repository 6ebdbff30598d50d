"""Rows, predictives and figures that an evaluation leaves in its folder."""

import pytest
import torch

from bpc.errors import ConfigError
from bpc.runs import Run, config_hash, resolve_device
from bpc.seeding import make_generator
from evaluation.compare import load_runs, summarise
from evaluation.doctor import report
from evaluation.features import trained_features
from evaluation.kim2022_chains import Kim2022Config
from evaluation.kim2022_run import score_kim2022
from evaluation.metrics import SCORED, compute
from evaluation.report import find_coresets, find_predictives, write_figures
from evaluation.rows import read_rows

SHORT = Kim2022Config(test_images=40, overrides={"iterations": 4, "burn_in": 2, "leapfrog_steps": 1})


def open_run(path, **options):
    return Run(path, "evaluate", {"a": 1}, torch.device("cpu"), **options)


def test_rows_and_predictives(tmp_path, net, digits, coreset):
    with open_run(tmp_path / "r") as run:
        score_kim2022(run, net, digits, [coreset], SHORT, seeds=[0, 1])
        once = (tmp_path / "r" / "rows.csv").read_bytes()
        score_kim2022(run, net, digits, [coreset], SHORT, seeds=[0, 1])
        assert (tmp_path / "r" / "rows.csv").read_bytes() == once, "finished seeds were run again"
        score_kim2022(run, net, digits, [coreset], SHORT, seeds=[0, 1, 2])
    rows = read_rows(tmp_path / "r" / "rows.csv")
    assert len(rows) == 3 * len(SCORED)
    assert set(rows["metric"]) == set(SCORED)
    assert (rows["architecture"] == net.name).all()
    (cell,) = find_predictives([tmp_path]).items()
    assert cell[0] == ("digits", 1, "hmc", "kim2022")
    for name in ("accuracy", "nll", "ece", "brier"):
        found = compute(cell[1]["Random"])[name]
        expected = rows[rows["metric"] == name].sort_values("seed")["value"].to_numpy()
        torch.testing.assert_close(found, torch.tensor(expected.tolist()).double(), rtol=1e-4, atol=1e-6)


def test_a_torn_block_is_finished(tmp_path, net, digits, coreset):
    """Killed between two rows of a block: the rows that are there stay, the others are added."""
    with open_run(tmp_path / "r") as run:
        score_kim2022(run, net, digits, [coreset], SHORT, seeds=[0, 1])
        path = tmp_path / "r" / "rows.csv"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:12]) + lines[12][:20])
        score_kim2022(run, net, digits, [coreset], SHORT, seeds=[0, 1])
        strip = [line.split(",")[8:11] for line in lines]
        assert sorted(line.split(",")[8:11] for line in path.read_text().splitlines(keepends=True)) == sorted(strip)


def test_figures(tmp_path, net, digits, coreset):
    for method in ("random", "fkl"):
        with open_run(tmp_path / method) as run:
            mine = coreset.replace(method=method)
            mine.save(tmp_path / method / "coreset.safetensors")
            score_kim2022(run, net, digits, [mine], SHORT, seeds=[0, 1])
            run.record("done")
    assert {k: list(v) for k, v in find_coresets([tmp_path]).items()} == {("digits", 1): ["Random", "BPC-fKL"]}
    written = write_figures([tmp_path], tmp_path / "out")
    pictures = [path for path in written if path.suffix == ".png"]
    assert len(pictures) == 5 and len(written) == 8  # each as a PDF too, but for the two coresets' pixels
    plots = {path for path in pictures if not path.name.startswith("coreset-")}
    assert {path.with_suffix(".pdf") for path in plots} < set(written)
    assert all(path.stat().st_size > 3000 for path in written)
    summary = summarise(load_runs([tmp_path]))
    gain = summary[(summary["method"] == "fkl") & (summary["metric"] == "accuracy")]["gain_over_random"]
    assert float(gain.iloc[0]) == pytest.approx(0.0)  # the same points under another name


def test_features_are_those_of_the_network(net, digits):
    params = net.init(1, make_generator("cpu", 0))
    features = trained_features(net, params, digits, batch=300)
    assert features.shape == (1297, net.num_features)
    torch.testing.assert_close(
        features[700], net.features(params, digits.normalise(digits.train.images[700:701]))[0, 0]
    )


def test_run_folders(tmp_path):
    with open_run(tmp_path / "r") as run:
        with pytest.raises(ConfigError, match="another process"):
            open_run(tmp_path / "r")
        run.log(step=1, value=float("nan"))
        run.log(step=2, value=1.0)
        run.trim_log("step", 1)
        assert (tmp_path / "r" / "log.jsonl").read_text() == '{"step": 1, "value": null}\n'
        run.record("done")
    with open_run(tmp_path / "r") as run:
        assert run.done
    with open_run(tmp_path / "r", resume=False) as run:
        assert not run.done
        assert not (tmp_path / "r" / "log.jsonl").exists()
    with pytest.raises(ConfigError, match="differing in a"):
        Run(tmp_path / "r", "evaluate", {"a": 2}, torch.device("cpu"))
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    with pytest.raises(ConfigError, match="Unknown device"):
        resolve_device("quantum")


def test_doctor(data_root):
    tables = report(data_root)
    assert [t.caption.split(" ")[0] for t in tables] == ["Machine", "Datasets", "Optional"]
    assert len(tables[1].rows) >= 7
