"""Studies where the truth is known: posteriors, divergences and their lowest possible values in closed form or by cubature."""

from evaluation.studies.gaussian import GaussianStudy, run_gaussian_study
from evaluation.studies.linear import LinearStudy, run_linear_study
from evaluation.studies.logistic import LogisticStudy, run_logistic_study

__all__ = [
    "GaussianStudy",
    "LinearStudy",
    "LogisticStudy",
    "run_gaussian_study",
    "run_linear_study",
    "run_logistic_study",
]
