"""The law of ‖Qζ‖, with the kinks and the wall of H."""

from __future__ import annotations

import math
from itertools import cycle
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icm.curvature import Curvature, as_curvature
from icm.errors import InputError
from icm.paths import check_output
from icm.plots.style import COLOURS, DASHES, GREY, INK, PICTURES, dress, rug, save
from icm.sphere.distribution import Law


def plot_law(law: Law, H: Curvature | str | None = None, path: str | Path | None = None) -> Figure:
    """The density of r = ‖Qζ‖ with its mean, median and the interval that holds 90% of it, and a tick for every
    singular value; with `H` also its kinks and its wall, and the share of the law beyond each.

    The picture covers the support, or where that is wide or the law narrow what lies between the quantiles 1e−4 and
    1 − 1e−4. An atom is a vertical line. Saved as .png, .pdf or .svg if `path` is given.

    Raises InputError for a batched law, FileError for a path that cannot be written.
    """
    target = None if path is None else check_output(path, PICTURES)
    if law.sigma.ndim != 1:
        shape = tuple(law.sigma.shape[:-1])
        raise InputError(f"a batch of shape {shape} has no one law to draw; plot the law of one spectrum of it")
    law = Law(law.sigma.double().cpu(), law.dim)
    figure = Figure(figsize=(6.6, 4.2), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots()
    start, stop = _draw_density(axes, law)
    if H is not None:
        _draw_levels(axes, law, as_curvature(H))
    rug(axes, law.sigma[(law.sigma >= start) & (law.sigma <= stop)])
    axes.set_xlim(start, stop)
    axes.set_xlabel("r = ‖Qζ‖")
    axes.set_ylabel("density of r")
    dress(axes)
    axes.set_title(f"The law of ‖Qζ‖, n = {law.dim}", loc="left", fontsize=10.5, color=INK)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    if target is not None:
        save(figure, target)
    return figure


def _draw_density(axes: Axes, law: Law) -> tuple[float, float]:
    """The density of r with its quantiles; returns the range of r drawn."""
    low, high = (float(end) for end in law.support)
    if bool(law.atom):
        axes.axvline(high, color=COLOURS[0], linewidth=1.9, label=f"r = {high:.6g} always")
        axes.set_ylim(0, 1)
        return (0.5 * high, 1.5 * high) if high else (-1.0, 1.0)
    levels = torch.tensor([1e-4, 0.05, 0.5, 0.95, 1 - 1e-4], dtype=torch.float64)
    first, bottom, median, top, last = law.quantile(levels).tolist()
    wide = 0.1 * (last - first)
    start, stop = max(low, first - wide), min(high, last + wide)
    if high - low < 1.5 * (last - first) or first == last:
        start, stop = low, high
    mean, std = float(law.mean), float(law.std)
    digits = 3 + max(3, math.ceil(math.log10(high / std)))

    def text(radius: float) -> str:
        """The radius with the digits that tell it from its neighbours in the law."""
        return f"{radius:.{digits}g}"

    # Equal steps in an angle crowd towards the ends, where the density may be infinite.
    r = (start + stop) / 2 - (stop - start) / 2 * torch.linspace(0, math.pi, 301, dtype=torch.float64).cos()
    r[0], r[-1] = start, stop
    density = law.density(r)
    seen = density.isfinite()
    body = seen & (r >= bottom) & (r <= top)
    inner = torch.cat([density[body], law.density([bottom, median, top])])
    ceiling = 1.15 * float(inner[inner.isfinite()].quantile(0.98))
    axes.plot(r[seen].tolist(), density[seen].tolist(), color=COLOURS[0], linewidth=1.9, label="density", zorder=3)
    axes.fill_between(
        r[body].tolist(), density[body].tolist(), color=COLOURS[0], alpha=0.15, linewidth=0,
        label=f"90%: {text(bottom)} to {text(top)}",
    )  # fmt: skip
    axes.axvline(median, color=INK, linewidth=1.1, label=f"median {text(median)}", zorder=2)
    axes.axvline(
        mean, color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), label=f"mean {text(mean)} ± {std:.2g}", zorder=2
    )
    axes.set_ylim(0, ceiling)
    return start, stop


def _draw_levels(axes: Axes, law: Law, H: Curvature) -> None:
    """A line at every kink of H and at its wall, which says how much of the law lies beyond."""
    levels = [("kink", c) for c, _ in H.kinks]
    if H.wall < math.inf:
        levels.append(("wall", H.wall))
    for (name, c), colour in zip(levels, cycle(COLOURS[1:]), strict=False):
        dash = DASHES[2] if name == "kink" else DASHES[0]
        label = f"{name} at {c:.6g}, P(r > {c:.6g}) = {float(law.tail(c)):.2g}"
        axes.axvline(c, color=colour, linewidth=1.6, linestyle=dash, label=label, zorder=4)
