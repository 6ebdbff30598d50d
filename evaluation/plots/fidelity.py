"""How near each method's predictive is to the reference's, with the ceiling that two reference runs reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from evaluation.fidelity import Fidelity
from evaluation.plots.base import GREY, SMALL, style_of

__all__ = ["draw_fidelity"]

_LABELS = {
    "agreement": "agreement (fraction) →",
    "tv": "← total variation (fraction)",
    "sym_kl": "← symmetric KL (nats)",
    "entropy_gap": "entropy gap (nats), best at 0",
}


def draw_fidelity(all_axes: Sequence[Axes], measures: Mapping[str, Fidelity], ceiling: Fidelity | None) -> None:
    """A bar for each method and measure: mean over chains or seeds, each of them as a dot.

    Args:
        all_axes: four panels, two in a row, that share their methods.
        measures: label to `evaluation.fidelity.Fidelity`, fields () or (k,).
        ceiling: the same for two independent runs of the reference, drawn as a line: nothing can be told to be nearer.
    """
    labels = list(measures)
    for place, (axes, field) in enumerate(zip(all_axes, Fidelity._fields, strict=True)):
        for row, label in enumerate(labels):
            color = style_of(label, labels).color
            values = _values(getattr(measures[label], field))
            if not len(values):
                axes.text(
                    0.02, row, "not finite", transform=axes.get_yaxis_transform(), fontsize=SMALL - 1, va="center"
                )
                continue
            axes.barh(row, values.mean(), height=0.62, color=color, alpha=0.75)
            if len(values) > 1:
                spread = np.linspace(-0.15, 0.15, len(values))
                axes.plot(values, row + spread, ".", color="black", markersize=3, alpha=0.6)
        best = _values(getattr(ceiling, field)) if ceiling is not None else np.array([])
        if len(best):
            axes.axvline(best.mean(), color="black", linewidth=1.2, linestyle="--", label="two reference runs")
        if field == "entropy_gap":
            axes.axvline(0, color=GREY, linewidth=0.8)
        else:
            axes.set_xlim(left=0)
        axes.set_xlabel(_LABELS[field], fontsize=SMALL)
        axes.set_yticks(range(len(labels)), [style_of(label, labels).name for label in labels], fontsize=SMALL)
        axes.tick_params(labelleft=place % 2 == 0)
        axes.set_ylim(len(labels) - 0.5, -0.5)  # the first method on top
    if all_axes[1].get_legend_handles_labels()[0]:
        all_axes[1].legend(fontsize=SMALL - 1, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)


def _values(measure: Tensor) -> np.ndarray:
    """The finite ones, flat."""
    values = measure.detach().flatten().cpu().numpy()
    return values[np.isfinite(values)]
