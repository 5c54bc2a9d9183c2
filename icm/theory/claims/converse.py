"""The converse of homogenisation: one spectrum says little about ψ, all spectra say everything."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball
from icm.curvature import Curvature, Power
from icm.sphere import expect
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.cap import between
from icm.theory.claims.homogenisation import ratios, several
from icm.theory.curvatures import power, super_quadratic
from icm.theory.evidence import Expected
from icm.theory.instances import Instances, diagonal, draw

_RADII = 33  # points of a range at which ψ is looked at
_SHAPES = ((2, 2), (2, 2), (3, 2), (3, 3), (5, 3), (5, 5), (8, 8))


def psi(H: Curvature, r: Tensor) -> Ball:
    """H′(r)/r at r > 0, 2ψ(r²), for a sum of powers; unbounded for any other H."""
    total = Ball.of(torch.zeros_like(r))
    for part in H.parts:
        if not isinstance(part, Power):
            return Ball(torch.zeros_like(r), torch.full_like(r, torch.inf))
        excess = Ball.of(part.exponent) - 2.0  # exact in float64 for exponents with few digits, from 1 to 4
        grown = Ball.of(r) ** float(excess.middle)
        grown = Ball(grown.middle, grown.radius + (excess.radius * r.log().abs() + 1e-300) * grown.middle, grown.rigour)
        total = total + grown * (Ball.of(part.scale) * part.exponent)
    return total


def reached(case: Case) -> Tensor:
    """Radii (B, P) between the least and the largest ‖Qζ‖/‖ζ‖, in geometric steps, from 1e−4 σ₁ where that is 0."""
    sigma = case.sigma.middle
    top = sigma[:, 0].where(sigma[:, 0] > 0, 1.0)
    bottom = sigma[:, -1] if case.k == case.n else torch.zeros_like(top)
    steps = torch.linspace(0, 1, _RADII, dtype=torch.float64)
    return top[:, None] * (bottom / top).clamp(min=1e-4)[:, None] ** (1 - steps)


def least_rise(case: Case) -> Ball:
    """The least relative change of H′(r)/r from one radius of the range to a larger one."""
    found = psi(case.H, reached(case))
    rise = (found[:, 1:] / found[:, :-1] - 1.0).amin()
    return Ball(rise.middle, rise.radius, min(rise.rigour, case.g.rigour))  # the hypothesis rests on g


def homogenises(case: Case) -> Tensor:
    """σ_i/σ_j < g_i/g_j for all neighbours i < j with g_j > 0, by more than its error."""
    return (ratios(case) - 1.0).where(case.drawn[:, 1:] > 0, 1.0).amin().lower > 0


def mixed(rng: Generator) -> Curvature:
    """A power below 2 and one above it: ψ falls up to some radius and rises beyond; one in five super-quadratic."""
    if rng.random() < 0.2:
        return super_quadratic(rng)
    return power(rng, 1.1, 1.99) + power(rng, 2.1, 6.0)


def falls_until(H: Curvature) -> float:
    """The radius below which H′(r)/r falls, for c₁ r^p + c₂ r^q with p < 2 < q: c₁p(2−p) r^{p−q} = c₂q(q−2); NaN for
    any other H."""
    parts = [part for part in H.parts if isinstance(part, Power)]
    low, high = ([x for x in parts if x.exponent < 2], [x for x in parts if x.exponent > 2])
    if len(H.parts) != 2 or len(low) != 1 or len(high) != 1:
        return float("nan")
    (p, c), (q, d) = ((x[0].exponent, x[0].scale) for x in (low, high))
    return (c * p * (2 - p) / (d * q * (q - 2))) ** (1 / (q - p))


_MIXED = draw(mixed, shapes=_SHAPES, kinds=("uniform", "moderate", "geometric", "decades", "spike"), decades=1.0)


def straddling(rng: Generator, size: int) -> Instances:
    """Gradients whose σ* lies on both sides of the radius where ψ turns, two times in three; else any."""
    made = _MIXED(rng, size)
    end = falls_until(made.H)
    if not end > 0 or rng.random() < 1 / 3:
        return made
    sigma = end * torch.from_numpy(np.sort(10 ** rng.uniform(-0.7, 0.5, (size, made.k)))[:, ::-1].copy())
    return Instances(diagonal(expect(made.H, sigma, made.n).slopes, made.m, made.n), made.H, {}, ("straddling",) * size)


homogenisation_converse = Claim(
    name="homogenisation-converse",
    statement="If σ*_i/σ*_j < g_i/g_j for all g_i > g_j > 0 of a spectrum, then H′(r)/r is nondecreasing for all r "
    "that ‖Qζ‖ takes.",
    latex=r"\sigma^*_i/\sigma^*_j < g_i/g_j\ \ (\text{all } g_i > g_j > 0) \implies "
    r"H'(r)/r \text{ nondecreasing on the range of } \|Q\zeta\|",
    source="the converse reading of Su, arXiv 2511.00674, Theorem 1: R rises if and only if ψ does, on its range",
    hypotheses={
        "H is a sum of powers beyond 1": between(1.01, float("inf")),
        "two positive singular values": several,
        "it homogenises": homogenises,
    },
    margin=least_rise,
    draw=straddling,
    expected=Expected.CORRECTS,
    proof="homogenisation-converse",
)


def around(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Singular values within some 1e−3 to 0.5 of a radius where ψ falls, some of them a little beyond."""
    end = falls_until(made.H)
    end = end if end == end else 1.0
    size = (len(made), 1)
    width = 10 ** rng.uniform(-3, -0.3, size)
    top = end * np.where(rng.random(size) < 0.7, 10 ** rng.uniform(-3, 0, size), rng.uniform(0.99, 1.01, size))
    x = np.sort(top * (1 - width * rng.uniform(0, 1, (len(made), made.k))), -1)[:, ::-1]
    return {"sigma": torch.from_numpy(x.copy())}


