"""The slow side of the speed benchmark: the paper's algorithms written straight down, structured as the published code is.

One `nn.Sequential`, one parameter vector at a time, plain autograd: BPC-W keeps the graph of all L_u inner steps, BPC-fKL that
of all S pairs of losses, BPC-rKL its S x m scores; experts are trained one after the other; HMC runs chain by chain with two
gradients per leapfrog step. Every function takes its random numbers from the generator in the product's order, so each result
equals the product's to rounding (tests/benchmarks/test_naive.py). The augmentation is the product's own: it is not what is
measured. Coresets have equal weights, which nothing here learns: the gradient with respect to them is nan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from bpc.augment import Augment
from bpc.data import Dataset
from bpc.divergences import (
    CoresetGradient,
    ExpertWindow,
    ForwardKL,
    ForwardKLConfig,
    LearnedCoreset,
    RealBatch,
    ReverseKL,
    ReverseKLConfig,
    Wasserstein,
    WassersteinConfig,
)
from bpc.models import ConvNetConfig
from bpc.samplers.hmc import HMCConfig
from bpc.seeding import make_generator
from expert_trajectories import ExpertConfig


class NaiveConvNet:
    """The instance-norm ReLU `bpc.models.ConvNet` as a module: the same parameters in the same order, one vector (p,) a call."""

    def __init__(self, config: ConvNetConfig, image_shape: tuple[int, int, int], num_classes: int) -> None:
        if (config.norm, config.activation) != ("instance", "relu"):
            raise ValueError(f"The naive reference has instance norm and ReLU only; got {config}.")
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        for _ in range(config.depth):
            layers += [nn.Conv2d(channels, config.width, 3, padding=1), nn.GroupNorm(config.width, config.width)]
            layers += [nn.ReLU(inplace=True), nn.AvgPool2d(2)]
            channels = config.width
        features = channels * (height >> config.depth) * (width >> config.depth)
        self.module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, num_classes))
        self.shapes = {name: p.shape for name, p in self.module.named_parameters()}

    def __call__(self, params: Tensor, images: Tensor) -> Tensor:
        """Logits (n, y) of images (n, c, h, w) under the parameters (p,)."""
        parts = params.split([shape.numel() for shape in self.shapes.values()])
        named = {name: part.view(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}
        return functional_call(self.module, named, images)


def inner_end(
    net: NaiveConvNet,
    start: Tensor,
    coreset: LearnedCoreset,
    student_lr: Tensor | float,
    config: Any,
    generator: Generator,
    keep_graph: bool = False,
) -> Tensor:
    """theta_u^(L_u), (p,), by SGD on the mean cross-entropy of the freshly augmented coreset."""
    augment = Augment(config.augment)
    params = start.detach().clone().requires_grad_(True)
    for _ in range(config.inner_steps):
        loss = F.cross_entropy(net(params, augment(coreset.points, generator)), coreset.labels)
        (gradient,) = torch.autograd.grad(loss, params, create_graph=keep_graph)
        params = params - student_lr * gradient
    return params


def wasserstein(
    net: NaiveConvNet, coreset: LearnedCoreset, window: ExpertWindow, config: WassersteinConfig, generator: Generator
) -> CoresetGradient:
    """BPC-W: one backward pass through the unrolled inner SGD."""
    coreset = _leaves(coreset)
    student_lr = coreset.extras["student_lr"].detach().clone().requires_grad_(True)
    end = inner_end(net, window.start, coreset, student_lr, config, generator, keep_graph=True)
    loss = F.mse_loss(end, window.end, reduction="sum") / F.mse_loss(window.start, window.end, reduction="sum")
    loss.backward()
    return _answer(coreset, coreset.points.grad, loss, {"student_lr": student_lr.grad})


def forward_kl(
    net: NaiveConvNet, coreset: LearnedCoreset, window: ExpertWindow, config: ForwardKLConfig, generator: Generator
) -> CoresetGradient:
    """BPC-fKL: all S pairs of losses in one graph, then one backward pass."""
    coreset = _leaves(coreset)
    end = inner_end(net, window.start, coreset, config.student_lr, config, generator).detach()
    augment = Augment(config.augment)
    loss = coreset.points.new_zeros(())
    for _ in range(config.samples):
        noise = torch.randn(2, *end.shape, generator=generator, device=end.device, dtype=end.dtype)
        seen = augment(coreset.points, generator)
        loss_core = F.cross_entropy(net(end + config.sigma_core * noise[0], seen), coreset.labels)
        loss_expert = F.cross_entropy(net(window.end + config.sigma_expert * noise[1], seen), coreset.labels)
        loss = loss + (loss_expert - loss_core) / config.samples
    loss.backward()
    return _answer(coreset, coreset.points.grad, loss)


def reverse_kl(
    net: NaiveConvNet,
    coreset: LearnedCoreset,
    window: ExpertWindow,
    real: RealBatch,
    config: ReverseKLConfig,
    generator: Generator,
) -> CoresetGradient:
    """BPC-rKL by Algorithm 4: (S, B) and (S, m) log-likelihoods and (S, m, c, h, w) scores, centred over S and combined."""
    end = inner_end(net, window.start, coreset, config.student_lr, config, generator).detach()
    coreset = _leaves(coreset)
    noise = torch.randn(config.samples, *end.shape, generator=generator, device=end.device, dtype=end.dtype)
    log_lik_real, log_lik_core, scores = [], [], []
    for row in noise:
        params = end + config.sigma_core * row
        with torch.no_grad():
            log_lik_real.append(-F.cross_entropy(net(params, real.points), real.labels, reduction="none"))
            log_lik_core.append(-F.cross_entropy(net(params, coreset.points), coreset.labels, reduction="none"))
        log_lik = -F.cross_entropy(net(params, coreset.points), coreset.labels, reduction="none")
        scores.append(torch.autograd.grad(log_lik.sum(), coreset.points)[0])
    g, g_tilde, h_tilde = (x - x.mean(0) for x in map(torch.stack, (log_lik_real, log_lik_core, scores)))
    gradient = torch.zeros_like(coreset.points)
    for s in range(config.samples):
        gradient = gradient - (g[s].mean() - g_tilde[s].mean()) * h_tilde[s] / config.samples
    return _answer(coreset, gradient, torch.full_like(end[0], torch.nan))


def _leaves(coreset: LearnedCoreset) -> LearnedCoreset:
    """The same coreset, its points ready to collect a gradient."""
    return coreset._replace(points=coreset.points.detach().clone().requires_grad_(True))


def _answer(
    coreset: LearnedCoreset, points: Tensor | None, value: Tensor, extras: Mapping[str, Tensor | None] | None = None
) -> CoresetGradient:
    assert points is not None
    found = {name: gradient.detach() for name, gradient in (extras or {}).items() if gradient is not None}
    weights = torch.full_like(coreset.weights, torch.nan)
    return CoresetGradient(points.detach(), weights, value.detach(), found)


@dataclass(frozen=True)
class NaiveDivergence:
    """What `bpc.distill.distill` takes, with the settings of one of the product's divergences."""

    network: NaiveConvNet
    product: ForwardKL | Wasserstein | ReverseKL

    def __post_init__(self) -> None:
        config: Any = self.product.config
        for name, only in {"reduction": "mean", "diagonal": False, "augment_samples": False}.items():
            if getattr(config, name, only) != only:
                raise ValueError(f"The naive reference has {name}={only!r} only; got {getattr(config, name)!r}.")
        object.__setattr__(self, "needs_real", self.product.needs_real)
        object.__setattr__(self, "expert_epochs", self.product.expert_epochs)
        object.__setattr__(self, "extras", self.product.extras)

    def gradient(
        self, coreset: LearnedCoreset, experts: ExpertWindow, real: RealBatch | None, generator: Generator
    ) -> CoresetGradient:
        """See `bpc.divergences.Divergence`."""
        if isinstance(self.product, ForwardKL):
            return forward_kl(self.network, coreset, experts, self.product.config, generator)
        if isinstance(self.product, Wasserstein):
            return wasserstein(self.network, coreset, experts, self.product.config, generator)
        assert real is not None
        return reverse_kl(self.network, coreset, experts, real, self.product.config, generator)


