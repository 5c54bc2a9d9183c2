"""What a monitor measured: sizes of weights, updates and features over the steps, and the norms of the updates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from icm.errors import InputError
from icm.norms.describe import FITS
from icm.optim.monitor import Monitor
from icm.optim.readings import MEASURED, Reading
from icm.paths import check_output
from icm.plots.style import COLOURS, DASHES, FAINT, GREY, INK, PICTURES, dress, save

MARKERS = ("o", "s", "^", "D", "v")
_TITLES = {
    "weight": "‖W‖ in the norm of the layer's role",
    "update": "‖ΔW‖ in the same norm",
    "features": "features: RMS of the outputs",
    "feature_update": "RMS of their change by the step",
}
_TICKS = {-1.0: "−1", -0.5: "−½", 0.0: "0", 0.25: "¼", 0.5: "½", 1.0: "1", 3.0: "3", math.inf: "∞"}
_MEANINGS = {
    -0.5: "beyond",
    0.0: "p = ∞, spectral: Muon",
    0.25: "p = 5",
    0.5: "p = 3",
    1.0: "p = 2, Frobenius: SGD",
    3.0: "p = 4/3",
    math.inf: "p = 1, nuclear",
}


def plot_monitor(monitor: Monitor | Iterable[Reading], path: str | Path | None = None) -> Figure:
    """‖W‖, ‖ΔW‖, the size of features and that of their change over the steps, logarithmic, a line per layer, and the
    monitor's constants: none above `stable`, solid, or below `learning`, dashed, is as it should be.

    Values that were not measured, are 0 or not finite are left out. Readings without their monitor have no constants.
    Saved as .png, .pdf or .svg if `path` is given. Raises InputError for a log without anything to draw, FileError for
    a path that cannot be written.
    """
    target = None if path is None else check_output(path, PICTURES)
    layers = _layers(_log(monitor))
    rows = math.ceil(len(layers) / 3)
    figure = Figure(figsize=(9.6, 6.2 + 0.18 * rows), dpi=150, facecolor="white", layout="constrained")
    panels = dict(zip(MEASURED, figure.subplots(2, 2, sharex=True).flat, strict=True))
    for name, axes in panels.items():
        for (layer, mine), style in zip(layers.items(), _looks(), strict=False):
            known = [(one.step, x) for one in mine if (x := getattr(one, name)) and math.isfinite(x)]
            axes.plot(*zip(*known, strict=True) if known else ([], []), label=layer, **style)
        _logarithmic(axes)
        axes.set_title(_TITLES[name], loc="left", fontsize=9.5, color=INK)
        if isinstance(monitor, Monitor):
            for given, dash in (("stable", DASHES[0]), ("learning", DASHES[1])):
                if name in getattr(monitor, given):
                    _constant(axes, given, getattr(monitor, given)[name], dash)
        dress(axes)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    for name in MEASURED[2:]:
        panels[name].set_xlabel("step")
    _legend(figure, panels["weight"])
    if target is not None:
        save(figure, target)
    return figure


def plot_exponents(monitor: Monitor | Iterable[Reading], path: str | Path | None = None) -> Figure:
    """The exponent a of each layer's updates U diag(g^a) Vᵀ over the steps, with what it means on the right, and below
    the cosine of the updates with that description. Hollow where that is under 0.9: there none fits. The band is low to
    high, for up to three layers.

    The vertical scale is a/(1 + a) = 1/p from 0 up, and a below. Saved and raises as `plot_monitor`, for a log
    without exponents too.
    """
    target = None if path is None else check_output(path, PICTURES)
    known = [one for one in _log(monitor) if one.exponent is not None and not math.isnan(one.exponent)]
    if not known:
        raise InputError("no reading has an exponent; let the monitor find them (exponents=True), of layers that move")
    layers = _layers(known)
    rows = math.ceil(len(layers) / 3)
    figure = Figure(figsize=(7.6, 5.6 + 0.18 * rows), dpi=150, facecolor="white", layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    for (layer, mine), style in zip(layers.items(), _looks(), strict=False):
        steps = [one.step for one in mine]
        heights = [height(one.exponent) for one in mine if one.exponent is not None]
        above.plot(steps, heights, label=layer, zorder=3, **style)
        poor = [(one.step, y) for one, y in zip(mine, heights, strict=True) if one.cosine and one.cosine < FITS]
        if poor:
            hollow = {"color": style["color"], "marker": style["marker"], "markersize": style["markersize"]}
            above.plot(*zip(*poor, strict=True), linestyle="none", markerfacecolor="white", zorder=4, **hollow)
        if len(layers) <= 3:
            ends = [[height(x) for one in mine if (x := getattr(one, name)) is not None] for name in ("low", "high")]
            above.fill_between(steps, *ends, color=style["color"], alpha=0.13, linewidth=0, zorder=2)
        below.plot(steps, [one.cosine for one in mine], **style)
    _meanings(above)
    below.axhline(FITS, color=GREY, linewidth=0.8, linestyle=DASHES[1], zorder=1)
    low = min(0.8, *(one.cosine for one in known if one.cosine is not None))
    below.set_ylim(low - 0.05, 1.02)
    below.set_ylabel("cosine")
    below.set_xlabel("step")
    for axes in (above, below):
        dress(axes)
    _legend(figure, above)
    if target is not None:
        save(figure, target)
    return figure


def height(a: float) -> float:
    """Where an exponent is drawn."""
    return a if a < 0 else 1.0 if math.isinf(a) else a / (1 + a)


def _meanings(axes: Axes) -> None:
    """The exponents on the left, and on the right the Schatten p that they belong to."""
    drawn = [y for line in axes.lines for y in line.get_ydata()]  # type: ignore[union-attr]
    bottom = -0.12 if min(drawn) > -0.1 else max(-1.0, min(drawn)) - 0.05
    top = 0.75 if max(drawn) < 0.6 else 1.04
    axes.set_ylim(bottom, top)
    axes.axhspan(bottom, 0, color=FAINT, alpha=0.08, linewidth=0, zorder=0)
    for a in (0.0, 1.0):
        axes.axhline(height(a), color=INK, linewidth=0.8, zorder=1)
    ticks = {a: text for a, text in _TICKS.items() if bottom <= height(a) <= top}
    axes.set_yticks([height(a) for a in ticks], list(ticks.values()))
    axes.set_ylabel("exponent a of the update U diag(gᵃ) Vᵀ")
    right = axes.secondary_yaxis("right")
    shown = {a: text for a, text in _MEANINGS.items() if bottom <= height(a) <= top}
    right.set_yticks([height(a) for a in shown], list(shown.values()))
    right.tick_params(labelsize=8.5, length=0, colors=INK)
    right.spines["right"].set_visible(False)


def _logarithmic(axes: Axes) -> None:
    """A logarithmic scale with figures that can be read where it is short."""
    drawn = [y for line in axes.lines for y in line.get_ydata()] or [1.0]  # type: ignore[union-attr]
    axes.set_yscale("log")
    short = max(drawn) < 100 * min(drawn)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _constant(axes: Axes, name: str, value: float, dash: Any) -> None:
    axes.axhline(value, color=GREY, linewidth=1.0, linestyle=dash, zorder=1)
    axes.annotate(
        f"{name}\n{value:g}", (1, value), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=7.5, color=GREY,
    )  # fmt: skip


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    widest = max(map(len, labels))
    columns = min(len(labels), max(1, (110 if figure.get_figwidth() > 9 else 84) // (widest + 8)), 4)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5)


def _log(monitor: Monitor | Iterable[Reading]) -> Sequence[Reading]:
    return monitor.log if isinstance(monitor, Monitor) else list(monitor)


def _layers(log: Sequence[Reading]) -> dict[str, list[Reading]]:
    if not log:
        raise InputError("the log is empty: no step was measured yet")
    found: dict[str, list[Reading]] = {}
    for one in log:
        found.setdefault(one.layer, []).append(one)
    return found


def _looks() -> Iterable[dict[str, Any]]:
    """Colours, dashes and markers, no two layers alike for long."""
    for colour, dash, marker in zip(cycle(COLOURS), cycle(DASHES), cycle(MARKERS), strict=False):
        yield {"color": colour, "linestyle": dash, "marker": marker, "markersize": 3.5, "linewidth": 1.5}
