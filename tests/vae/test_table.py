"""Published numbers, the comparison of scored folders, and the pictures."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import torch

from bpc.errors import DataError
from bpc.vae.job import VaeSettings, open_trained, train_job
from bpc.vae.models import ModelConfig
from bpc.vae.priors import PriorConfig
from bpc.vae.train import TrainConfig
from evaluation.rows import Row, RowWriter
from evaluation.vae.jobs import _title, evaluate_job
from evaluation.vae.pictures import _grid, plot_curves, plot_histogram, plot_images, plot_map, plot_pseudo_inputs
from evaluation.vae.table import compare, published, published_error


@pytest.mark.parametrize(
    ("cell", "value", "paper"),
    [
        (("mnist", "vae", "gaussian", "mse"), 24.41, "Ai"),
        (("mnist", "convhvae", "bype", "mse"), 22.84, "Ai"),
        (("cifar10", "hvae", "exemplar", "mse"), 71.77, "Ai"),
        (("mnist", "vae", "gaussian", "bernoulli"), 84.50, "Tomczak"),
        (("mnist", "vae", "vampprior", "bernoulli"), 82.38, "Tomczak"),
        (("static_mnist", "hvae", "gaussian", "bernoulli"), 86.05, "Tomczak"),  # Table 1, not Table 2's 85.89
        (("static_mnist", "hvae", "mog", "bernoulli"), 85.07, "Tomczak"),
        (("mnist", "hvae", "vampprior-data", "bernoulli"), 81.71, "Tomczak"),
        (("frey_faces", "vae", "gaussian", "logistic"), 4.63, "Tomczak"),
        (("frey_faces", "vae", "vampprior", "logistic"), 4.57, "Tomczak"),
    ],
)
def test_published_numbers(cell, value, paper):
    found = published(*cell)
    assert found is not None
    assert found[0] == pytest.approx(value)
    assert found[1].startswith(paper)


@pytest.mark.parametrize(
    "cell",
    [
        ("digits", "vae", "gaussian", "bernoulli"),
        ("mnist", "vae", "gaussian", "gaussian"),
        ("mnist", "vae", "gaussian", "logistic"),
        ("mnist", "vae", "bype", "bernoulli"),
        ("mnist", "pixelhvae", "gaussian", "mse"),
        ("frey_faces", "vae", "gaussian", "mse"),
    ],
)
def test_nothing_was_published_for_other_cells(cell):
    assert published(*cell) is None


def test_published_errors_of_augmentation():
    assert published_error("mnist", "bype", "prior") == 0.88
    assert published_error("mnist", "bype", "posterior") == 1.10
    assert published_error("mnist", "gaussian", "posterior") == 1.23
    assert published_error("mnist", "gaussian", "prior") is None
    assert published_error("digits", "bype", "prior") is None
    # Table 6 has the other images
    assert published_error("fashion_mnist", "bype", "posterior") == 9.75
    assert published_error("cifar10", "vampprior", "posterior") == 50.74


def settings_of(prior):
    return VaeSettings(
        dataset="digits",
        model=ModelConfig(latent=2, hidden=8),
        prior=PriorConfig(name=prior, components=5),
        train=TrainConfig(epochs=1, warmup=0),
        likelihood="bernoulli",
        train_images=100,
        seed=0,
    )


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Two tiny models, trained and scored; pictures of one."""
    root = tmp_path_factory.mktemp("scored")
    where = {"data_root": None, "device": torch.device("cpu")}
    for prior in ("gaussian", "bype"):
        train_job(settings_of(prior), root / prior, resume=True, checkpoint_seconds=1e9, **where)
        evaluate_job(root / prior, samples=5, test_images=20, pictures=prior == "bype", **where)
    return root