def falls(case: Case) -> Tensor:
    """Whether ψ falls on all of the range [σ_k, σ₁], k = n."""
    sigma = case["sigma"]
    return (sigma.amax(-1) <= falls_until(case.H)) & (sigma > 0).all(-1) & (case.k == case.n)


def dehomogenised(case: Case) -> Ball:
    """1 − R_i/R_j, the least over neighbours σ_i ≥ σ_j in descending order."""
    sigma = case["sigma"].sort(-1, descending=True).values
    R = case.slopes(sigma) / sigma
    return (1.0 - R[:, :-1] / R[:, 1:]).amin()


converse_all = Claim(
    name="converse-all",
    statement="If H′(r)/r falls on [σ_n, σ_1] then σ_1, …, σ_n are the update of a gradient with σ_i/σ_j ≥ g_i/g_j for "
    "σ_i ≥ σ_j. So if every spectrum is homogenised, H′(r)/r falls nowhere.",
    latex=r"H'(r)/r \text{ nonincreasing on } [\sigma_n, \sigma_1] \implies "
    r"\sigma_i/\sigma_j \ge g_i/g_j,\ g = \nabla f(\sigma) \quad (\sigma_i \ge \sigma_j > 0)",
    source="this project: the converse of Su, arXiv 2511.00674, Theorem 1, that holds",
    hypotheses={"ψ falls on the range": falls},
    margin=dehomogenised,
    draw=draw(
        lambda rng: Power(round(float(rng.uniform(1.1, 1.99)), 3)) + power(rng, 2.1, 6.0),
        shapes=_SHAPES,
        extra=around,
    ),
    proof="converse-all",
)


def turned(case: Case) -> Ball:
    """R_1/R_n − 1 where ψ rises on all of the range, 1 − R_1/R_n where it falls, for the σ of the instance."""
    sigma = case["sigma"].sort(-1, descending=True).values
    R = case.slopes(sigma) / sigma
    change = R[:, 0] / R[:, -1] - 1.0
    return change.where(~falls(case), -change)


def one_way(case: Case) -> Tensor:
    """Whether ψ is monotone on the range."""
    rises = (case["sigma"].amin(-1) >= falls_until(case.H)) & (case.k == case.n)
    return rises | falls(case)


def across(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Singular values on either side of the radius where ψ turns, and some across."""
    sigma = around(rng, made)["sigma"]
    lift = torch.from_numpy(10 ** (rng.uniform(0.5, 3, (len(made), 1)) * (rng.random((len(made), 1)) < 0.5)))
    return {"sigma": sigma * lift}


on_the_range = Claim(
    name="homogenisation-range",
    statement="Theorem 1 needs H only where ‖Qζ‖ is, on [σ_n, σ_1]: g_1/g_n ≥ σ_1/σ_n if H′(r)/r rises there, and ≤ if "
    "it falls there, whatever H is elsewhere.",
    latex=r"H'(r)/r \text{ monotone on } [\sigma_n, \sigma_1] \implies "
    r"\operatorname{sign}\bigl(\tfrac{g_1/g_n}{\sigma_1/\sigma_n} - 1\bigr) \text{ is its direction}",
    source="this project: Su, arXiv 2511.00674, Theorem 1, on a range",
    hypotheses={"ψ is monotone on the range": one_way},
    margin=turned,
    draw=draw(
        lambda rng: Power(round(float(rng.uniform(1.1, 1.99)), 3)) + power(rng, 2.1, 6.0),
        shapes=_SHAPES,
        extra=across,
    ),
    proof="homogenisation-range",
)

CLAIMS = (homogenisation_converse, converse_all, on_the_range)
