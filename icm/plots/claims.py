"""The pictures of a report of claims: what the theorems say, computed when the report is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from statistics import median

import torch
from matplotlib.figure import Figure

from icm.curvature import Power
from icm.plots.region import plot_region
from icm.plots.spectra import plot_spectra
from icm.plots.style import COLOURS, DASHES, INK, dress
from icm.solvers import compare, orthogonal_region, solve
from icm.theory.claims.wide import distance

CURVATURES = ("r^1.5", "r^2.5", "r^4", "0.5*r^2 + 30*kink(1)", "wall(1)")
EXPONENTS = tuple(round(0.25 * i, 2) for i in range(25))  # α
CONDITIONS = (2.0, 10.0, 1000.0)  # g₁/gₙ
INPUTS = (2, 3, 5)  # n of the spectra that the cap is tried on
JUMPS = (10.0, 30.0, 100.0, 1000.0)  # J of the kink
ASPECTS = (0.25, 0.5, 0.75, 0.875, 1, 1.5, 2, 4, 8, 16)  # m/n
COLUMNS, DRAWS = 8, 3  # n and the number of G per m/n
FLOOR = 1e-4  # of the distances shown


@dataclass(frozen=True)
class Picture:
    """A picture by name, with a title; `draw` gives the figure and the caption that says what is seen in it."""

    name: str
    title: str
    draw: Callable[[], tuple[Figure, str]]


def spectrum_picture() -> tuple[Figure, str]:
    """One gradient under several H: super-quadratic ones draw its singular values together, sub-quadratic apart."""
    g = torch.linspace(0, -1.7, 16, dtype=torch.float64)
    solutions = compare(torch.diag(10**g), list(CURVATURES)).solutions
    figure = plot_spectra(list(solutions), title="G: 16 × 16, singular values from 1 to 0.02")
    return figure, (
        "Left: singular values of the optimal Q against those of one 16 × 16 gradient G (geometric from 1 to 0.02), "
        "each over its largest; right: their ratio. On the dashed line Q is a multiple of G, on the upper one of its "
        f"polar factor. Curvatures: {', '.join(CURVATURES)}. What grows faster than r² draws the singular values "
        "together and what grows slower draws them apart; the order never changes."
    )


def region_picture() -> tuple[Figure, str]:
    """The slopes left and right of a kink for which the optimum is a multiple of the polar factor."""
    g = (1.0, 0.85, 0.75, 0.7)
    region = orthogonal_region(torch.tensor(g, dtype=torch.float64), len(g))
    shown = ", ".join(f"{x:g}" for x in g)
    return plot_region(region), (
        f"Slopes A left and B right of a kink of H for which orthogonalisation is optimal, for n = {len(g)} and "
        f"singular values {shown}. Above the curve, exactly there, r̃ UVᵀ is the optimum. It lies between the "
        f"necessary bounds A ≤ {region.largest_left:.3g}, B ≥ {region.least_right:.3g} and the corner "
        f"A ≤ {region.sufficient_left:.3g}, B ≥ {region.sufficient_right:.3g} that the closed form proves."
    )


def cap_picture() -> tuple[Figure, str]:
    """The most that H = r^(2+α) draws two singular values together: (g_i/g_j)/(σ_i/σ_j) ≤ 1 + α."""
    figure = Figure(figsize=(6.6, 4.4), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots()
    last = 1.0
    looks = zip(cycle(COLOURS), cycle(DASHES), strict=False)
    for condition, (colour, dash) in zip(CONDITIONS, looks, strict=False):
        attained = [_drawn_together(2 + alpha, condition) for alpha in EXPONENTS]
        last = attained[-1] / (1 + EXPONENTS[-1])
        label = f"attained with g₁/gₙ = {condition:g}"
        axes.plot(EXPONENTS, attained, color=colour, linestyle=dash, linewidth=1.9, label=label, zorder=3)
    axes.plot(EXPONENTS, [1 + a for a in EXPONENTS], color=INK, linewidth=1.1, label="the cap, 1 + α", zorder=2)
    axes.set_xlabel("α, for H = r^(2+α)")
    axes.set_ylabel("largest (gᵢ/gⱼ) / (σᵢ/σⱼ)")
    dress(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure, (
        "The most that H = r^(2+α) draws two singular values together, over spectra of two values, one of them "
        f"repeated or not, with n = {', '.join(map(str, INPUTS))}. The theorem caps it by 1 + α. The cap is "
        f"approached as the spectrum widens: with g₁/gₙ = {CONDITIONS[-1]:g}, {100 * last:.0f} % of it are "
        f"attained at α = {EXPONENTS[-1]:g}."
    )


def _drawn_together(exponent: float, condition: float) -> float:
    """The largest (g_i/g_j)/(σ_i/σ_j) over spectra of k ones and n − k values 1/condition."""
    found = []
    for n in INPUTS:
        ones = torch.ones(n, n, dtype=torch.float64).tril()[:-1]
        g = ones + (1 - ones) / condition
        sigma = solve(torch.diag_embed(g), Power(exponent)).sigma
        found.append(float(((g[:, 0] / g[:, -1]) / (sigma[:, 0] / sigma[:, -1])).max()))
    return max(found)


def distance_picture() -> tuple[Figure, str]:
    """How far the optimum is from orthogonal from wide gradients to tall ones, for a quadratic with a kink."""
    figure = Figure(figsize=(6.6, 4.4), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots()
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for aspect in ASPECTS:
        m = round(aspect * COLUMNS)
        g = torch.linalg.svdvals(torch.randn(DRAWS, m, COLUMNS, dtype=torch.float64, generator=generator))
        gradients.append((m, g / g.mean(-1, keepdim=True)))
    looks = zip(cycle(COLOURS), cycle(DASHES), strict=False)
    for jump, (colour, dash) in zip(JUMPS, looks, strict=False):
        away = [median(distance(m, COLUMNS, jump, g).tolist()) for m, g in gradients]
        shown = [max(x, FLOOR) for x in away]
        style = {"color": colour, "linestyle": dash, "linewidth": 1.9, "marker": "o", "markersize": 4}
        axes.plot(ASPECTS, shown, label=f"J = {jump:g}", zorder=3, **style)
    axes.axvline(1, color=INK, linewidth=0.8, zorder=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_xticks(ticks := [0.25, 0.5, 1, 2, 4, 8, 16], ["¼", "½", *(str(t) for t in ticks[2:])])
    axes.set_ylim(FLOOR * 0.8, 1.5)
    axes.set_xlabel("m/n")
    axes.set_ylabel("‖Q/‖Q‖ − P/‖P‖‖, Frobenius norms")
    dress(axes)
    figure.legend(loc="outside lower center", ncols=len(JUMPS), frameon=False, fontsize=9)
    return figure, (
        "Distance of the optimum Q from the polar factor P, both of norm 1, for H = r²/2 + J (r − 1)₊: the median over "
        f"{DRAWS} Gaussian m × {COLUMNS} gradients of mean singular value 1. Left of m = n no finite J makes it 0; "
        "right of it spectra are less spread, and from some m/n on the kink holds all inputs at one radius: points at "
        f"the foot are {FLOOR:g} or less, for most of them 0 to within the solver's error."
    )


ALL = (
    Picture("spectrum", "What a curvature makes of a spectrum", spectrum_picture),
    Picture("region", "Where orthogonalisation is optimal", region_picture),
    Picture("cap", "How far a power can homogenise", cap_picture),
    Picture("distance", "How far from orthogonal", distance_picture),
)
