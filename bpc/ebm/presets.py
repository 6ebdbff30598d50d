"""Settings of the few-label experiments by name: the paper's, and ours for small images."""

from __future__ import annotations

from typing import Any

__all__ = ["SSL_PRESETS"]

# What a preset says where a flag does not, and where it differs from the own defaults of `EBMConfig`, `LearnConfig` and
# `SyntheticConfig`, which are for SVHN at full size. The paper's step sizes, latent size, sigma and Langevin step are not
# printed: they are ours, as is everything of mnist and digits, which were chosen on held-out training images.
SSL_PRESETS: dict[str, dict[str, Any]] = {
    "pooladzandi2022": {"labelled": 1000},
    "mnist": {
        "labelled": 100, "iterations": 3_000, "augment_at": 1_500, "reselect_every": 500, "threshold": 1e-4,
        "latent": 32, "width": 1, "sigma": 0.3, "lr_elbo": 1e-3, "lr_supervised": 1e-3, "lr_energy": 3e-4,
    },
    "digits": {
        "labelled": 50, "iterations": 1_000, "augment_at": 500, "reselect_every": 100, "threshold": 1e-3,
        "latent": 16, "width": 1, "sigma": 0.2, "lr_elbo": 1e-3, "lr_supervised": 1e-3, "lr_energy": 3e-4,
    },
}  # fmt: skip
