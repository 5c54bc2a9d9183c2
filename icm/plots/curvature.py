"""H(r) as it was measured: H(r)/r² over r, a line per layer, and how it changes while a network trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from math import nan
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from icm.errors import InputError
from icm.measure import Exponent, Measurement
from icm.paths import check_output
from icm.plots.style import COLOURS, DASHES, GREY, INK, PICTURES, dress, save

MARKERS = ("o", "s", "^", "D", "v", "P")
FROM = 10**0.5  # the radius from which the paper fits exponents
LEAST = 3  # radii of an exponent that is shown: two make a line of anything
WIDEST = 2.0  # interval of one
_ROW = 0.17  # inches of the legend


def plot_curvatures(
    measurements: Mapping[str, Measurement] | Iterable[Measurement],
    path: str | Path | None = None,
    from_radius: float | None = FROM,
    title: str | None = None,
) -> Figure:
    """H(r)/r² over r, both logarithmic, a line per layer with its 95 % intervals, and in the legend the exponents of
    H ∝ r^p from `from_radius` on (Su, arXiv 2511.00674, figure 1); None: of all resolved radii.

    Radii at which rounding drowns H, or H is negative, are left out, and exponents that say nothing are dashes (see
    `telling_exponent`). What all names begin with stands above the legend. Saved as .png, .pdf or .svg if `path` is
    given. Raises InputError where no layer has anything to show, FileError for a path that cannot be written.
    """
    target = None if path is None else check_output(path, PICTURES)
    every = list(measurements.values() if isinstance(measurements, Mapping) else measurements)
    shown = [one for one in every if bool(one.resolved.any())]
    if not shown:
        raise InputError("no measurement has a radius that stands clear of rounding, so there is nothing to draw")
    figure = Figure(figsize=(6.6, 4.2), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots()
    prefix, names = _shortened([one.layer for one in shown])
    for one, name, look in zip(shown, names, _looks(), strict=False):
        _line(axes, one, *look, label=f"{name}  {_exponent(one, from_radius)}")
    ends = [float(one.radii[one.resolved][i]) for one in shown for i in (0, -1)]
    if from_radius is not None and min(ends) <= from_radius <= max(ends):
        axes.axvline(from_radius, color=GREY, linewidth=0.8, linestyle=DASHES[2], zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("r, length of the displacement of the layer's output")
    axes.set_ylabel("H(r)/r²")
    dress(axes)
    if title:
        axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    _legend(figure, [axes], prefix)
    if target is not None:
        save(figure, target)
    return figure


def plot_change(
    runs: Mapping[int, Mapping[str, Measurement]] | Mapping[float, Mapping[str, Measurement]],
    path: str | Path | None = None,
    from_radius: float | None = FROM,
    along: str = "training step",
) -> Figure:
    """How H changes during training: `runs` are measurements of one network by step, or by what `along` names. Left,
    for each layer, H(r)/r² at the smallest radius resolved at every step, the curvature of the quadratic part; right
    the exponents from `from_radius` on, with their 95 % intervals, where they say something (see `telling_exponent`).

    Saved as .png, .pdf or .svg if `path` is given. Raises InputError for fewer than two steps and for layers that not
    every step has, FileError for a path that cannot be written.
    """
    target = None if path is None else check_output(path, PICTURES)
    runs = {float(step): one for step, one in runs.items()}
    steps = sorted(runs)
    if len(steps) < 2:
        raise InputError(f"{len(steps)} step shows no change; give measurements at two or more")
    layers = list(runs[steps[0]])
    for step in steps:
        if list(runs[step]) != layers:
            raise InputError(f"step {step:g} has other layers than step {steps[0]:g}; measure the same at each")
    figure = Figure(figsize=(9.6, 4.0), dpi=150, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    prefix, names = _shortened(layers)
    for name, label, look in zip(layers, names, _looks(), strict=False):
        style = _style(*look)
        every = [runs[step][name] for step in steps]
        common = every[0].resolved
        for one in every:
            common = common & one.resolved
        if bool(common.any()):
            at = int(common.nonzero()[0])
            left.plot(steps, [float(one.ratio[at]) for one in every], label=label, **style)
        fitted = [telling_exponent(one, from_radius) for one in every]
        if any(fitted):
            p, low, high = zip(*((e.value, e.low, e.high) if e else (nan, nan, nan) for e in fitted), strict=True)
            bars = [[a - b for a, b in zip(*ends, strict=True)] for ends in ((p, low), (high, p))]
            right.errorbar(steps, p, yerr=bars, capsize=2, elinewidth=0.8, label=label, **style)
    left.set_yscale("log")
    left.set_ylabel("H(r)/r² at the smallest resolved r")
    right.axhline(2, color=INK, linewidth=0.8, zorder=1)
    right.set_ylabel("p of H(r) ∝ r^p" + ("" if from_radius is None else f", r ≥ {from_radius:.3g}"))
    for axes in (left, right):
        axes.set_xlabel(along)
        axes.set_xlim(*_ends(steps))
        dress(axes)
    _legend(figure, [left, right], prefix)
    if target is not None:
        save(figure, target)
    return figure


def telling_exponent(one: Measurement, from_radius: float | None = FROM) -> Exponent | None:
    """The exponent from `from_radius` on, if it is fitted to three radii or more and its 95 % interval is no wider than
    2; None otherwise, for such a number says nothing."""
    try:
        found = one.exponent(from_radius)
    except InputError:
        return None
    return found if len(found.radii) >= LEAST and found.high - found.low <= WIDEST else None


def _looks() -> Iterable[tuple[str, Any, str]]:
    """Colours, dashes and markers, no two layers alike for long."""
    return zip(cycle(COLOURS), cycle(DASHES), cycle(MARKERS[:5]), strict=False)


def _style(colour: str, dash: Any, marker: str) -> dict[str, Any]:
    return {"color": colour, "linestyle": dash, "marker": marker, "markersize": 4, "linewidth": 1.6}


def _line(axes: Axes, one: Measurement, colour: str, dash: Any, marker: str, label: str) -> None:
    seen = one.resolved
    r, ratio = one.radii[seen], one.ratio[seen]
    low, high = (end[seen] / r**2 for end in one.interval)
    axes.plot(r.tolist(), ratio.tolist(), label=label, zorder=3, **_style(colour, dash, marker))
    if one.examples > 1:
        floor = low.clamp(min=float(ratio.min()) * 1e-2)  # where an interval reaches 0 a logarithm does not
        axes.fill_between(r.tolist(), floor.tolist(), high.tolist(), color=colour, alpha=0.13, linewidth=0, zorder=2)


def _exponent(one: Measurement, from_radius: float | None) -> str:
    found = telling_exponent(one, from_radius)
    return "p = –" if found is None else f"p = {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _ends(steps: Sequence[float]) -> tuple[float, float]:
    """Both panels share them, though one may have fewer points."""
    space = 0.05 * (steps[-1] - steps[0])
    return steps[0] - space, steps[-1] + space


def _shortened(names: Sequence[str]) -> tuple[str, list[str]]:
    """What several names begin with, in whole parts between dots, and what is left of each."""
    parts = [name.split(".") for name in names]
    shared = 0
    while len(names) > 1 and len({tuple(part[: shared + 1]) for part in parts}) == 1 < min(map(len, parts)) - shared:
        shared += 1
    return "".join(f"{part}." for part in parts[0][:shared]), [".".join(part[shared:]) for part in parts]


def _legend(figure: Figure, every: Sequence[Axes], prefix: str) -> None:
    """Below the axes, in as many columns as are no wider than the figure, which grows by its rows."""
    handles: dict[str, Any] = {}
    for axes in every:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    count = len(handles)
    most = 1 if count <= 3 else 2 if count <= 12 else 3
    renderer = FigureCanvasAgg(figure).get_renderer()
    columns = most
    for size, columns in [*((8.5, k) for k in range(most, 0, -1)), (7.0, 1), (5.5, 1)]:
        legend = figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=columns, frameon=False,
            fontsize=size, title=f"{prefix} …" if prefix else None, title_fontsize=8.5,
        )  # fmt: skip
        if (size, columns) == (5.5, 1) or legend.get_window_extent(renderer).width <= figure.bbox.width:
            break
        legend.remove()
    rows = -(-count // columns) + bool(prefix)
    figure.set_figheight(figure.get_figheight() + _ROW * rows)
