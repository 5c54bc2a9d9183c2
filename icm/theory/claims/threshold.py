"""The threshold B(A) = A + J(g − A/n) as a function of the left slope A: convex, and infinite at n min g.

J(q) = max_v ⟨q, v⟩/h(v), h(v) = E(Σ v_i ζ_i²)₊, is homogeneous: of H nothing is looked at but A.
"""

from __future__ import annotations

import math

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball
from icm.curvature import Power
from icm.rigour import Rigour
from icm.solvers.gauge import gauge
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.kink_needed import spectrum
from icm.theory.claims.orthogonalisation import form
from icm.theory.instances import POSITIVE, Draw, Instances, diagonal, spectra

_KNOWN = 1e-10  # relative error of J with room
_KINDS = tuple(kind for kind in POSITIVE if kind != "nearly equal")  # which take a search of their own, and long
_EPS = torch.finfo(torch.float64).eps


def _lefts(count: int, nearest: float) -> Draw:
    """Left slopes (size, count), 0 or below n min g by 10^−`nearest` of it at least; no claim here looks at H."""

    def generate(rng: Generator, size: int) -> Instances:
        n = int(rng.choice([2, 2, 3, 4, 6, 9]))
        g, names = spectra(rng, size, n, _KINDS)
        apart = torch.from_numpy(10 ** rng.uniform(-nearest, 0, (size, count)))
        left = n * g[:, -1:] * (1 - apart) * torch.from_numpy((rng.random((size, count)) < 0.8).astype(float))
        share = torch.from_numpy(rng.uniform(0.05, 0.95, size))
        return Instances(diagonal(g, n, n), Power(2.0), {"left": left, "share": share}, tuple(names))

    return generate


def threshold(case: Case, left: Tensor) -> tuple[Ball, Ball]:
    """(J(q), q): q = g − A/n (B, s, n) as floats, at the left slopes (B, s) below n min g; J (B, s) from below as its v
    proves it, from above with the measured error of `gauge` and of q."""
    g = spectrum(case).middle[:, None]
    q = g - left[..., None] / case.n
    flat = q.flatten(0, 1)
    found = gauge(flat)
    v = found.v / found.v.abs().amax(-1, keepdim=True)
    low = ((Ball.of(flat) * v).sum() / form(case, v)[0]).lower.view_as(left)
    high = found.jump.view_as(left) * (1 + _KNOWN + 2 * _EPS * g[..., -1] / q.amin(-1))
    rigour = Rigour.ENCLOSED if case.rigorous else Rigour.CERTIFIED
    return Ball.between(torch.minimum(low, high), high, rigour), Ball.of(q)


def _divergence(case: Case) -> Ball:
    """J(q) less its bound, over J. v = (1, …, 1, −M) has h(v) ≤ (4/3) c (1 − 1/(M+1))^{−1/2} (M+1)^{−1/2}.

    In balls J is known from below only, and the margin, which is at most 1, with it."""
    J, q = (found[:, 0] for found in threshold(case, case["left"]))
    half = case.n / 2
    c = math.exp(math.lgamma(half) - math.lgamma(half - 0.5)) / math.sqrt(math.pi) * (1 - 1e-14)
    bound = q[:, :-1].sum() ** 1.5 / ((3.0 * q[:, -1]).sqrt() * (2 * c))
    if not case.rigorous:
        return 1.0 - bound / J
    least = (1.0 - bound / Ball.of(J.lower)).lower
    return Ball.between(least, torch.ones_like(least))


def _below_end(case: Case) -> Tensor:
    return (case["left"] < case.n * spectrum(case).middle[:, -1:]).all(-1)


def _several(case: Case) -> bool:
    return case.m >= case.n >= 2


diverges = Claim(
    name="threshold-diverges",
    statement="For n ≥ 2 and A < n min g, B(A) ≥ A + (Σ_{i<n} (g_i − A/n))^{3/2}/(2c √(3(g_n − A/n))), "
    "c = Γ(n/2)/(√π Γ((n−1)/2)): B(A) → ∞ as A ↑ n g_n unless all g_i are equal.",
    latex=r"B(A) \ge A + \frac{\left(\sum_{i<n}(g_i - A/n)\right)^{3/2}}{2c\sqrt{3(g_n - A/n)}},\quad "
    r"c = \frac{\Gamma(n/2)}{\sqrt\pi\,\Gamma((n-1)/2)}",
    source="docs/theory.md, section 10, with v = (1, …, 1, −M) in (11)",
    hypotheses={"m ≥ n ≥ 2": _several, "A < n min g": _below_end},
    margin=_divergence,
    draw=_lefts(1, 6.0),
    batch=100,
    proof="threshold-diverges",
)


def _convexity(case: Case) -> Ball:
    """((1−s) B(A₁) + s B(A₂) − B(A₁ + s(A₂ − A₁))) over the largest of them (B,)."""
    left, s = case["left"], case["share"]
    middle = left[:, 0] + s * (left[:, 1] - left[:, 0])
    A = torch.cat([left, middle[:, None]], -1)
    B = threshold(case, A)[0] + A
    first, second, between = (B[:, i] for i in range(3))
    return (first * (1 - s) + second * s - between) / torch.maximum(first.middle, second.middle)


convex = Claim(
    name="orthogonal-region-convex",
    statement="B(A) is convex in A < n min g: the slopes (A, B) at which r̃UVᵀ is optimal form a convex region.",
    latex=r"B((1-s)A_1 + sA_2) \le (1-s)B(A_1) + sB(A_2)",
    source="docs/theory.md, section 10, (11): a maximum of functions affine in A",
    hypotheses={"m ≥ n ≥ 2": _several, "A < n min g": _below_end},
    margin=_convexity,
    draw=_lefts(2, 4.0),
    enclosable=False,  # an upper bound of B(A) is not to be had in balls
    batch=100,
    proof="orthogonal-region-convex",
)

CLAIMS = (diverges, convex)
