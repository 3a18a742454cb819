"""The losses and validation scores of every training and fit, over its steps."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from headsr.files import whole
from headsr.history import read_history

NOTICE = "Research use only, not for clinical use"
_COLUMNS = 3
_LEFT_OUT = ("seconds", "learning_rate", "share_")  # names that begin so: neither losses nor scores


def series_of(path: str | os.PathLike[str]) -> dict[str, list[tuple[int, float]]]:
    """The (step, value) pairs of every name in a history, in the file's order. UnreadableError as ``read_history``."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in read_history(path):
        for name, value in line.items():
            if name != "step" and not isinstance(value, str):
                series.setdefault(name, []).append((line["step"], float(value)))
    return series


def draw_curves(histories: Mapping[str, str | os.PathLike[str]], output: str | os.PathLike[str]) -> None:
    """Draw one panel per training, and one per method and degradation for the fits, as a PNG.

    ``histories`` maps what was trained to its JSON lines: a model's name, or ``method degradation dataset/scan_suffix``
    for a fit; the fits of one method and degradation share a panel. Losses on the left axis (logarithmic), PSNR in dB
    on the right one.
    """
    panels = _panels(histories)
    rows = math.ceil(max(1, len(panels)) / _COLUMNS)
    width, height = 4.2 * _COLUMNS, 3.0 * rows + 0.3
    figure = Figure(figsize=(width, height), dpi=80)
    # Places in inches, since automatic layout is the slowest part of such a picture.
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 0.6 / width, bottom=0.9 / height, top=1 - 0.35 / height, wspace=0.42, hspace=0.5
    )
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, paths) in zip(grid.flat, panels.items(), strict=False):
        _draw_panel(axes, title, [series_of(path) for path in paths])
    figure.text(0.5, 0.1 / height, NOTICE, fontsize=8, ha="center")
    with whole(output) as partial:
        canvas.print_png(partial, metadata={"Software": None})


def _panels(histories: Mapping[str, str | os.PathLike[str]]) -> dict[str, list[str | os.PathLike[str]]]:
    panels: dict[str, list[str | os.PathLike[str]]] = {}
    for name, path in histories.items():
        panels.setdefault(" ".join(name.split()[:2]), []).append(path)
    return panels


def _draw_panel(axes: Axes, title: str, histories: Sequence[Mapping[str, list[tuple[int, float]]]]) -> None:
    names = sorted({name for history in histories for name in history if not name.startswith(_LEFT_OUT)})
    decibels = [name for name in names if "psnr" in name]
    right = axes.twinx() if decibels else axes
    for number, name in enumerate(names):
        side = right if name in decibels else axes
        for first, history in enumerate(histories):
            points = sorted(history.get(name, []))
            style = {"linestyle": "--" if name in decibels else "-", "marker": "." if len(points) < 12 else ""}
            label = name if first == 0 else None
            side.plot(
                *zip(*points, strict=True), color=f"C{number}", linewidth=1, label=label, **style
            ) if points else None
    _label(axes, right, title, len(histories), logarithmic=len(decibels) < len(names))


def _label(axes: Axes, right: Axes, title: str, count: int, *, logarithmic: bool) -> None:
    axes.set_title(title + (f" ({count} fits)" if count > 1 else ""), fontsize=9)
    axes.tick_params(labelsize=7)
    if logarithmic and all((line.get_ydata() > 0).all() for line in axes.get_lines()):
        axes.set_yscale("log")
    handles = axes.get_lines()
    if right is not axes:
        right.tick_params(labelsize=7)
        right.set_ylabel("dB", fontsize=7)
        handles = [*handles, *right.get_lines()]
    shown = [line for line in handles if not str(line.get_label()).startswith("_")]
    # Below the panel: inside it, a legend sees the curves of its own axis only and hides the other's.
    axes.legend(handles=shown, fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
