"""The figure of an evaluation: quality over verdicts asked per query.

Drawn with matplotlib, which is optional and imported only here.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from matir_cli.atomic_write import atomic_write
from matir_cli.evaluation.reporting.comparison import IMAGE_LEVEL, Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEM = "verdicts"
"""File name of the figure without its suffix."""

COLOURS = ("#666666", "#0072b2", "#d55e00", "#009e73")
"""Colours of the methods in their order, which colour-blind people can tell apart; Okabe and Ito, 2008."""

WIDTH, HEIGHT = 6.4, 4.0
"""Size in inches."""

DPI = 150


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def write_figure(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """Write the figure as SVG and PNG, replacing earlier ones; the same figures give the same SVG.

    Returns:
        The files; none if nothing was judged.

    Raises:
        OutputError: a file cannot be written.
        ImportError: matplotlib is not installed; see `can_draw`.
    """
    if not comparison.curve:
        return ()
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": STEM, "svg.fonttype": "none"}):
        figure = draw_figure(comparison)
        paths = []
        for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            path = folder / f"{STEM}.{suffix}"
            with atomic_write(path, force=True) as temporary:
                figure.savefig(temporary, format=suffix, dpi=DPI, metadata=metadata)
            paths.append(path)
    return tuple(paths)


def draw_figure(comparison: Comparison) -> Figure:
    """Draw mAP@50, per cent, over the mean number of verdicts per query: one line per method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    for method, colour in zip(comparison.methods, COLOURS, strict=False):
        points = [point.row for point in comparison.curve if point.row.method == method.name]
        x = [row.verdicts_per_query or 0.0 for row in points]
        y = [100 * row.summary.mean_by_relevant for row in points if row.summary is not None]
        marker, size = ("o", 4) if len(points) > 1 else ("*", 12)
        axes.plot(x, y, marker=marker, markersize=size, color=colour, label=method.name)
    axes.set_xlabel("verdicts asked per query")
    axes.set_ylabel(f"{IMAGE_LEVEL}, per cent")
    axes.grid(visible=True, linewidth=0.4, color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return figure
