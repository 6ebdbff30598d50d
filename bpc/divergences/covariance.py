r"""The reverse-KL covariance estimator: the one piece of mathematics behind every pseudocoreset of this project.

For samples theta_s of the coreset posterior pi_u (Manousakas et al. 2020, Prop. 1; Eq. 4 of Kim et al. 2022),

    grad_{u_m} KL[pi_u || pi_x] = -w_m Cov_s[ grad_u f(u_m, theta_s), c_s ],
    d KL / d w_m                = -Cov_s[ f(u_m, theta_s), c_s ],
    c_s = N/B sum_b f(x_b, theta_s) - sum_j w_j f(u_j, theta_s),

with f the log-likelihood of one point. Because the covariance needs only one factor centred *over the samples*, both are the
gradient of one scalar, -1/S sum_s sg(c_s - mean c) sum_m w_m f(u_m, theta_s), and no per-sample score is ever stored.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["covariance_surrogate", "posterior_residual"]


def posterior_residual(log_lik_real: Tensor, log_lik_core: Tensor, weights: Tensor, real_scale: float) -> Tensor:
    """c_s, the gap between the log-likelihoods of full data and coreset, centred over the samples.

    Args:
        log_lik_real: (s, b) nats, not centred.
        log_lik_core: (s, m) nats, not centred.
        weights: (m,) of the coreset.
        real_scale: N / B, what one real point of the batch counts for.

    Returns:
        (s,) nats, mean zero, detached.
    """
    gap = real_scale * log_lik_real.detach().sum(1) - log_lik_core.detach() @ weights.detach()
    return gap - gap.mean()


def covariance_surrogate(residual: Tensor, log_lik_core: Tensor, weights: Tensor, num_samples: int) -> Tensor:
    """The scalar whose gradient with respect to points and weights is the estimate above; its value means nothing.

    Args:
        residual: (s,) from `posterior_residual`, possibly a chunk of the samples.
        log_lik_core: (s, m) nats, with a graph to the points.
        weights: (m,).
        num_samples: S, over all chunks, so that chunks add up.
    """
    return -(residual.detach() @ (log_lik_core @ weights)) / num_samples
