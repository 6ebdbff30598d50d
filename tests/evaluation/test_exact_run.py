"""An exact evaluation in its folder: what is written, the reference, the fidelity and the page."""

import math

import arviz as az
import pytest
import torch
from exact_scoring import config, open_run, random_coreset
from torch.distributions import Normal

from bpc.data import Split
from bpc.errors import ConfigError
from bpc.files import load_tensors
from bpc.seeding import make_generator
from evaluation import exact_chains, exact_run
from evaluation.compare import beside_full_data, load_runs, summarise
from evaluation.exact_chains import sample_exact
from evaluation.exact_report import write_page
from evaluation.exact_run import add_fidelity, score_exact
from evaluation.fidelity import fidelity
from evaluation.inference_data import to_inference_data
from evaluation.inputs import Inputs, foreign, mixed_corruptions
from evaluation.metrics import compute, empty_sums, update
from evaluation.monte_carlo import fidelity_errors
from evaluation.predictive import pick_images, predictive_tensors
from evaluation.reference import make_reference, reference_settings
from evaluation.rows import read_rows
from evaluation.tables import to_markdown


@pytest.fixture
def scored(net, digits, inputs, tmp_path):
    """A learned coreset and random ones, scored for two seeds, with fidelity to a (short) reference."""
    learned = random_coreset(digits, 9).replace(method="fkl")
    short = {"warmup": 5, "samples": 8, "leapfrog_steps": 2, "chains": 2}
    settings = reference_settings(len(digits.train), sampler="sghmc", **short)
    reference = make_reference(tmp_path / "reference", net, digits, settings, device=torch.device("cpu"))
    with open_run(tmp_path / "run") as run:
        for coresets in ([learned], [random_coreset(digits, s) for s in (0, 1)]):
            score_exact(run, net, digits, coresets, config(), seeds=[0, 1], inputs=inputs)
        add_fidelity(run, reference, inputs[:3])
        run.record("done")
    return tmp_path / "run", reference


def test_rows_are_the_metrics_of_the_saved_predictive(scored, inputs):
    folder, reference = scored
    rows = read_rows(folder / "rows.csv")
    tensors, _ = load_tensors(folder / "predictive-fkl-hmc-exact-1.safetensors")
    truth, again = (predictive_tensors({i.name: reference.predictive(s, i) for i in inputs}, inputs) for s in (0, 1))
    mine = rows[(rows["method"] == "fkl") & (rows["seed"] == 1)].set_index("metric")["value"]
    for name, value in compute(update(empty_sums(), tensors["probs"], tensors["labels"])).items():
        assert mine[name] == pytest.approx(float(value), rel=1e-5)
    for name, value in fidelity(tensors["probs"], truth["probs"])._asdict().items():
        assert mine[name] == pytest.approx(float(value), rel=1e-5, abs=1e-7)
    for name, value in fidelity(tensors["probs_corrupted"], truth["probs_corrupted"])._asdict().items():
        assert mine[f"{name}_corrupted"] == pytest.approx(float(value), rel=1e-5, abs=1e-7)
    foreign_gaps = fidelity(tensors["probs_foreign"], truth["probs_foreign"])
    assert mine["tv_foreign"] == pytest.approx(float(foreign_gaps.tv), rel=1e-5)
    errors = fidelity_errors(tensors["chains_foreign"], reference.tensors(0, inputs)["chains_foreign"])
    assert mine["tv_foreign_mcse"] == pytest.approx(float(errors.tv), rel=1e-5) and mine["nll_mcse"] > 0
    assert not [name for name in tensors if name.startswith("chains") and "-" in name]
    accuracy = (tensors["probs_fog-2"].argmax(-1) == tensors["labels_fog-2"]).double().mean()
    assert mine["accuracy@fog-2"] == pytest.approx(float(accuracy))
    assert {"conditioning_ce", "tv_halves", "tv_halves_error", "rhat_weights", "ess_bulk_predictions_worst"} <= set(
        mine.index
    )
    assert mine["mixed"] == 0.0 and 0 < mine["tv_halves_error"] < 1
    ceiling = rows[(rows["method"] == "full") & (rows["seed"] == 1)].set_index("metric")["value"]
    assert 0 < ceiling["conditioning_ce"] < 3 and 0 < ceiling["tv_halves"] < 1  # on all training images
    assert ceiling["tv"] == pytest.approx(float(fidelity(again["probs"], truth["probs"]).tv), rel=1e-5)
    assert not rows.duplicated(["method", "sampler", "seed", "metric"]).any()


