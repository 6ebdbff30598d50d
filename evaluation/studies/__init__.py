"""Studies where the truth is known: posteriors, divergences and their lowest possible values in closed form or by cubature."""

from collections.abc import Callable
from typing import NamedTuple

from evaluation.studies.gaussian import GaussianStudy, run_gaussian_study
from evaluation.studies.linear import LinearStudy, run_linear_study
from evaluation.studies.logistic import LogisticStudy, run_logistic_study
from evaluation.studies.tables import StudyResult

__all__ = [
    "STUDIES",
    "GaussianStudy",
    "LinearStudy",
    "LogisticStudy",
    "Study",
    "StudyResult",
    "run_gaussian_study",
    "run_linear_study",
    "run_logistic_study",
]


class Study(NamedTuple):
    """A study by name."""

    what: str
    run: Callable[..., StudyResult]


STUDIES = {
    "gaussian": Study("Gaussian data, three divergences in closed form", run_gaussian_study),
    "linear": Study("Bayesian linear regression, KL in closed form", run_linear_study),
    "logistic": Study("Bayesian logistic regression, KL by cubature", run_logistic_study),
}
