"""What pseudocoreset posteriors look like when the sampler is right: a study from coresets to tables and figures."""

from evaluation.posteriors.page import tabulate_posteriors

__all__ = ["tabulate_posteriors"]
