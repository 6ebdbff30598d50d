"""What a learned latent space is good for: neighbours, augmentation, maps and paths (Sections 5.1 to 5.4 of Ai et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from bpc.errors import DataError, unknown_name
from bpc.seeding import make_generator
from bpc.vae.data import ImageSplit, batches
from bpc.vae.layers import glorot_
from bpc.vae.models import LatentModel, draw_normal
from bpc.vae.priors import Prior

__all__ = [
    "KNN_NEIGHBOURS",
    "AugmentationResult",
    "augment",
    "embed",
    "interpolate",
    "knn_accuracy",
    "latents",
    "samples_of",
]

KNN_NEIGHBOURS = (3, 5, 7, 9, 11, 13, 15)
WAYS = ("posterior", "prior")
HIDDEN = 1024  # of the augmentation's classifier


@torch.no_grad()
def latents(model: LatentModel, images: Tensor) -> Tensor:
    """Posterior means of the top latent, (n, d)."""
    model.eval()
    return torch.cat([model.encode(part)[0] for part in images.split(1000)])


def knn_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, neighbours: Sequence[int] = KNN_NEIGHBOURS
) -> dict[int, float]:
    """Accuracy of K-nearest-neighbour classification of latents (n, d), for each K (Figure 4), by scikit-learn."""
    if int(train_labels.min()) < 0:
        raise DataError("Nearest-neighbour classification needs labels, and this dataset has none.")
    found = {}
    for k in neighbours:
        classifier = KNeighborsClassifier(k).fit(train.cpu().numpy(), train_labels.cpu().numpy())
        found[k] = float(classifier.score(test.cpu().numpy(), test_labels.cpu().numpy()))
    return found


def embed(points: Tensor, seed: int) -> np.ndarray:
    """t-SNE of latents (n, d) to (n, 2), by scikit-learn (Figure 3)."""
    perplexity = min(30.0, (len(points) - 1) / 3)
    result: np.ndarray = TSNE(random_state=seed, init="pca", perplexity=perplexity).fit_transform(points.cpu().numpy())
    return result


@torch.no_grad()
def interpolate(model: LatentModel, first: Tensor, second: Tensor, steps: int = 10) -> Tensor:
    """Mean images along straight lines between the latents of pairs of images: (n, c, h, w) twice -> (n, steps, c, h, w)."""
    model.eval()
    a, b = model.encode(first)[0], model.encode(second)[0]
    t = torch.linspace(0.0, 1.0, steps, device=a.device)
    z = a.unsqueeze(1) + t.view(1, -1, 1) * (b - a).unsqueeze(1)
    return model.likelihood.mean(model.decode(z.flatten(0, 1))).view(len(a), steps, *first.shape[1:])


@torch.no_grad()
def samples_of(model: LatentModel, prior: Prior, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """N generated mean images (Algorithm 1 of Ai et al. 2021) and which component of the prior each came from."""
    model.eval()
    prior.eval()
    z, chosen = prior.sample(n, model, generator)
    return torch.cat([model.generate(part, generator) for part in z.split(500)]), chosen


class AugmentationResult(NamedTuple):
    """One trained classifier."""

    weight: float  # lambda, of the real images
    way: str  # posterior or prior
    test_error: float  # fraction


def augment(
    model: LatentModel,
    prior: Prior,
    train: ImageSplit,
    test: ImageSplit,
    *,
    weights: Sequence[float],
    way: str,
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    report: Callable[[int], None] = lambda done: None,
) -> Iterator[AugmentationResult]:
    """Train a 784-1024-1024-y classifier on real and generated images for each lambda (Section 5.4).

    Every real image of a batch has a generated companion with its label: decoded from q(z | x) (`posterior`) or from the prior's
    component on the image itself, N(mu(x), sigma^2 I) (`prior`: only priors with that shared variance have it). The loss is
    lambda CE(real) + (1 - lambda) CE(generated).

    Raises:
        ConfigError: an unknown way.
        DataError: no labels, or a prior without components on images.
    """
    if way not in WAYS:
        raise unknown_name("way", way, WAYS)
    if int(train.labels.min()) < 0:
        raise DataError("Augmentation needs labels, and this dataset has none.")
    if way == "prior" and prior.image_log_var() is None:
        raise DataError(f"The {prior.name} prior has no component on an image; use --way posterior.")
    device = train.images.device
    classes, pixels = int(train.labels.max()) + 1, train.images[0].numel()
    model.eval()
    for i, weight in enumerate(weights):
        net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, classes),
        )
        glorot_(net, make_generator("cpu", seed, "augment", "init"))
        net.to(device)
        optimiser = torch.optim.Adam(net.parameters(), lr=lr)
        for epoch in range(epochs):
            for group in optimiser.param_groups:  # cosine, so that no epoch has to be picked on the test set
                group["lr"] = lr * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
            generator = make_generator(device, seed, "augment", epoch)
            for index in batches(len(train), batch_size, make_generator("cpu", seed, "augment order", epoch)):
                index = index.to(device)
                x, y = train.images[index], train.labels[index]
                loss = torch.zeros((), device=device)
                if weight > 0:
                    loss = loss + weight * F.cross_entropy(net(x), y)
                if weight < 1:
                    loss = loss + (1 - weight) * F.cross_entropy(net(companions(model, prior, x, way, generator)), y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            report(i * epochs + epoch + 1)
        with torch.no_grad():
            wrong = sum(
                int((net(test.images[j]).argmax(1) != test.labels[j]).sum()) for j in batches(len(test), 1000, None)
            )
        yield AugmentationResult(weight, way, wrong / len(test))


@torch.no_grad()
def companions(model: LatentModel, prior: Prior, x: Tensor, way: str, generator: torch.Generator) -> Tensor:
    """A generated image for each real one."""
    mean, log_var = model.encode(x)
    own = prior.image_log_var() if way == "prior" else None
    if own is not None:
        log_var = own.expand_as(mean)
    return model.generate(draw_normal(mean, log_var, generator), generator)
