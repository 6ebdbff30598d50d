"""The latent energy-based model with a symbol-vector coupling: p(y, z, x) = p_alpha(y, z) p_beta(x | z).

Pooladzandi et al. (2022), Section 2.1 and Appendix B: p_alpha(y, z) = exp(F_alpha(z)[y]) N(z; 0, I) / Z(alpha), p_beta(x | z) =
N(g_beta(z), sigma^2 I), and an encoder q_phi(z | x). One function F classifies, shapes the prior and says how sure it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpc.ebm.networks import EnergyMLP, build_encoder, build_generator
from bpc.errors import ConfigError
from bpc.samplers.langevin import LangevinConfig, langevin
from bpc.seeding import SharedGenerator, make_generator
from bpc.vae.layers import glorot_

__all__ = ["EBMConfig", "ElboTerms", "LatentEBM", "PriorDensity", "entropy", "sample_prior"]


@dataclass(frozen=True, kw_only=True)
class EBMConfig:
    """Sizes of the networks; the paper states the kinds of layers and not these numbers. Defaults are those for SVHN.

    Attributes:
        latent: d, units of z.
        hidden: of the energy's layers.
        width: of encoder and generator, see `bpc.ebm.networks`.
        sigma: standard deviation of a pixel given z, pixels in [0, 1].
    """

    latent: int = 100
    hidden: int = 200
    width: int = 2
    sigma: float = 0.15

    def __post_init__(self) -> None:
        if min(self.latent, self.hidden, self.width) < 1 or self.sigma <= 0:
            raise ConfigError(f"A latent EBM needs sizes of at least 1 and a positive sigma; got {self}.")


class ElboTerms(NamedTuple):
    """Of each image, (b,) nats; the bound is their combination up to log Z(alpha): reconstruction - kl + tilt."""

    reconstruction: Tensor  # log p(x | z), without the Gaussian's constant
    kl: Tensor  # KL(q(z | x) || N(0, I)), closed form
    tilt: Tensor  # f(z) = log sum_y exp F(z)[y]


class LatentEBM(nn.Module):
    """Energy, encoder and generator.

    Args:
        config: sizes.
        image_shape: (c, h, w); pixels in [0, 1].
        num_classes: y.
        seed: of the initial weights.
    """

    def __init__(self, config: EBMConfig, image_shape: tuple[int, int, int], num_classes: int, seed: int) -> None:
        super().__init__()
        self.config, self.image_shape, self.num_classes = config, image_shape, num_classes
        self.energy = EnergyMLP(config.latent, config.hidden, num_classes)
        self.encoder = build_encoder(image_shape, config.latent, config.width)
        self.generator = build_generator(image_shape, config.latent, config.width)
        glorot_(self, make_generator("cpu", seed, "ebm", "init"))

    def draw(self, mean: Tensor, log_var: Tensor, rng: torch.Generator) -> Tensor:
        """Z ~ N(mean, diag exp log_var), reparameterised, (b, d)."""
        return mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=rng, device=mean.device)

    def tilt(self, z: Tensor) -> Tensor:
        """f_alpha(z) = log sum_y exp(F_alpha(z)[y]) (Eq. 8), minus the free energy: (..., d) -> (...)."""
        return self.energy(z).logsumexp(-1)

    def elbo_terms(self, x: Tensor, rng: torch.Generator) -> tuple[ElboTerms, Tensor]:
        """The bound's terms of images (b, c, h, w) in [0, 1] (Eq. 9, 11), and the draw z (b, d) they were taken at."""
        mean, log_var = self.encoder(x)
        z = self.draw(mean, log_var, rng)
        squared = (x - self.generator(z)).square().flatten(1).sum(1)
        kl = 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var).sum(1)
        return ElboTerms(-0.5 * squared / self.config.sigma**2, kl, self.tilt(z)), z

    def logits(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """F at one draw of q(z | x), (b, y): what supervised learning descends on (Algorithm 1, step 6)."""
        mean, log_var = self.encoder(x)
        found: Tensor = self.energy(self.draw(mean, log_var, rng))
        return found

    @torch.no_grad()
    def log_probs(self, x: Tensor, rng: torch.Generator, draws: int = 8) -> Tensor:
        """Log p(y | x) = log of the mean over `draws` of q(z | x) of softmax F(z) (Eq. 12), (b, y)."""
        mean, log_var = self.encoder(x)
        noise = torch.randn(draws, *mean.shape, generator=rng, device=mean.device)
        each = self.energy(mean + (0.5 * log_var).exp() * noise).log_softmax(-1)
        return each.logsumexp(0) - torch.tensor(float(draws)).log().item()

    def log_prior(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Log p_alpha(z), or log p_alpha(y, z) of given labels (k,), up to log Z and the Gaussian's constant: (k, d) -> (k,)."""
        energies = self.energy(z)
        chosen = energies.logsumexp(1) if labels is None else energies.gather(1, labels.unsqueeze(1)).squeeze(1)
        return chosen - 0.5 * z.square().sum(1)


class PriorDensity:
    """log p_alpha(z), or log p_alpha(y, z) of given labels, as samplers want it: value and gradient of every chain at once.

    The gradient is the chain rule through three layers, written out: short chains of small batches spend their time in
    autograd's bookkeeping otherwise (2 to 3 times as long).
    """

    def __init__(self, model: LatentEBM, labels: Tensor | None = None) -> None:
        self.model, self.labels = model, labels
        self.weights = [p.detach() for p in model.energy.parameters()]

    def __call__(self, params: Tensor) -> Tensor:
        """(k, d) -> (k,), differentiable."""
        return self.model.log_prior(params, self.labels)

    @torch.no_grad()
    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(k, d) -> (k,) and (k, d)."""
        w1, b1, w2, b2, w3, b3 = self.weights
        h1 = torch.addmm(b1, z, w1.T)
        h2 = torch.addmm(b2, F.silu(h1), w2.T)
        energies = torch.addmm(b3, F.silu(h2), w3.T)
        if self.labels is None:
            value, back = energies.logsumexp(1), energies.softmax(1)
        else:
            value = energies.gather(1, self.labels.unsqueeze(1)).squeeze(1)
            back = F.one_hot(self.labels, energies.shape[1]).to(energies.dtype)
        back = torch.ops.aten.silu_backward(back @ w3, h2)
        back = torch.ops.aten.silu_backward(back @ w2, h1)
        return value - 0.5 * z.square().sum(1), back @ w1 - z


def sample_prior(
    model: LatentEBM,
    start: Tensor,
    rng: torch.Generator,
    *,
    steps: int,
    step_size: float,
    labels: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Short-run Langevin from `start` (k, d): z' = z + s grad log p + sqrt(2 s T) eps (Eq. 2 and Appendix D), detached.

    Args:
        model: its prior is the target, of all classes together, or of each chain's own where `labels` (k,) are given.
        start: a state per chain.
        rng: on the device of `start`; the chains share its stream.
        steps: T_LD.
        step_size: s.
        labels: (k,) int64.
        temperature: T; below 1 samples keep to the modes, whose entropy is low.
    """
    config = LangevinConfig(step_size=(2.0 * step_size) ** 0.5, temperature=temperature, steps=steps)
    kernel = langevin(PriorDensity(model, labels), config)
    shared = SharedGenerator(rng, len(start))
    state, _ = kernel.step(kernel.init(start, shared), shared)
    return state.params


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy (nats) of softmax over the last axis (Eq. 4): (..., y) -> (...); exact down to 1e-12 and below.

    With the largest probability p, the textbook sum loses 1 - p to rounding at about 1e-7, and the paper's threshold is 1e-6.
    """
    log_p = logits.double().log_softmax(-1)
    top = log_p.argmax(-1, keepdim=True)
    rest = log_p.exp().scatter(-1, top, 0.0)
    missing = rest.sum(-1)
    # - p log p of the largest, p = 1 - missing
    largest = -(1.0 - missing) * torch.log1p(-missing.clamp(max=1.0 - 1e-12))
    return largest - torch.xlogy(rest, rest).sum(-1)