def train_expert(
    network: NaiveConvNet, start: Tensor, dataset: Dataset, config: ExpertConfig, *, expert: int, epochs: int, seed: int
) -> Tensor:
    """Snapshots (epochs + 1, p) of one expert, by `torch.optim.SGD` on the module's own parameters, from `start` (p,)."""
    device, n = start.device, len(dataset.train)
    module = network.module.to(start)
    vector_to_parameters(start.clone(), module.parameters())
    optimiser = torch.optim.SGD(module.parameters(), lr=config.lr)
    augment, snapshots = Augment(config.augment), [start]
    for epoch in range(1, epochs + 1):
        names = ("expert", expert, "epoch", epoch)
        order = torch.randperm(n, generator=make_generator("cpu", seed, *names, "order")).to(device)
        noise = make_generator(device, seed, *names, "augment")
        for index in order.split(config.batch_size):
            images = augment(dataset.normalise(dataset.train.images[index]), noise)
            optimiser.zero_grad()
            F.cross_entropy(module(images), dataset.train.labels[index]).backward()
            optimiser.step()
        snapshots.append(parameters_to_vector(module.parameters()).detach().clone())
    return torch.stack(snapshots)


def coreset_log_density(network: NaiveConvNet, coreset: LearnedCoreset, prior_std: float) -> Callable[[Tensor], Tensor]:
    """(p,) -> scalar nats: the coreset's log-likelihood under weights of 1, plus a Gaussian log prior without its constant."""

    def density(params: Tensor) -> Tensor:
        loss = F.cross_entropy(network(params, coreset.points), coreset.labels, reduction="sum")
        return -loss - 0.5 * params.square().sum() / prior_std**2

    return density


def gradient_of(density: Callable[[Tensor], Tensor], params: Tensor) -> Tensor:
    """Gradient (p,) of a scalar density at (p,)."""
    leaf = params.detach().requires_grad_(True)
    return torch.autograd.grad(density(leaf), leaf)[0]


def hmc(
    density: Callable[[Tensor], Tensor], starts: Tensor, config: HMCConfig, *, draws: int, generators: list[Generator]
) -> Tensor:
    """Textbook HMC, one chain after the other: starts (k, p) -> draws (k, draws, p)."""
    chains = []
    for params, generator in zip(starts, generators, strict=True):
        kept = []
        for _ in range(draws):
            noise = torch.randn(params.shape, generator=generator, device=params.device)
            momentum = config.momentum_scale * noise.to(params.dtype)
            inverse_mass, step = 1.0 / config.momentum_scale**2, config.step_size
            with torch.no_grad():
                energy = 0.5 * inverse_mass * momentum.square().sum() - density(params)
            proposal = params
            for _ in range(config.leapfrog_steps):
                momentum = momentum + 0.5 * step * gradient_of(density, proposal)
                proposal = proposal + step * inverse_mass * momentum
                momentum = momentum + 0.5 * step * gradient_of(density, proposal)
            with torch.no_grad():
                end_energy = 0.5 * inverse_mass * momentum.square().sum() - density(proposal)
            if float(torch.rand((), generator=generator, device=params.device)) < float((energy - end_energy).exp()):
                params = proposal
            kept.append(params)
        chains.append(torch.stack(kept))
    return torch.stack(chains)
