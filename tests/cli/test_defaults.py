"""Defaults are written once: what a flag's words say is what its configuration does."""

import re
import typing

import pytest

from bpc.ebm.model import EBMConfig
from bpc.ebm.presets import SSL_PRESETS
from bpc.ebm.train import LearnConfig, SyntheticConfig
from bpc.vae.models import ModelConfig
from bpc.vae.priors import PriorConfig
from bpc.vae.train import TrainConfig
from bpc_cli import ssl, vae
from bpc_cli.main import COMMANDS, GROUPS, parse

OTHER_NAMES = {"channels": "width", "draws": "samples"}  # of a flag and of the configuration's field


def flags_with_words():
    pairs = ((vae.PriorFlags, PriorConfig), (vae.ModelFlags, ModelConfig), (vae.TrainingFlags, TrainConfig))
    pairs += ((ssl.SyntheticFlags, SyntheticConfig), (ssl.LearnFlags, LearnConfig), (ssl.SizeFlags, EBMConfig))
    for flags, config in pairs:
        for name, hint in typing.get_type_hints(flags, include_extras=True).items():
            text = next(note.help for note in hint.__metadata__ if getattr(note, "help", None))
            if found := re.search(r"Default: ([0-9.e-]*[0-9])", text):
                yield pytest.param(
                    found[1], getattr(config, OTHER_NAMES.get(name, name)), id=f"{flags.__name__}.{name}"
                )


@pytest.mark.parametrize(("words", "value"), list(flags_with_words()))
def test_the_words_are_the_configurations(words, value):
    assert float(words) == value


def test_no_flag_has_a_default_beside_its_configurations():
    for flags in (vae.PriorFlags, vae.ModelFlags, vae.TrainingFlags, ssl.SizeFlags):
        assert set(vars(flags()).values()) == {None}


def test_what_is_not_given_is_the_configurations():
    settings = vae.settings_from(parse(["vae", "train", "--dataset", "mnist"])[1])
    assert settings.model == ModelConfig() and settings.train == TrainConfig()
    assert settings.prior == PriorConfig(name="bype")
    short = vae.settings_from(parse(["vae", "train", "--dataset", "mnist", "--epochs", "20"])[1])
    assert short.train.warmup == 4


def test_presets_of_few_labels():
    svhn = ssl.settings_from(parse(["ssl", "train", "--dataset", "svhn"])[1])
    assert (svhn.model, svhn.learn, svhn.labelled) == (EBMConfig(), LearnConfig(), 1000)
    digits = ssl.settings_from(parse(["ssl", "train", "--dataset", "digits", "--latent", "5"])[1])
    assert digits.model.latent == 5 and digits.model.sigma == SSL_PRESETS["digits"]["sigma"]
    known = {f for kind in (EBMConfig, LearnConfig, SyntheticConfig) for f in vars(kind)["__dataclass_fields__"]}
    for preset in SSL_PRESETS.values():
        assert set(preset) <= {"labelled", *known}


def test_every_choice_is_in_the_help(capsys):
    """Names come from the registries, where a new one appears by itself."""
    from bpc.divergences import DIVERGENCES
    from bpc.selection import SELECTIONS

    every = {**{(name,): c for name, c in COMMANDS.items()}}
    every |= {(group, name): c for group, (_, commands, _) in GROUPS.items() for name, c in commands.items()}
    shown = {}
    for words in every:
        with pytest.raises(SystemExit):
            parse([*words, "--help"])
        shown[words] = capsys.readouterr().out
    assert "|".join(DIVERGENCES.names()) in shown[("distill",)]
    assert "|".join(SELECTIONS.names()) in shown[("select",)]
    assert all(text.startswith("usage: run.py ") for text in shown.values())
