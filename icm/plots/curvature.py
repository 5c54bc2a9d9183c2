"""H(r) as it was measured: H(r)/r² over r, a line per layer, and how it changes while a network trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icm.errors import InputError
from icm.measure import Exponent, Measurement
from icm.paths import check_output
from icm.plots.style import COLOURS, DASHES, GREY, INK, PICTURES, dress, save

MARKERS = ("o", "s", "^", "D", "v", "P")
FROM = 10**0.5  # the radius from which the paper fits exponents


def plot_curvatures(
    measurements: Mapping[str, Measurement] | Iterable[Measurement],
    path: str | Path | None = None,
    from_radius: float | None = FROM,
    title: str | None = None,
) -> Figure:
    """H(r)/r² over r, both logarithmic, a line per layer with its 95 % intervals, and in the legend the exponents of
    H ∝ r^p from `from_radius` on (Su, arXiv 2511.00674, figure 1); None: of all resolved radii.

    Radii at which rounding drowns H, or H is negative, are left out, and the exponents of layers with less than two
    others. Saved as .png, .pdf or .svg if `path` is given. Raises InputError where no layer has anything to show,
    FileError for a path that cannot be written.
    """
    target = None if path is None else check_output(path, PICTURES)
    every = list(measurements.values() if isinstance(measurements, Mapping) else measurements)
    shown = [one for one in every if bool(one.resolved.any())]
    if not shown:
        raise InputError("no measurement has a radius that stands clear of rounding, so there is nothing to draw")
    figure = Figure(figsize=(6.6, 4.2 + 0.16 * len(shown)), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for one, look in zip(shown, _looks(), strict=False):
        _line(axes, one, *look, label=f"{one.layer}  {_exponent(one, from_radius)}")
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
    figure.legend(loc="outside lower center", ncols=1 + (len(shown) > 3), frameon=False, fontsize=8.5)
    if target is not None:
        save(figure, target)
    return figure


def plot_change(
    runs: Mapping[int, Mapping[str, Measurement]] | Mapping[float, Mapping[str, Measurement]],
    path: str | Path | None = None,
    from_radius: float | None = FROM,
) -> Figure:
    """How H changes during training: `runs` are measurements of one network by step. Left, for each layer, H(r)/r² at
    the smallest radius resolved at every step, the curvature of the quadratic part; right the exponents from
    `from_radius` on, with their 95 % intervals.

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
    figure = Figure(figsize=(9.6, 4.0 + 0.16 * len(layers)), dpi=150, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (colour, dash, marker) in zip(layers, _looks(), strict=False):
        style: dict[str, Any] = {
            "color": colour,
            "linestyle": dash,
            "marker": marker,
            "markersize": 4,
            "linewidth": 1.6,
        }
        every = [runs[step][name] for step in steps]
        common = every[0].resolved
        for one in every:
            common = common & one.resolved
        if bool(common.any()):
            at = int(common.nonzero()[0])
            left.plot(steps, [float(one.ratio[at]) for one in every], label=name, **style)
        fitted = [(step, _fitted(one, from_radius)) for step, one in zip(steps, every, strict=True)]
        known = [(step, p) for step, p in fitted if p is not None]
        if known:
            x, p = zip(*known, strict=True)
            bars = [[e.value - e.low for e in p], [e.high - e.value for e in p]]
            right.errorbar(x, [e.value for e in p], yerr=bars, capsize=2, elinewidth=0.8, **style)
    left.set_yscale("log")
    left.set_ylabel("H(r)/r² at the smallest resolved r")
    right.axhline(2, color=INK, linewidth=0.8, zorder=1)
    right.set_ylabel("p of H(r) ∝ r^p" + ("" if from_radius is None else f", r ≥ {from_radius:.3g}"))
    for axes in (left, right):
        axes.set_xlabel("training step")
        dress(axes)
    if left.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2 if len(layers) > 3 else 1, frameon=False, fontsize=8.5)
    if target is not None:
        save(figure, target)
    return figure


def _looks() -> Iterable[tuple[str, Any, str]]:
    """Colours, dashes and markers, no two layers alike for long."""
    return zip(cycle(COLOURS), cycle(DASHES), cycle(MARKERS[:5]), strict=False)


def _line(axes: Axes, one: Measurement, colour: str, dash: Any, marker: str, label: str) -> None:
    seen = one.resolved
    r, ratio = one.radii[seen], one.ratio[seen]
    low, high = (end[seen] / r**2 for end in one.interval)
    style: dict[str, Any] = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 4, "linewidth": 1.6}
    axes.plot(r.tolist(), ratio.tolist(), label=label, zorder=3, **style)
    if one.examples > 1:
        floor = low.clamp(min=float(ratio.min()) * 1e-2)  # where an interval reaches 0 a logarithm does not
        axes.fill_between(r.tolist(), floor.tolist(), high.tolist(), color=colour, alpha=0.13, linewidth=0, zorder=2)


def _fitted(one: Measurement, from_radius: float | None) -> Exponent | None:
    try:
        return one.exponent(from_radius)
    except InputError:
        return None


def _exponent(one: Measurement, from_radius: float | None) -> str:
    found = _fitted(one, from_radius)
    return "" if found is None else f"p = {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
