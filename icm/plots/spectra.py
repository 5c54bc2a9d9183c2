"""The spectrum of an update against the gradient's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from icm.errors import InputError
from icm.paths import check_output
from icm.plots.style import COLOURS, DASHES, FAINT, GREY, INK, PICTURES, dress, rug, save
from icm.solvers import Solution, Status

GRADIENT = "Q ∝ G (the gradient itself)"
POLAR = "Q ∝ polar factor (orthogonal)"
FLOOR = 1e-4  # of the largest singular value: what is below has 1e-8 of its energy and is left out of the picture


def plot_spectra(solutions: list[Solution], path: str | Path | None = None, title: str | None = None) -> Figure:
    """σᵢ/σ₁ of each Q against gᵢ/g₁ of its G, and beside it the lift (σᵢ/σ₁)/(gᵢ/g₁), one curve per H.

    The identity, Q ∝ G, and the orthogonal limit σᵢ = σ₁ bound what a curvature of super-quadratic growth can do.
    Axes are logarithmic where G's spectrum spans more than a factor of 30; singular values below 1e−4 of the largest
    are left out. Saved as .png, .pdf or .svg if `path` is given.

    Raises InputError for an empty list, a batched solution or G = 0, FileError for a path that cannot be written.
    """
    target = None if path is None else check_output(path, PICTURES)
    spectra = _spectra(solutions)
    m, n = solutions[0].Q.shape
    figure = Figure(figsize=(10.4, 4.9), dpi=150, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    span = _span(spectra)
    _draw_spectra(left, spectra, span)
    _draw_lift(right, spectra, span)
    left.set_title("Spectrum of the update", loc="left", fontsize=10.5, color=INK)
    right.set_title("Lift of the small directions", loc="left", fontsize=10.5, color=INK)
    figure.suptitle(title or f"G: {m} × {n}", x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
    _legend(figure, spectra)
    if target is not None:
        save(figure, target)
    return figure


def plot_overview(
    panels: Mapping[str, Sequence[Solution]], path: str | Path | None = None, title: str | None = None
) -> Figure:
    """One panel of `plot_spectra`'s left kind per named matrix, all with the same curvatures and one legend.

    Raises as `plot_spectra`.
    """
    target = None if path is None else check_output(path, PICTURES)
    if not panels:
        raise InputError("panels is empty: give at least one matrix with its solutions")
    spectra = {name: _spectra(list(solutions)) for name, solutions in panels.items()}
    span = _span([curve for curves in spectra.values() for curve in curves])  # one range, so panels can be compared
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.3 * rows + 1.0), dpi=150, facecolor="white", layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for index, (name, curves) in enumerate(spectra.items()):
        axes = grid[index // columns][index % columns]
        m, n = panels[name][0].Q.shape
        _draw_spectra(axes, curves, span, labels=index == 0)
        axes.set_title(f"{name}   {m} × {n}", loc="left", fontsize=10, color=INK)
        if index % columns:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
        if index + columns < len(panels):
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
    _legend(figure, next(iter(spectra.values())))
    if target is not None:
        save(figure, target)
    return figure


class _Curve:
    """One spectrum over its largest, x of G and y of Q, with the way it is drawn."""

    def __init__(self, solution: Solution, style: dict[str, Any]):
        g, sigma = solution.g.double().cpu(), solution.sigma.double().cpu()
        self.label, self.style = str(solution.curvature), style
        self.x = g / g[0]
        self.y = sigma / sigma.amax()  # all NaN where Q is none or zero: the label then says why
        if not bool(torch.isfinite(self.y).all()):
            ended = "Q = 0" if solution.statuses[0] is Status.OPTIMAL else str(solution.statuses[0])
            self.label += f" ({ended})"
            self.y = torch.full_like(self.x, torch.nan)


def _spectra(solutions: list[Solution]) -> list[_Curve]:
    if not solutions:
        raise InputError("solutions is empty: give at least one Solution")
    looks = zip(cycle(COLOURS), (dash for dash in cycle(DASHES)), strict=False)
    curves = []
    for solution, (colour, dash) in zip(solutions, looks, strict=False):
        if solution.g.ndim != 1:
            shape = tuple(solution.g.shape[:-1])
            raise InputError(
                f"a batch of shape {shape} has no one spectrum to draw; solve one matrix of it and plot that"
            )
        if not float(solution.g[0]) > 0:
            raise InputError("G = 0 has no spectrum to draw; plot a gradient that is not zero")
        style = {"color": colour, "linestyle": dash, "linewidth": 1.9, "solid_capstyle": "round"}
        if len(solution.g) <= 24:
            style |= {"marker": "o", "markersize": 4}
        curves.append(_Curve(solution, style))
    return curves


def _draw_spectra(axes: Axes, curves: list[_Curve], span: tuple[float, bool], labels: bool = True) -> None:
    low, logarithmic = span
    start = low if logarithmic else 0.0
    axes.plot([start, 1], [start, 1], color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), label=GRADIENT, zorder=4)
    axes.axhline(1, color=INK, linewidth=1.1, label=POLAR, zorder=1)
    for curve in curves:
        _plot(axes, curve, curve.y)
    rug(axes, curves[0].x)
    _frame(axes, low, logarithmic)
    if logarithmic:
        axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_ylim((low * 0.55, 2.2) if logarithmic else (0, 1.12))
    axes.set_ylabel("σᵢ / σ₁ of the update Q")
    if labels:
        corner = (1.0, 1.0)
        offset = {"xytext": (-4, 5), "textcoords": "offset points", "fontsize": 8}
        axes.annotate("orthogonal limit", corner, ha="right", va="bottom", color=INK, **offset)
        middle = low**0.62 if logarithmic else 0.42
        axes.annotate(
            "Q ∝ G", (middle, middle), ha="left", va="top", color=GREY, fontsize=8, xytext=(6, -3),
            textcoords="offset points",
        )  # fmt: skip


def _draw_lift(axes: Axes, curves: list[_Curve], span: tuple[float, bool]) -> None:
    low, logarithmic = span
    lifts = [curve.y / curve.x for curve in curves]
    seen = torch.cat([lift[(curve.x >= low) & lift.isfinite()] for lift, curve in zip(lifts, curves, strict=True)])
    top = max(float(seen.amax()) if len(seen) else 1.0, 1.5)
    bottom = min(float(seen.amin()) if len(seen) else 1.0, 1.0)
    x = torch.logspace(float(torch.tensor(low).log10()), 0, 400) if logarithmic else torch.linspace(low, 1, 400)
    axes.axhline(1, color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=4)
    axes.plot(x.tolist(), (1 / x).tolist(), color=INK, linewidth=1.1, zorder=1)
    for curve, lift in zip(curves, lifts, strict=True):
        _plot(axes, curve, lift)
    rug(axes, curves[0].x)
    _frame(axes, low, logarithmic)
    wide = top > 30 or bottom < 0.1
    if wide:
        axes.set_yscale("log")
        axes.set_ylim(bottom * 0.7, top * 1.8)
    else:
        pad = 0.14 * (top - bottom)
        axes.set_ylim(bottom - pad, top + pad)
    axes.minorticks_off()
    axes.set_ylabel("(σᵢ / σ₁) / (gᵢ / g₁)")


def _plot(axes: Axes, curve: _Curve, y: Tensor) -> None:
    keep = (curve.x >= FLOOR) & (y > 0)
    axes.plot(curve.x[keep].tolist(), y[keep].tolist(), label=curve.label, zorder=3, **curve.style)


def _span(curves: list[_Curve]) -> tuple[float, bool]:
    """The smallest gᵢ/g₁ drawn, and whether the axes are logarithmic."""
    low = min(float(curve.x[curve.x >= FLOOR].amin()) for curve in curves)
    return min(low, 0.98), low < 1 / 30


def _frame(axes: Axes, low: float, logarithmic: bool) -> None:
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(low * 0.7, 1.45)
    else:
        axes.set_xlim(0, 1.04)
    axes.set_xlabel("gᵢ / g₁ of the gradient G")
    dress(axes)


def _legend(figure: Figure, curves: list[_Curve]) -> None:
    handles = [Line2D([], [], label=f"H = {curve.label}", **curve.style) for curve in curves]
    handles += [
        Line2D([], [], color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), label=GRADIENT),
        Line2D([], [], color=INK, linewidth=1.1, label=POLAR),
        Line2D([], [], color=FAINT, marker="|", linestyle="none", markersize=9, label="singular values of G"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False, fontsize=9)
