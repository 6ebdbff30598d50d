"""Did the chains of one posterior mix? R-hat, ESS and E-BFMI through ArviZ.

Glossary: c chains of s draws each, after warm-up and thinning; t tracked test images. A network has many weights for one
function (its units can be exchanged), so R-hat of its weights says little. It is reported, and so is R-hat of the log density;
what is judged are the predictions, which are what is asked of a posterior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bpc.errors import ConfigError
from evaluation.inference_data import (
    as_array,
    import_arviz,
    load_inference_data,
    save_inference_data,
    to_inference_data,
)

if TYPE_CHECKING:
    import arviz as az

__all__ = [
    "EBFMI_MIN",
    "ESS_MIN",
    "JUDGED",
    "RHAT_MAX",
    "Diagnostics",
    "diagnose",
    "halves_apart",
    "load_inference_data",
    "nested_rhat",
    "only_diverged",
    "save_inference_data",
    "to_inference_data",
]

RHAT_MAX = 1.05  # of predictions: Vehtari et al. (2021) ask 1.01 of every scalar that is reported
ESS_MIN = 400  # of predictions, all chains together (Vehtari et al. 2021)
EBFMI_MIN = 0.3  # Betancourt (2016)
# rows that say why a posterior has not mixed
JUDGED = ("mixed", "divergences", "rhat_predictions", "ess_bulk_predictions", "ebfmi")
PREDICTION_TAIL = 0.05  # the fraction of tracked predictions that may be worse than what is reported
MIN_DRAWS = (
    4  # of a chain, which is cut into halves; twice as many of a lone one: fewer give no variance within the parts
)

Array = NDArray[np.float64]


class Diagnostics(NamedTuple):
    """How the chains of one posterior moved. nan where a quantity was not recorded or is not defined.

    `mixed` is true when all of these hold, for whatever was recorded: every value is finite; no chain stood still;
    `rhat_predictions` is at most 1.05 and `ess_bulk_predictions` at least 400; no transition diverged; `ebfmi` is at least 0.3
    (Betancourt, 2016). It says that nothing speaks against the chains, not that they found every mode.

    Attributes:
        chains, draws: c and s.
        rhat_weights: rank-normalised split R-hat of each tracked weight, 95 % quantile over them; not judged.
        rhat_log_density: of the log density; not judged.
        rhat_predictions: of each tracked prediction, 95 % quantile over them.
        rhat_predictions_median, rhat_predictions_worst: the median and the largest.
        nested_rhat_predictions: `nested_rhat` of each tracked prediction, 95 % quantile over them, where chains start in groups
            (the attribute `superchain` of the data); not judged.
        ess_bulk_log_density, ess_tail_log_density: draws; not judged.
        ess_bulk_predictions: draws, all chains together; 95 % of the tracked predictions have more.
        ess_bulk_predictions_median, ess_bulk_predictions_worst: the median and the smallest.
        ess_tail_predictions, ess_tail_predictions_median, ess_tail_predictions_worst: likewise, of the 5 % and 95 % quantiles'
            effective sizes the smaller.
        ebfmi: the smallest over chains of mean (E_i - E_{i-1})^2 / var E.
        divergences: how many transitions diverged.
        acceptance: mean probability of acceptance, fraction.
        constant_predictions: tracked predictions that have the same value in all draws of all chains (0 or 1 to rounding);
            they are left out of R-hat and ESS.
        mixed: see above.
        reasons: what speaks against it, in words; "one chain" is named but does not decide.
    """

    chains: int
    draws: int
    rhat_weights: float
    rhat_log_density: float
    rhat_predictions_median: float
    rhat_predictions: float
    rhat_predictions_worst: float
    nested_rhat_predictions: float
    ess_bulk_log_density: float
    ess_tail_log_density: float
    ess_bulk_predictions_median: float
    ess_bulk_predictions: float
    ess_bulk_predictions_worst: float
    ess_tail_predictions_median: float
    ess_tail_predictions: float
    ess_tail_predictions_worst: float
    ebfmi: float
    divergences: int
    acceptance: float
    constant_predictions: int
    mixed: bool
    reasons: list[str]


def diagnose(data: az.InferenceData) -> Diagnostics:
    """Judge the chains of `to_inference_data`.

    A lone chain's halves stand for chains, so its R-hat compares quarters of it. A chain whose log density never changes
    stood still, and is reported as such whatever R-hat says; predictions that never change while others do count fully.
    """
    posterior: Any = data["posterior"]
    stats: Any = data["sample_stats"] if "sample_stats" in data.groups() else {}
    density, tracked = as_array(posterior["log_density"].values), as_array(posterior["prediction"].values)
    c, s = density.shape
    reasons = (
        ["one chain: R-hat compares parts of it, which cannot show what other starts would find"] if c == 1 else []
    )
    faults: list[str] = []

    def fault(chains: NDArray[np.bool_], what: str) -> None:
        if chains.any():
            names = ", ".join(str(i + 1) for i in np.flatnonzero(chains))
            faults.append(f"{'chain' if chains.sum() == 1 else 'chains'} {names}: {what}")

    fault(~np.isfinite(density).all(1), "the log density is not finite")
    fault(~np.isfinite(tracked).all((1, 2)), "predictions are not finite")
    with np.errstate(invalid="ignore"):  # inf - inf
        fault(np.ptp(density, axis=1) == 0, "stood still")
    least = MIN_DRAWS if c > 1 else 2 * MIN_DRAWS
    if s < least:
        faults.append(f"{s} draws per chain; R-hat and ESS need {least} or more")

    per_image = np.moveaxis(tracked, 2, 0).reshape(tracked.shape[2], -1)
    constant = (per_image == per_image[:, :1]).all(1)  # nan is not equal to itself
    varying = tracked[..., ~constant]
    if constant.all():
        faults.append("every tracked prediction has one value in all draws")

    measures = _measures()
    rhat, bulk, tail = (measure(density[..., None])[0] for measure in measures)
    rhats, bulks, tails = (measure(varying) for measure in measures)
    rhat_images, bulk_images = _quantile(rhats, 1 - PREDICTION_TAIL), _quantile(bulks, PREDICTION_TAIL)
    group = int(posterior.attrs.get("superchain", data.attrs.get("superchain", 1)))
    nested = nested_rhat(varying, group) if group > 1 else np.empty(0)
    rhat_weights = math.nan
    if "weight" in posterior:
        weights = as_array(posterior["weight"].values)
        rhat_weights = _quantile(measures[0](weights), 1 - PREDICTION_TAIL)

    # where one is nan, a fault already says why
    if rhat_images > RHAT_MAX:
        faults.append(f"R-hat of the predictions (95 % quantile) is {rhat_images:.3f}, above {RHAT_MAX}")
    if bulk_images < ESS_MIN:
        faults.append(f"bulk ESS of the predictions (95 % have more) is {bulk_images:.0f}, below {ESS_MIN}")

    divergences = int(stats["diverging"].values.sum()) if "diverging" in stats else 0
    if divergences:
        faults.append(f"{divergences} divergent transition{'s' if divergences > 1 else ''}")
    ebfmi = math.nan
    if "energy" in stats:
        energy = as_array(stats["energy"].values)
        fault(~np.isfinite(energy).all(1), "the energy is not finite")
        with np.errstate(invalid="ignore", divide="ignore"):
            ebfmi = float(np.min(import_arviz().bfmi(energy))) if s > 1 else math.nan
        if not ebfmi >= EBFMI_MIN:
            faults.append(f"E-BFMI is {ebfmi:.2f}, not at least {EBFMI_MIN}")
    acceptance = float(stats["acceptance_rate"].values.mean()) if "acceptance_rate" in stats else math.nan
    decided = [rhat_images, bulk_images]
    return Diagnostics(
        chains=c,
        draws=s,
        rhat_weights=rhat_weights,
        rhat_log_density=float(rhat),
        rhat_predictions_median=_quantile(rhats, 0.5),
        rhat_predictions=rhat_images,
        rhat_predictions_worst=_quantile(rhats, 1.0),
        nested_rhat_predictions=_quantile(nested, 1 - PREDICTION_TAIL),
        ess_bulk_log_density=float(bulk),
        ess_tail_log_density=float(tail),
        ess_bulk_predictions_median=_quantile(bulks, 0.5),
        ess_bulk_predictions=bulk_images,
        ess_bulk_predictions_worst=_quantile(bulks, 0.0),
        ess_tail_predictions_median=_quantile(tails, 0.5),
        ess_tail_predictions=_quantile(tails, PREDICTION_TAIL),
        ess_tail_predictions_worst=_quantile(tails, 0.0),
        ebfmi=ebfmi,
        divergences=divergences,
        acceptance=acceptance,
        constant_predictions=int(constant.sum()),
        mixed=not faults and bool(np.isfinite(decided).all()),
        reasons=reasons + faults,
    )


def only_diverged(rows: Mapping[str, float]) -> bool:
    """Whether a posterior has the row `mixed` at 0 for divergent transitions alone.

    Under fixed-length HMC such a proposal is rejected, as one whose energy error is 10 nats is: it costs a draw, and biases
    nothing as long as the chain leaves where it was made, which R-hat, ESS and E-BFMI judge. Tables give it a mark of its own.

    Args:
        rows: metrics of one posterior, by name.
    """
    return (
        rows.get("mixed", math.nan) == 0.0
        and rows.get("divergences", 0.0) > 0
        and rows.get("rhat_predictions", math.nan) <= RHAT_MAX
        and rows.get("ess_bulk_predictions", math.nan) >= ESS_MIN
        and not rows.get("ebfmi", 1.0) < EBFMI_MIN
    )


def nested_rhat(values: Array, superchain: int) -> Array:
    """Have chains forgotten where they started, however short they are? Nested R-hat (Margossian et al. 2024).

    Classical R-hat of short chains is above 1 because the mean of each is noisy. Here chains start in groups, superchains, each
    from a place of its own; the mean of m of them is less noisy, and only what their common start leaves in it sets
    superchains apart. With B the variance of their means, and W the mean over superchains of the variance of chains' means
    plus the mean variance within a chain, it is sqrt(1 + B / W). Of chains that have forgotten, B / W is about 1 / (m e), with e
    effective draws a chain: 1.002 for m = 4 and e = 60.

    The definition takes chains of one superchain to start from one point. Grouping chains with starts of their own hides what it
    looks for: chains that never move would have sqrt(1 + 1 / m), and not infinity.

    Args:
        values: (c, s, t), the chains of a superchain side by side; short ones too, s = 1 among them.
        superchain: m, which divides c into two superchains or more.

    Returns:
        (t,); nan where a value is not finite or nothing varies, or where m is 1 and s is 1.
    """
    c, s, t = values.shape
    if superchain < 1 or c % superchain or c < 2 * superchain:
        raise ConfigError(
            f"{c} chains are not two superchains of {superchain} or more; give a number that divides them."
        )
    grouped = values.reshape(c // superchain, superchain, s, t)
    of_chains = grouped.mean(2)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = of_chains.mean(1).var(0, ddof=1)
        within = grouped.var(2, ddof=1).mean((0, 1)) if s > 1 else np.zeros(t)
        among = of_chains.var(1, ddof=1).mean(0) if superchain > 1 else np.zeros(t)
        return np.asarray(np.sqrt(1.0 + between / (among + within)))


def halves_apart(halves: Tensor) -> tuple[float, float]:
    """Total variation between the predictives of two halves of the chains, and what it would be by Monte Carlo error alone.

    The second is the distance between the first and the second half of the draws of all chains. Both compare two means of c s / 2
    draws: where chains have mixed, their expectations are the same (for an even number of chains, much longer than their
    autocorrelation time). Where each chain stays in a place of its own, the first is larger.

    Args:
        halves: (c, 2, t, y), each chain's mean predictive of t images in the first and in the second half of its draws.

    Returns:
        Means over images, fractions; the first is nan for a lone chain.
    """

    def apart(p: Tensor, q: Tensor) -> float:
        return float(0.5 * (p - q).abs().sum(-1).mean())

    by_chain, by_time = halves.double().mean(1), halves.double().mean(0)
    middle = len(by_chain) // 2
    chains = apart(by_chain[:middle].mean(0), by_chain[middle:].mean(0)) if middle else math.nan
    return chains, apart(by_time[0], by_time[1])


def _measures() -> list[Callable[[Array], Array]]:
    """R-hat, bulk and tail ESS: (c, s, t) to (t,); nan where a value is not finite or the draws are too few."""
    az = import_arviz()

    def each(measure: Callable[[Array], float]) -> Callable[[Array], Array]:
        def apply(values: Array) -> Array:
            result = np.full(values.shape[2], np.nan)
            for i in range(values.shape[2]):
                one = values[..., i]
                # not handed on: ArviZ prints a warning for each of them
                if np.isfinite(one).all() and one.shape[1] >= (MIN_DRAWS if len(one) > 1 else 2 * MIN_DRAWS):
                    with np.errstate(invalid="ignore", divide="ignore"):  # no variance within chains: R-hat is infinite
                        result[i] = measure(one)
            return result

        return apply

    def halves(values: Array) -> Array:
        half = values.shape[1] // 2
        return np.concatenate([values[:, :half], values[:, -half:]]) if len(values) == 1 else values

    return [
        each(lambda values: az.rhat(halves(values))),
        each(lambda values: az.ess(values, method="bulk")),
        each(lambda values: az.ess(values, method="tail")),
    ]


def _quantile(values: Array, q: float) -> float:
    """A quantile that is one of the values, the worse neighbour; nan where any value is, or there is none."""
    if not len(values) or np.isnan(values).any():
        return math.nan
    return float(np.quantile(values, q, method="higher" if q > 0.5 else "lower"))  # infinite values do not interpolate
