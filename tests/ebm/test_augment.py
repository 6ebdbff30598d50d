"""What of the generated and pseudo-labelled images is learned from, and when it is chosen anew."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from latent import CLASSES, CONFIG, chosen, few_labels, fresh, go, made_up_pool

from bpc.data import Split
from bpc.ebm import train as training
from bpc.ebm.synthesis import pseudo_label
from bpc.ebm.train import SETTINGS, SyntheticConfig, augment, build_pool
from bpc.errors import ConfigError, DataError


def test_when_images_are_chosen(monkeypatch):
    """At T_a and every `reselect_every` iterations, with the model as it is then."""
    data, pool, real, seen = few_labels(), made_up_pool(), training.augment, []

    def watched(state, own_pool, own_data, config, seed):
        assert own_pool is pool and own_data is data
        found = real(state, own_pool, own_data, config, seed)
        seen.append((state.iteration, found))
        return found

    monkeypatch.setattr(training, "augment", watched)
    config = dataclasses.replace(CONFIG, iterations=16)
    state = fresh(scale=2.0)
    go(state, data, 6, config=config)
    assert seen == []
    go(state, data, 16, "entropy-craig", config=config, pool=pool, reselect_every=4)
    assert [t for t, _ in seen] == [6, 10, 14]
    assert state.augmented is seen[-1][1]
    go(state, data, 18, "entropy-craig", config=dataclasses.replace(config, iterations=18), pool=pool, reselect_every=4)
    assert [t for t, _ in seen] == [6, 10, 14]


def test_what_is_chosen_depends_on_the_model():
    data, pool, config = few_labels(), made_up_pool(), chosen("entropy-craig", fraction=0.3)
    first, second = (augment(fresh(scale=3.0, seed=s), pool, data, config, 0) for s in (0, 1))
    assert not torch.equal(first.split.images, second.split.images)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s != "baseline"])
def test_which_images_each_setting_keeps(setting):
    data, pool, state = few_labels(), made_up_pool(), fresh(scale=4.0)
    config = chosen(setting, fraction=0.3, threshold=0.6)
    found = augment(state, pool, data, config, 0)
    candidates = pool.split()
    if setting == "entropy-craig-pl":
        sure = pseudo_label(state.model, data.unlabelled.images, 0.6)
        assert 0 < len(sure.indices) < len(data.unlabelled)
        candidates = Split(
            images=torch.cat([pool.images, data.unlabelled.images[sure.indices]]),
            labels=torch.cat([pool.labels, sure.labels]),
        )
    assert found.candidates == len(candidates)
    sizes = candidates.labels.bincount(minlength=CLASSES).tolist()
    kept = found.split.labels.bincount(minlength=CLASSES).tolist()
    if setting in ("unfiltered", "entropy"):
        assert torch.equal(found.split.images, candidates.images)
        assert torch.equal(found.split.labels, candidates.labels)
        assert torch.equal(found.weights, torch.ones(len(candidates)))
    else:
        assert kept == [int(0.3 * size + 0.5) for size in sizes]
        assert len(found.weights) == len(found.split)
        assert found.weights.dtype == torch.float32
        assert float(found.weights.mean()) == pytest.approx(1.0, rel=1e-6)
        if setting == "entropy-random":
            assert torch.equal(found.weights, torch.ones(len(found.split)))
        else:  # a class weighs what its candidates do
            totals = torch.zeros(CLASSES).index_add(0, found.split.labels, found.weights)
            torch.testing.assert_close(totals / totals.sum(), torch.tensor(sizes) / sum(sizes))
            assert len(set(found.weights.tolist())) > 1
    # every image kept is a candidate, with its label
    there = {(*image.flatten().tolist(), int(y)) for image, y in zip(candidates.images, candidates.labels, strict=True)}
    assert {
        (*i.flatten().tolist(), int(y)) for i, y in zip(found.split.images, found.split.labels, strict=True)
    } <= there
    again = augment(state, pool, data, config, 0)
    assert torch.equal(again.split.images, found.split.images)


def test_the_ways_to_choose_differ():
    data, pool, state = few_labels(), made_up_pool(90), fresh(scale=3.0)
    kept = [
        augment(state, pool, data, chosen(f"entropy-{way}", fraction=0.3), 0).split.images.flatten(1).tolist()
        for way in ("craig", "adacore", "random")
    ]
    assert kept[0] != kept[1] != kept[2] != kept[0]


def test_a_random_part_changes_with_iteration_and_seed():
    data, pool, state = few_labels(), made_up_pool(90), fresh()
    config, found = chosen("entropy-random", fraction=0.3), []
    for t, seed in ((6, 0), (10, 0), (6, 1)):
        state.iteration = t
        found.append(augment(state, pool, data, config, seed).split.images)
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_classes_that_nothing_passed_for():
    """The filter may empty a class; the others are chosen from all the same."""
    pool = made_up_pool()
    pool = pool.take(pool.labels != 1)
    for way in ("craig", "adacore", "random"):
        found = augment(fresh(), pool, few_labels(), chosen(f"entropy-{way}"), 0)
        assert found.split.labels.unique().tolist() == [0, 2]


def test_the_pool_is_filtered_if_the_setting_says_so():
    state = fresh(scale=3.0)
    everyone, agreed = build_pool(state, CONFIG, chosen("unfiltered", samples=100), 4)
    assert len(everyone.labels) == 102  # rounded up to a multiple of three
    assert agreed == int(everyone.agrees.sum()) and 0 < agreed < 102
    threshold = float(everyone.entropies.median())
    kept, same = build_pool(state, CONFIG, chosen("entropy-craig", samples=100, threshold=threshold), 4)
    assert same == agreed  # of all that were generated
    assert torch.equal(kept.latents, everyone.latents[everyone.entropies < threshold])
    cold, _ = build_pool(state, CONFIG, chosen("unfiltered", samples=100, temperature=0.0), 4)
    assert float(cold.latents.std()) < float(everyone.latents.std())


def test_a_threshold_that_nobody_passes():
    with pytest.raises(DataError, match=r"None of 42 samples.*below 1e-30.*the lowest is.*--threshold"):
        build_pool(fresh(), CONFIG, chosen("entropy", threshold=1e-30), 0)


def test_records_name_the_augmented_images():
    state, data = fresh(), few_labels()
    state.iteration = 6
    records = go(state, data, 12, "entropy-craig", fraction=0.3)
    sizes = made_up_pool().labels.bincount().tolist()
    assert {(r.candidates, r.augmented) for r in records} == {(40, sum(int(0.3 * s + 0.5) for s in sizes))}
    assert all(r.augmented_loss > 0 for r in records)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"setting": "entropy-crag"}, "Unknown setting 'entropy-crag'.*entropy-craig"),
        ({"samples": 0}, "needs --samples"),
        ({"fraction": 0.0}, "0 < fraction"), ({"fraction": 1.1}, "0 < fraction"), ({"threshold": -1.0}, "threshold"),
        ({"weight": -0.1}, "weight"), ({"temperature": -1.0}, "temperature"), ({"reselect_every": 0}, "between selections"),
    ],
)  # fmt: skip
def test_refused_settings_of_augmentation(wrong, words):
    with pytest.raises(ConfigError, match=words):
        SyntheticConfig(**{"setting": "entropy-craig", "samples": 10, **wrong})
