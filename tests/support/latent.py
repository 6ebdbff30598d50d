"""Small latent energy-based models, some with energies that are known in closed form, images to learn from, short learning."""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.data import Dataset, Split
from bpc.ebm.data import SemiSupervised
from bpc.ebm.model import EBMConfig, LatentEBM
from bpc.ebm.synthesis import Synthetic
from bpc.ebm.train import LearnConfig, State, SyntheticConfig, train_ebm

SHAPE, CLASSES = (1, 4, 4), 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(*, latent: int = 2, hidden: int = 8, classes: int = CLASSES, seed: int = 0, scale: float = 1.0) -> LatentEBM:
    """A model of 4x4 images; `scale` multiplies the energy's weights, and its biases are not zero."""
    model = LatentEBM(EBMConfig(latent=latent, hidden=hidden, width=1), SHAPE, classes, seed)
    generator = seeded(seed + 100)
    with torch.no_grad():
        for p in model.energy.parameters():
            p.mul_(scale).add_(0.3 * torch.randn(p.shape, generator=generator) if p.ndim == 1 else 0.0)
    return model


def with_linear_energy(model: LatentEBM, slopes: Tensor) -> LatentEBM:
    """F(z)[y] = slopes[y] . z, exactly: silu(u) - silu(-u) = u. So p(z | y) = N(slopes[y], I) and
    Z = sum_y exp(|slopes[y]|^2 / 2).
    """
    w1, b1, w2, b2, w3, b3 = model.energy.parameters()
    d = slopes.shape[1]
    both = torch.cat([torch.eye(d), -torch.eye(d)]).to(w1)
    with torch.no_grad():
        for p in (w1, b1, w2, b2, w3, b3):
            p.zero_()
        w1[: 2 * d] = both
        w2[: 2 * d, : 2 * d] = both @ both.T
        w3[:, : 2 * d] = slopes.to(w3) @ both.T
    return model


def stripes(n: int, *, classes: int = CLASSES, seed: int = 0) -> Split:
    """4x4 images, class y a bright row y under noise, labels in no order."""
    generator = seeded(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    images = 60.0 * torch.rand((n, *SHAPE), generator=generator)
    images[torch.arange(n), 0, labels] += 180.0
    return Split(images=images.to(torch.uint8), labels=labels)


def stripes_dataset(n: int = 60) -> Dataset:
    return Dataset(
        name="stripes", train=stripes(n), test=stripes(20, seed=1), mean=(0.5,), std=(0.5,),
        class_names=tuple("abc"),
    )  # fmt: skip


def few_labels(labelled: int = 6, unlabelled: int = 30) -> SemiSupervised:
    """Stripes, of which few have labels."""
    split = stripes(labelled * 10, seed=2)
    each = torch.cat([torch.nonzero(split.labels == y).flatten()[: labelled // CLASSES] for y in range(CLASSES)])
    return SemiSupervised("stripes", split.take(each), stripes(unlabelled, seed=3), stripes(20, seed=4), CLASSES)


def made_up_pool(n: int = 40, *, latent: int = 2, seed: int = 5) -> Synthetic:
    """Stripes as if a model had generated them; entropies and latents are noise."""
    split, generator = stripes(n, seed=seed), seeded(seed)
    order = split.labels.argsort(stable=True)
    return Synthetic(
        split.images[order], split.labels[order], torch.randn(n, latent, generator=generator),
        torch.rand(n, generator=generator, dtype=torch.float64), torch.rand(n, generator=generator) < 0.9,
    )  # fmt: skip


CONFIG = LearnConfig(
    iterations=12, augment_at=6, batch_size=5, langevin_steps=3, langevin_step=0.1,
    lr_energy=1e-3, lr_elbo=2e-3, lr_supervised=3e-3,
)  # fmt: skip


def fresh(config=CONFIG, **sizes):
    return State(tiny(**sizes), config)


def chosen(setting, **more):
    return SyntheticConfig(setting=setting, **{"samples": 40, "threshold": 0.5, "reselect_every": 4, **more})


def go(state, data, until, setting=None, seed=0, config=CONFIG, pool=None, **more):
    """`learn` to its end; its records without the time they took."""
    about = {} if setting is None else {"pool": pool or made_up_pool(), "augment_config": chosen(setting, **more)}
    steps = train_ebm(state, data, config, until=until, seed=seed, record_every=3, **about)
    return [record._replace(seconds=0.0) for record in steps]


def parameters_of(adam):
    return adam.param_groups[0]["params"]


def everything(state):
    """Weights and Adam's moments."""
    found = dict(state.model.state_dict())
    for name, adam in state.optimisers.items():
        for i, p in enumerate(parameters_of(adam)):
            found |= {f"{name}.{i}.{k}": v for k, v in adam.state[p].items()}
    return {k: v.clone() for k, v in found.items()}


def assert_same(a, b):
    first, second = everything(a), everything(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert a.iteration == b.iteration
    assert (a.augmented is None) == (b.augmented is None)
    if a.augmented is not None:
        assert torch.equal(a.augmented.split.images, b.augmented.split.images)
        assert torch.equal(a.augmented.weights, b.augmented.weights)
        assert a.augmented.candidates == b.augmented.candidates
