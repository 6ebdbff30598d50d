"""Figures as PNG and PDF files, each on its own canvas: matplotlib's global state is as it was."""

from evaluation.plots.calibration import plot_reliability
from evaluation.plots.comparison import plot_comparison
from evaluation.plots.images import (
    fourier_log_amplitude,
    plot_coreset_grid,
    plot_coresets_side_by_side,
    plot_fourier_diagonal,
)
from evaluation.plots.page import plot_page
from evaluation.plots.radar import plot_radar
from evaluation.plots.training import plot_distill_curve, plot_learning_curves

__all__ = [
    "fourier_log_amplitude",
    "plot_comparison",
    "plot_coreset_grid",
    "plot_coresets_side_by_side",
    "plot_distill_curve",
    "plot_fourier_diagonal",
    "plot_learning_curves",
    "plot_page",
    "plot_radar",
    "plot_reliability",
]
