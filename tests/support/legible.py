"""What makes a figure hard to read, found from the figure itself: overlaps, cut words, letters that are too small."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SMALLEST = 7.0  # points
SLACK = 1.0  # pixels of a screen


def faults(figure: Figure) -> list[str]:
    """One line for each fault; none for a figure that can be read."""
    figure.canvas.draw()
    found = []
    for axes in figure.axes:
        found += _crowded_ticks(axes)
        legend = axes.get_legend()
        if legend is not None and _covers_data(legend.get_window_extent(), axes):
            found.append(f"the legend inside {_name(axes)} covers data")
    for legend in _outer_legends(figure):
        box = _shrunk(legend.get_window_extent())
        found += [
            f"a legend lies on {_name(axes)}"
            for axes in figure.axes
            if (tight := axes.get_tightbbox()) is not None and box.overlaps(tight)
        ]
    found += [
        f"{text.get_text()!r} has {text.get_fontsize()} points"
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_visible() and text.get_text() and text.get_fontsize() < SMALLEST
    ]
    tight = figure.get_tightbbox()  # inches
    width, height = figure.get_size_inches()
    if tight.x0 < -0.02 or tight.y0 < -0.02 or tight.x1 > width + 0.02 or tight.y1 > height + 0.02:
        found.append(f"something is cut off: {tight} in {width} x {height} inches")
    return found


def _outer_legends(figure: Figure) -> list:
    """Legends of the figure and of the figures in it."""
    inner = [legend for part in figure.subfigs for legend in _outer_legends(part)]
    return [*figure.legends, *inner]


def _covers_data(box: Bbox, axes: Axes) -> bool:
    """Whether a line, a bar or a step of `axes` runs through `box`."""
    lines = [np.asarray(line.get_xydata(), dtype=float) for line in axes.lines]
    shapes = [patch.get_path().vertices for patch in axes.patches]
    for points, transform in [
        *zip(lines, (line.get_transform() for line in axes.lines), strict=True),
        *zip(shapes, (patch.get_transform() for patch in axes.patches), strict=True),
    ]:
        points = transform.transform(points)
        for (x0, y0), (x1, y1) in pairwise(points):
            steps = np.linspace(0, 1, 50)
            inside = box.contains
            if any(inside(x0 + t * (x1 - x0), y0 + t * (y1 - y0)) for t in steps):
                return True
    return False


def _crowded_ticks(axes: Axes) -> list[str]:
    """Neighbouring tick labels that touch; turned ones are left out, whose boxes say nothing."""
    found = []
    for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
        low, high = sorted(axis.get_view_interval())
        labels = [
            tick.label1
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
            if low <= tick.get_loc() <= high and tick.label1.get_visible() and tick.label1.get_text()
        ]
        upright = [label for label in labels if label.get_rotation() % 90 == 0]
        boxes = sorted((label.get_window_extent() for label in upright), key=lambda box: (box.x0, box.y0))
        if any(_shrunk(a).overlaps(_shrunk(b)) for a, b in pairwise(boxes)):
            found.append(f"tick labels of {_name(axes)} touch: {[label.get_text() for label in upright]}")
    return found


def _shrunk(box: Bbox) -> Bbox:
    return Bbox.from_extents(box.x0 + SLACK, box.y0 + SLACK, box.x1 - SLACK, box.y1 - SLACK)


def _name(axes: Axes) -> str:
    return f"the panel {axes.get_title() or axes.get_ylabel() or axes.get_xlabel()!r}"
