"""A new divergence, selection method and prior, each registered here and nowhere else, from learning to the comparison."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

import run
from bpc.divergences import DIVERGENCES, CoresetGradient, DistillPreset, DivergenceRecord, Extra
from bpc.errors import ConfigError
from bpc.methods import METHODS, Method
from bpc.registry import Registry
from bpc.selection import SELECTIONS, SelectionRecord, unweighted
from bpc.selection.base import class_members
from bpc.vae.priors import PRIORS, Components, Prior, PriorRecord
from evaluation.compare import method_label, method_labels
from evaluation.plots.base import style_of


@pytest.fixture
def registries(monkeypatch):
    """What a test registers is gone after it."""
    for registry in (METHODS, DIVERGENCES, SELECTIONS, PRIORS):
        monkeypatch.setattr(registry, "_records", dict(registry._records))


# The toys: all that there is of them ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShrinkConfig:
    """How far points are pulled: a field of the preset's and one of its own."""

    student_lr: float
    strength: float = 0.5


@dataclass(frozen=True)
class Shrink:
    """Pulls points towards the expert's mean parameter, and learns how strongly."""

    log_likelihood: object
    config: ShrinkConfig
    needs_real = False
    expert_epochs = 1

    @property
    def extras(self):
        return {"strength": Extra(start=self.config.strength, lr=0.1, minimum=0.0)}

    def gradient(self, coreset, experts, real, generator):
        away = coreset.points - experts.end.mean()
        strength = coreset.extras["strength"]
        return CoresetGradient(
            strength * away, torch.zeros_like(coreset.weights), away.square().sum(), {"strength": torch.ones(())}
        )


def toy_divergence():
    return DivergenceRecord(
        name="shrink",
        label="Shrinking",
        colour="#123456",
        marker="h",
        divergence=Shrink,
        config=ShrinkConfig,
        presets={
            "mine": lambda ipc: DistillPreset(
                name="mine", steps=3, max_start_epoch=2, inner_steps=1, expert_epochs=1, student_lr=0.1, lr_points=0.1
            )
        },
    )


def select_last(labels, ipc, num_classes, *, features, generator):
    return unweighted(torch.cat([index[-ipc:] for index in class_members(labels, num_classes, ipc)]))


def toy_selection():
    return SelectionRecord(
        name="last", label="The last ones", colour="#654321", marker="H", select=select_last, looks_at="nothing"
    )


class Wide(Prior):
    """N(0, 4 I)."""

    name = "wide"

    def __init__(self, latent):
        super().__init__()
        self.register_buffer("zero", torch.zeros(1, latent))

    def components(self, model):
        return Components(self.zero, torch.full_like(self.zero[:, :1], 4.0).log(), self.zero[:, 0])


def toy_prior():
    return PriorRecord(name="wide", label="A wide one", build=lambda config, latent, images, generator: Wide(latent))


# From the command line -----------------------------------------------------------------------------------------------------

HMC = ("--protocol", "kim2022-scaled", "--iterations", "3", "--burn-in", "1", "--test-images", "50")