def test_a_reference_of_one_run_has_no_ceiling(scored, net, digits, inputs, tmp_path):
    _, reference = scored
    one = make_reference(reference.path, net, digits, reference.settings, device=torch.device("cpu"), runs=1)
    learned = random_coreset(digits, 9).replace(method="fkl")
    with open_run(tmp_path / "other") as run:
        score_exact(run, net, digits, [learned], config(), seeds=[0], inputs=inputs)
        assert add_fidelity(run, one, inputs[:3]) is None
    rows = read_rows(tmp_path / "other" / "rows.csv")
    full = rows[rows["method"] == "full"]
    assert set(full["seed"]) == {0} and "tv" not in set(full["metric"])
    assert "tv_foreign_mcse" in set(rows[rows["method"] == "fkl"]["metric"])
    assert {"nll_corrupted", "nll_calibrated_corrupted", "nll_calibrated_mcse", "ece_corrupted_mcse"} <= set(
        full["metric"]
    )


def test_the_saved_predictive_pools_the_chains(scored, net, digits, inputs):
    folder, _ = scored
    learned = random_coreset(digits, 9).replace(method="fkl")
    (result,) = sample_exact(net, digits, [learned], config(), seeds=[1], inputs=inputs)
    tensors, _ = load_tensors(folder / "predictive-fkl-hmc-exact-1.safetensors")
    assert not torch.allclose(result.probs["test"][0], result.probs["test"][1], atol=1e-4)
    torch.testing.assert_close(tensors["probs"], result.probs["test"].mean(0), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(tensors["probs_corrupted"], result.probs["corrupted"].mean(0), rtol=1e-3, atol=1e-5)


def test_the_file_of_draws_is_arviz_s(scored):
    folder, _ = scored
    data = az.from_netcdf(folder / "inference-fkl-hmc-exact-0.nc")
    assert data["posterior"].sizes["chain"] == 2 and data["posterior"].sizes["draw"] == 8
    assert {"lp", "energy", "acceptance_rate", "diverging", "step_size"} <= set(data["sample_stats"].data_vars)
    rows = read_rows(folder / "rows.csv")
    row = rows[(rows["method"] == "fkl") & (rows["seed"] == 0) & (rows["metric"] == "rhat_log_density")]
    assert float(row["value"].iloc[0]) == pytest.approx(
        float(az.rhat(data["posterior"]["log_density"].values)), rel=1e-6
    )


def test_scoring_again_adds_nothing_and_finishes_what_is_torn(scored, net, digits, inputs):
    folder, reference = scored
    before = (folder / "rows.csv").read_text()
    learned = random_coreset(digits, 9).replace(method="fkl")
    with open_run(folder) as run:
        score_exact(run, net, digits, [learned], config(), seeds=[0, 1], inputs=inputs)
        add_fidelity(run, reference, inputs[:3])
    assert (folder / "rows.csv").read_text() == before
    lines = before.splitlines(keepends=True)
    torn = [line for line in lines if not (",fkl," in line and ",1,mixed," in line)]
    (folder / "rows.csv").write_text("".join(torn) + "torn,li")
    with open_run(folder) as run:
        score_exact(run, net, digits, [learned], config(), seeds=[0, 1], inputs=inputs)
    strip = [line.split(",")[3:11] for line in lines]
    assert sorted(line.split(",")[3:11] for line in (folder / "rows.csv").read_text().splitlines(True)) == sorted(strip)


def test_one_table_and_one_page(scored, inputs):
    folder, reference = scored
    summary = beside_full_data(summarise(load_runs([folder])))
    text = to_markdown(summary)
    assert text.count("| Method |") == 1
    header = next(line for line in text.splitlines() if line.startswith("| Method"))
    for column in (
        "Accuracy",
        "Agreement",
        "Sym. KL, corrupted",
        "OOD AUROC",
        "R-hat, predictions (95 %)",
        "Divergences",
        "TV, halves of the chains",
    ):
        assert column in header
    # eight draws cannot have mixed, and every row says so
    assert all(f"{name} †" in text for name in ("Random", "BPC-fKL", "Full data"))
    assert "full data by sghmc" in text
    assert "not finite;" not in text and "chains not finite" not in text  # SGHMC has no energy, which is no fault
    files = write_page(folder, reference, title="test", inputs=inputs[:3])
    assert [f.suffix for f in files] == [".png", ".pdf"] and all(f.stat().st_size > 20_000 for f in files)
    assert write_page(folder, None, title="test")


def test_a_chain_that_diverges_is_seen_everywhere(net, digits, coreset, inputs, tmp_path, monkeypatch):
    """One chain of one seed becomes nan: its seed's numbers are nan, the mean is a dash, the page leaves it out and says so."""
    original = exact_chains._Recorder.record

    def spoil(self, params, log_density, **found):
        params = params.clone()
        params[1] = math.nan
        return original(self, params, log_density, **found)

    monkeypatch.setattr(exact_chains._Recorder, "record", spoil)
    with open_run(tmp_path / "run") as run:
        score_exact(run, net, digits, [coreset], config(), seeds=[0, 1], inputs=inputs)
    rows = read_rows(tmp_path / "run" / "rows.csv")
    accuracy = rows[rows["metric"] == "accuracy"].set_index("seed")["value"]
    assert math.isnan(accuracy[0]) and not math.isnan(accuracy[1])
    text = to_markdown(summarise(load_runs([tmp_path / "run"])))
    assert "1 of 2 chains not finite" in text and "Random †" in text
    assert write_page(tmp_path / "run", None, title="test")


def test_evidence_and_swaps_are_those_of_the_last_draw():
    """The log of the chains' mean evidence, the worst chain's swaps; earlier draws knew less."""
    g = torch.Generator().manual_seed(0)
    last = {
        "log_evidence": [-1000.0, -1000.0 + math.log(3.0)],
        "swap_rate_min": [0.4, 0.2],
        "barrier": [2.0, 3.0],
    }
    estimates = {name: torch.full((2, 8), 77.0, dtype=torch.float64) for name in last}
    for name, values in last.items():
        estimates[name][:, -1] = torch.tensor(values, dtype=torch.float64)
    data = to_inference_data(
        log_density=torch.randn(2, 8, generator=g), predictions=torch.rand(2, 8, 3, generator=g), estimates=estimates
    )
    found = exact_run._estimates(data["sample_stats"])
    assert found == pytest.approx(
        {"log_evidence": -1000.0 + math.log(2.0), "swap_rate_min": 0.2, "communication_barrier": 2.5}
    )
    plain = to_inference_data(log_density=torch.randn(2, 8), predictions=torch.rand(2, 8, 3))
    assert exact_run._estimates(plain["sample_stats"]) == {}


@pytest.mark.parametrize("rate", [0.01, math.nan])
def test_replicas_that_hardly_swap_are_told(capsys, rate):
    exact_run.warn_of_swaps({"swap_rate_min": rate, "communication_barrier": 8.2}, "fkl, seed 0")
    assert "--levels 18" in capsys.readouterr().err
    exact_run.warn_of_swaps({"swap_rate_min": 0.4, "communication_barrier": 8.2}, "fkl, seed 0")
    exact_run.warn_of_swaps({"accuracy": 0.5}, "fkl, seed 0")  # no tempering
    assert capsys.readouterr().err == ""


def test_the_reference_s_target_is_the_posterior_of_every_training_image(net, digits, tmp_path, monkeypatch):
    seen = []

    def stop(network, dataset, posterior, settings, **rest):
        seen.append(posterior)
        return iter(())

    monkeypatch.setattr("evaluation.reference.sample_posterior", stop)
    settings = reference_settings(len(digits.train), chains=2, leapfrog_steps=2, warmup=1, samples=4)
    make_reference(tmp_path / "r", net, digits, settings, device=torch.device("cpu"))
    theta = net.init(2, make_generator("cpu", 5))
    images, labels = digits.normalise(digits.train.images), digits.train.labels
    expected = torch.stack([Normal(0.0, settings.prior_std).log_prob(t).sum() for t in theta])
    expected -= Normal(0.0, settings.prior_std).log_prob(torch.zeros(())) * net.num_params
    log_lik = net(theta, images).log_softmax(-1)[:, torch.arange(len(labels)), labels]
    assert len(seen) == 2
    torch.testing.assert_close(seen[0](theta), expected + log_lik.sum(1), rtol=1e-4, atol=1e-2)


def test_another_reference_s_images_are_refused(scored, net, digits, inputs, tmp_path):
    _, reference = scored
    other = Inputs("test", Split(images=inputs[0].split.images.flip(0), labels=inputs[0].split.labels.flip(0)))
    with open_run(tmp_path / "other") as run:
        score_exact(run, net, digits, [random_coreset(digits, 0)], config(), seeds=[0], inputs=[other])
        with pytest.raises(ConfigError, match="different images"):
            add_fidelity(run, reference, inputs[:3])


def test_inputs(digits):
    shifted = [(c, s, digits.test) for c in "ab" for s in range(1, 6)]
    mixed = mixed_corruptions(shifted, 50)
    assert len(mixed.split) == 50
    assert torch.equal(mixed.split.images[5:10], digits.test.images[5:10])  # other images for the next combination
    out = foreign(digits.test, digits, 20)
    assert torch.equal(
        out.split.images.flatten(1).sort(1).values, pick_images(digits.test, 20).images.flatten(1).sort(1).values
    )
    assert not torch.equal(out.split.images, pick_images(digits.test, 20).images)
    assert torch.equal(out.split.images, foreign(digits.test, digits, 20).split.images)