def fake_folder(path, prior, seed, nll, interval=10):
    """What `train_job` and `evaluate_job` leave of a model of MNIST, with this score."""
    path.mkdir(parents=True)
    config = {"dataset": "mnist", "likelihood": "mse", "model": {"name": "vae"}}
    config |= {"prior": {"name": prior, "components": 500, "interval": interval}, "train": {}, "train_images": 0}
    record = {"job": "vae", "config": config, "epochs": 7, "seconds_an_epoch": 1.5, "scale": "half"}
    (path / "run.json").write_text(json.dumps(record))
    line = {"epoch": 1, "train_elbo": -30.0, "validation_elbo": -31.0}
    (path / "log.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "epoch": 2}) + "\n")
    with RowWriter(path / "rows.csv") as writer:
        for metric, value in (("nll_is", nll), ("elbo", -nll - 1), ("knn_accuracy@5", 0.9)):
            writer.write(
                Row(
                    run="r", config_hash="c", dataset="mnist", method=prior, architecture="vae", ipc=0,
                    sampler="importance", protocol="is5-n20", seed=seed, metric=metric, value=value,
                )
            )  # fmt: skip


def written(paths, out, title):
    """The Markdown of a comparison."""
    compare(paths, out, title)
    return (out / "comparison.md").read_text()


def table_rows(text, head):
    """{first cell: {column: cell}} of the table below the heading `head`."""
    lines = text[text.index(head) :].splitlines()[1:]
    table = []
    for line in lines:
        if line.startswith("|"):
            table.append([c.strip() for c in line.strip("|").split("|")])
        elif table:
            break
    return {row[0]: dict(zip(table[0], row, strict=True)) for row in table[2:]}


def test_scored_models_side_by_side(scored, tmp_path):
    text = written([scored], tmp_path / "out", "Two priors")
    rows = table_rows(text, "**digits, vae, bernoulli, is5-n20")
    assert list(rows) == ["Gaussian", "ByPE"]
    for prior, row in zip(("gaussian", "bype"), rows.values(), strict=True):
        kept = pd.read_csv(scored / prior / "rows.csv").set_index("metric")["value"]
        assert float(row["NLL (nats) ↓"]) == pytest.approx(kept["nll_is"], abs=0.006)
        assert float(row["bound (nats) ↑"]) == pytest.approx(kept["elbo"], abs=0.006)
        assert (row["seeds"], row["epochs"], row["published"]) == ("1", "1", "")
    assert text.startswith("# Two priors")
    assert "100 training images" in text
    assert set(pd.read_csv(tmp_path / "out" / "comparison.csv")["method"]) == {"gaussian", "bype"}
    for name in ("learning", "histogram", "knn"):
        assert (tmp_path / "out" / f"{name}-digits-vae.png").stat().st_size > 1000


def test_published_numbers_stand_beside(tmp_path):
    for prior, seed, nll in (("gaussian", 0, 25.0), ("gaussian", 1, 27.0), ("vampprior", 0, 24.0), ("mog", 0, 24.5)):
        fake_folder(tmp_path / "runs" / f"{prior}{seed}", prior, seed, nll)
    rows = table_rows(written([tmp_path / "runs"], tmp_path / "out", "MNIST"), "**mnist, vae, mse")
    assert list(rows) == ["Gaussian", "Mixture of Gaussians", "VampPrior"]
    assert rows["Gaussian"]["published"] == "24.41 (Ai et al. 2021)"
    assert rows["VampPrior"]["published"] == "23.65 (Ai et al. 2021)"
    assert rows["Mixture of Gaussians"]["published"] == ""
    assert rows["Gaussian"]["NLL (nats) ↓"] == "26.00 ±1.41"
    assert (rows["Gaussian"]["seeds"], rows["VampPrior"]["seeds"]) == ("2", "1")


def test_settings_that_differ_stay_apart(tmp_path):
    for seed, interval, nll in ((0, 1, 20.0), (1, 1, 22.0), (0, 50, 30.0)):
        fake_folder(tmp_path / "runs" / f"{seed}-{interval}", "bype", seed, nll, interval)
    fake_folder(tmp_path / "runs" / "g", "gaussian", 0, 25.0)
    rows = table_rows(written([tmp_path / "runs"], tmp_path / "out", "t"), "**mnist, vae, mse")
    assert [(name, row["NLL (nats) ↓"]) for name, row in rows.items()] == [
        ("Gaussian", "25.00"),
        ("ByPE, interval 1", "21.00 ±1.41"),
        ("ByPE, interval 50", "30.00"),
    ]


def test_a_diverged_seed_is_never_left_out(tmp_path):
    for seed, nll in enumerate((30.0, 40.0, float("nan"))):
        fake_folder(tmp_path / "runs" / f"{seed}", "bype", seed, nll)
    text = written([tmp_path / "runs"], tmp_path / "out", "t")
    row = table_rows(text, "**mnist, vae, mse")["ByPE"]
    assert (row["seeds"], row["NLL (nats) ↓"], row["5-NN accuracy ↑"]) == ("3", "—", "0.9000 ±0.0000")
    assert "- — ByPE: 1 of 3 seeds not finite; mean of the others: NLL 35.00, bound -36.00." in text


def test_scores_that_a_kill_cut_short_are_completed(scored, tmp_path):
    folder = shutil.copytree(scored / "gaussian", tmp_path / "cut")
    whole = pd.read_csv(folder / "rows.csv")
    lines = (folder / "rows.csv").read_text().splitlines(keepends=True)
    (folder / "rows.csv").write_text("".join(lines[:3]))
    next(folder.glob("log-likelihood-*.safetensors")).unlink()
    where = {"data_root": None, "device": torch.device("cpu")}
    evaluate_job(folder, samples=5, test_images=20, pictures=False, **where)
    found = pd.read_csv(folder / "rows.csv")
    assert list(found["metric"]) == list(whole["metric"])
    torch.testing.assert_close(torch.tensor(found["value"]), torch.tensor(whole["value"]))


def test_nothing_to_compare(tmp_path):
    with pytest.raises(DataError, match="vae evaluate"):
        compare([tmp_path], tmp_path / "out", "Nothing")


def test_pictures_of_a_scored_model(scored):
    names = "learning histogram samples reconstructions interpolations pseudo-inputs plates latent-map".split()
    for name in names:
        assert (scored / "bype" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (scored / "bype" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert not (scored / "gaussian" / "samples.png").exists()
    trained = open_trained(scored / "bype", data_root=None, device=torch.device("cpu"))
    assert _title(trained) == "digits, vae, ByPE prior"


def test_sheets():
    images = torch.stack([torch.full((1, 2, 3), v) for v in (0.0, 0.25, 0.5)])
    sheet = _grid(images, 2)
    assert sheet.shape == (5, 7)
    assert sheet[0].tolist() == [0.0, 0.0, 0.0, 1.0, 0.25, 0.25, 0.25]
    assert (sheet[2] == 1).all()
    assert sheet[4].tolist() == [0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert _grid(torch.zeros(4, 3, 2, 2), 2).shape == (5, 5, 3)


def test_pictures_of_extreme_cases(tmp_path):
    """One image, equal weights, no labels, one epoch, a point that the histogram's bins leave out."""
    plot_images(torch.rand(1, 3, 4, 4), tmp_path / "a.png", columns=10, title="one", rows=("row",))
    plot_pseudo_inputs(torch.rand(2, 1, 4, 4), torch.tensor([0.5, 0.5]), tmp_path / "b.png", title="equal")
    plot_map(torch.randn(5, 2).numpy(), torch.full((5,), -1), tmp_path / "c.png", title="no labels")
    plot_map(torch.randn(30, 2).numpy(), torch.arange(30), tmp_path / "d.png", title="many classes")
    same = pd.DataFrame({"epoch": [1], "train_elbo": [-5.0], "validation_elbo": [-5.0]})
    plot_curves({"one": same}, tmp_path / "e.png", title="one epoch")
    plot_histogram({"one": torch.tensor([-3.0])}, tmp_path / "f.png", title="one value")
    assert len(list(tmp_path.glob("*.png"))) == 6