def test_new_methods_are_learned_scored_and_compared(registries, tmp_path, capsys):
    DIVERGENCES.register(toy_divergence())
    SELECTIONS.register(toy_selection())
    learned, chosen = tmp_path / "learned", tmp_path / "chosen"
    common = ("--dataset", "digits", "--ipc", "1", "--width", "8")
    experts = ("--experts", str(tmp_path / "experts"), "--num-experts", "1", "--augment", "crop_scale_rotate")
    arguments = ["distill", "--divergence", "shrink", *common, *experts, "--no-evaluate", "--out", str(learned)]
    assert run.main(arguments) == 0, capsys.readouterr().err
    log = pd.read_json(learned / "log.jsonl", lines=True)
    assert log["strength"].round(4).tolist() == [0.4, 0.25, 0.075]  # momentum 0.5 on a gradient of 1: 1, 1.5, 1.75
    assert run.main(["select", "--method", "last", *common, "--out", str(chosen)]) == 0, capsys.readouterr().err
    for coreset in (learned, chosen):
        score = ["evaluate", "--dataset", "digits", "--width", "8", "--coreset", str(coreset), *HMC, "--seeds", "2"]
        assert run.main([*score, "--out", str(tmp_path / "scores" / coreset.name)]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert run.main(["compare", str(tmp_path), "--out", str(tmp_path / "comparison")]) == 0
    table = capsys.readouterr().out
    assert "Shrinking (+Aug)" in table  # it is learned, so augmentation makes another method of it
    assert "The last ones" in table
    assert len(list((tmp_path / "comparison").glob("*.png"))) >= 2
    assert style_of("shrink", [])[:3] == ("#123456", "h", "Shrinking")
    assert style_of("The last ones", [])[:3] == ("#654321", "H", "The last ones")


def test_a_new_prior_is_trained_scored_and_compared(registries, tmp_path, capsys):
    PRIORS.register(toy_prior())
    small = ("--latent", "2", "--hidden", "8", "--train-images", "100", "--samples", "5", "--test-images", "20")
    for prior in ("wide", "gaussian"):
        arguments = ["vae", "train", "--dataset", "digits", "--prior", prior, *small, "--epochs", "1"]
        assert run.main([*arguments, "--out", str(tmp_path / prior)]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert run.main(["vae", "compare", str(tmp_path), "--out", str(tmp_path / "comparison")]) == 0
    rows = (tmp_path / "comparison" / "comparison.md").read_text()
    assert rows.index("Gaussian") < rows.index("A wide one")
    assert run.main(["vae", "augment", str(tmp_path / "wide"), "--way", "prior", "--epochs", "1"]) == 2
    assert "The wide prior has no component on an image" in capsys.readouterr().err


def test_a_killed_run_of_a_new_divergence_goes_on(registries, tmp_path, digits):
    """What it learns beside the points is in the checkpoint."""
    from bpc.distill import OuterConfig, distill, initial_coreset, load_state, save_state, start
    from bpc.divergences import ExpertWindow

    toy = Shrink(None, ShrinkConfig(student_lr=0.1))
    window, outer = ExpertWindow(torch.ones(2, 3)), OuterConfig(lr_points=0.1)

    def steps(state, count):
        return list(distill(state, toy, lambda g: window, None, outer, steps=count, seed=0))[-1]

    first = start(initial_coreset(digits, 1, source="real", total_weight=None, seed=0), toy)
    save_state(steps(first, 2), Path(tmp_path / "half"), "hash")
    whole, resumed = steps(first, 5), steps(load_state(tmp_path / "half", "hash", toy, "cpu"), 5)
    assert torch.equal(whole.coreset.points, resumed.coreset.points)
    assert torch.equal(whole.coreset.extras["strength"], resumed.coreset.extras["strength"])


def test_errors_name_what_is_registered(registries, capsys):
    DIVERGENCES.register(toy_divergence())
    assert run.main(["distill", "--divergence", "shrnk", "--ipc", "1", "--dataset", "digits"]) == 2
    assert "choose from fkl, rkl, rkl-path, shrink, wasserstein. Did you mean 'shrink'?" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="Unknown preset 'digits'; choose from mine"):
        DIVERGENCES.get("shrink").preset("digits", 1)


def test_tables_and_figures_know_every_method():
    assert list(method_labels()) == [
        "random", "herding", "kcenter", "craig", "adacore", "rkl", "wasserstein", "fkl", "rkl-path", "full"
    ]  # fmt: skip
    assert {method.name for method in METHODS if method.learned} == set(DIVERGENCES.names())
    assert method_label("fkl", augment=True) == "BPC-fKL (+Aug)" and method_label("unheard-of") == "unheard-of"


def test_a_name_is_taken_in_both_registries(registries):
    """A row says which method made it by one word: a divergence and a selection method never share it."""
    with pytest.raises(ValueError, match="method 'random' already"):
        DIVERGENCES.register(dataclasses.replace(toy_divergence(), name="random"))
    assert "random" not in DIVERGENCES
    alone: Registry[Method] = Registry("thing")
    alone.register(Method(name="a", label="A", colour="#000000", marker="o"))
    assert (alone.names(), len(alone), "a" in alone) == (("a",), 1, True)
