"""Fewer outputs than inputs: no finite H orthogonalises, and how far from orthogonal its updates stay.

For k < n positive singular values ‖c UVᵀζ‖²/c² has a Beta(k/2, (n−k)/2) law without an atom, so that f is
differentiable at c UVᵀ and stationarity asks for equal g_i. Beside a kink the law's end at 1 decides how far σ* is from
flat.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from scipy.special import betainc
from torch import Tensor

from icm.arrays import to_tensor
from icm.ball import Ball, stack
from icm.curvature import Curvature, Kink, Power
from icm.errors import InputError
from icm.rigour import Rigour
from icm.solvers import solve
from icm.sphere import expect
from icm.theory import rigorous
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.kink_needed import around, beside, flat, spectrum, unequal
from icm.theory.instances import Instances, diagonal

_WIDE = ((2, 3), (2, 4), (3, 4), (2, 9), (3, 9), (4, 6), (5, 6), (8, 12))
_SQUARE = ((3, 3), (5, 5), (6, 4), (8, 8))
_TAIL = 1e-11  # relative error of the incomplete beta function in float64, with room


def steep(rng: Generator) -> Curvature:
    """a r² and a kink of any size at a radius near 1."""
    jump = float(f"{10 ** rng.uniform(-1, 4):.4g}")
    return Power(2.0, float(f"{10 ** rng.uniform(-1, 1):.4g}")) + Kink(
        float(f"{10 ** rng.uniform(-0.5, 0.5):.4g}"), jump
    )


def _draw(rng: Generator, size: int) -> Instances:
    zeros = rng.random() < 0.3
    shapes = _SQUARE if zeros else _WIDE
    m, n = shapes[rng.integers(len(shapes))]
    H = steep(rng)
    c = H.kinks[0][0] * torch.from_numpy(1 + rng.choice([-1.0, 1.0, 1.0], size) * 10 ** rng.uniform(-3, -0.3, size))
    return around(rng, H, c, m, n, zeros)


def _fewer(case: Case) -> Tensor:
    return (spectrum(case).middle > 0).sum(-1) < case.n


never = Claim(
    name="wide-never-orthogonal",
    statement="With fewer than n positive singular values, not all equal, c·UVᵀ is optimal for no c and no finite H, "
    "however large its kinks: beside it F falls along g − ∇f at no less than half of the rate ‖g − ∇f‖².",
    latex=r"\#\{i : g_i > 0\} < n,\ g \ne g_1 \mathbf{1} \implies F(c\,UV^\top) > F^*\ \text{for every}\ c",
    source="the law of ‖UVᵀζ‖², docs/theory.md, section 10",
    hypotheses={
        "H is finite": lambda case: math.isinf(case.H.wall),
        "fewer than n positive singular values": _fewer,
        "g not all equal": unequal,
    },
    margin=lambda case: beside(case, flat(case)),
    draw=_draw,
    proof="wide-never-orthogonal",
)


def pair(case: Case) -> tuple[Ball, Ball]:
    """(g, σ): the drawn σ with the gradient g = ∇f(σ) that it is the optimum for, or what was solved."""
    if "sigma" not in case.instances.extra:
        return case.g, case.sigma
    return case.slopes(case["sigma"]), Ball.of(case["sigma"])


def _parts(H: Curvature) -> tuple[float, float, float]:
    """(a, r̃, J) of H = a r² + J (r − r̃)₊."""
    a = sum(part.scale for part in H.parts if isinstance(part, Power))
    (radius, jump), *_ = H.kinks
    return a, radius, jump


def _one_kink(case: Case) -> bool:
    powers = [part for part in case.H.parts if isinstance(part, Power) and part.exponent == 2]
    return len(case.H.kinks) == 1 and len(powers) + 1 == len(case.H.parts)


def _beside_kink(rng: Generator, size: int) -> Instances:
    """σ = r̃(1 + ε y) with ε near the J^{−2/(n−m)} at which the kink and a gradient of the slope there balance."""
    pool = [(m, n) for m, n in ((2, 4), (2, 5), (3, 5), (2, 9), (3, 9), (4, 6), (8, 12), (6, 8)) if n - m >= 2]
    m, n = pool[rng.integers(len(pool))]
    H = steep(rng)
    _, radius, jump = _parts(H)
    unit = min(1.0, jump ** (-2 / (n - m)))
    epsilon = unit * 10 ** rng.uniform(-1.5, 0.5, (size, 1))
    y = np.sort(rng.uniform(-0.3, 1, (size, m)) ** rng.choice([1, 3], (size, 1)))[:, ::-1]
    sigma = torch.from_numpy(radius * (1 + epsilon * np.clip(y, -0.9, None)))
    G = diagonal(expect(H, sigma, n).slopes, m, n)
    return Instances(G, H, {"sigma": sigma})


def spread(case: Case) -> Ball:
    """σ₁/σ_m − 1 less its bound, over itself (B,).

    g_i = 2σ_i w_i and w_1 − w_m = 2(λ_1 − λ_m) E[φ″(s)ζ_1²ζ_m²], φ(s) = H(√s), λ = σ². The kink's part of φ″ is
    J/(2r̃) δ(s − r̃²), less what is positive, and the density of s there at most b(r̃²/σ_1²)/λ_m with b that of
    Beta(m/2, (n−m)/2), which is at most (1 − x)^{(n−m)/2−1}/B(m/2, (n−m)/2) for m ≥ 2. With ζ_1²ζ_m² ≤ ¼.
    """
    g, sigma = pair(case)
    _, radius, jump = _parts(case.H)
    first, last = sigma[:, 0], sigma[:, -1]
    a, b = case.m / 2, (case.n - case.m) / 2
    ratio = radius / first
    end = (1.0 - ratio * ratio).clamp(0.0)
    largest = end ** (b - 1) if b > 1 else Ball.of((end.upper > 0).double())
    scale = jump / (2 * radius) * math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) * (1 + 1e-13)
    stiff = largest * (scale * first * (first + last) / last)
    bound = (g[:, 0] - g[:, -1]) / (g[:, -1] + stiff)
    found = first / last - 1.0
    return (found - bound) / Ball.of(found.middle.clamp(min=1e-300))


def _spread_known(case: Case) -> Tensor:
    _, sigma = pair(case)
    return sigma.middle[:, 0] - sigma.middle[:, -1] > 1e-9 * sigma.middle[:, 0]


width = Claim(
    name="wide-distance",
    statement="For H = a r² + J (r − r̃)₊ and 2 ≤ m ≤ n − 2: σ*_1/σ*_m − 1 ≥ (g_1 − g_m)/(g_m + D), "
    "D = J σ_1(σ_1 + σ_m)/(2 r̃ σ_m) · ((1 − r̃²/σ_1²)₊)^{(n−m)/2 − 1}/B(m/2, (n−m)/2).",
    latex=r"\frac{\sigma^*_1}{\sigma^*_m} - 1 \ge \frac{g_1 - g_m}{g_m + D},\quad D = "
    r"\frac{J\sigma_1(\sigma_1+\sigma_m)}{2\tilde r\sigma_m}\,"
    r"\frac{(1 - \tilde r^2/\sigma_1^2)_+^{(n-m)/2-1}}{\mathrm{B}(\frac m2, \frac{n-m}2)}",
    source="a bound on the density of ‖Qζ‖ at the kink, here",
    hypotheses={
        "H is a r² with one kink": _one_kink,
        "2 ≤ m ≤ n − 2": lambda case: 2 <= case.m <= case.n - 2,
        "σ not flat": _spread_known,
    },
    margin=spread,
    draw=_beside_kink,
    proof="wide-distance",
)


def _tail(case: Case, x: Ball) -> Ball:
    """P(‖ωζ‖² > x) (B,) for m orthonormal rows ω: Beta((n−m)/2, m/2) below 1 − x."""
    a, b = (case.n - case.m) / 2, case.m / 2
    end = (1.0 - x).clamp(0.0)

    def below(y: Tensor) -> Tensor:
        return torch.from_numpy(betainc(a, b, y.clamp(0, 1).numpy()))

    if not case.rigorous:
        found = end.increasing(below, _TAIL)
        return Ball(found.middle, found.radius, min(found.rigour, Rigour.CERTIFIED))
    from flint import arb

    proven = [
        rigorous.each_row(y.clamp(0, 1)[:, None], lambda row: [arb(float(row[0])).beta_lower(a, b, regularized=True)])
        for y in (end.lower, end.upper)
    ]
    return Ball.between(proven[0].lower[:, 0], proven[1].upper[:, 0], min(end.rigour, Rigour.ENCLOSED))


def held(case: Case) -> Ball:
    """The kink's share of ⟨g, σ⟩ = E[H′(r) r] between its two bounds (B,), relative to ⟨g, σ⟩."""
    g, sigma = pair(case)
    a, radius, jump = _parts(case.H)
    first, last = sigma[:, 0], sigma[:, -1]
    total = (g * sigma).sum()
    kink = total - (sigma * sigma).sum() * (2.0 * Ball.of(a) / float(case.n))
    low = _tail(case, (radius / last) ** 2) * jump * radius
    high = _tail(case, (radius / first) ** 2) * first * jump
    return stack([kink - low, high - kink]).amin(-1) / total


radius_law = Claim(
    name="wide-radius",
    statement="For H = a r² + J (r − r̃)₊ and m < n: J r̃ P(b > r̃²/σ*_m²) ≤ ⟨g, σ*⟩ − 2a‖σ*‖²/n ≤ "
    "J σ*_1 P(b > r̃²/σ*_1²), b ~ Beta(m/2, (n−m)/2): σ*_m is at most, and σ*_1 at least, r̃ plus the order of "
    "J^{−2/(n−m)}.",
    latex=r"J\tilde r\,P(b > \tilde r^2/\sigma_m^{*2}) \le \langle g,\sigma^*\rangle - \tfrac{2a}{n}\|\sigma^*\|^2 "
    r"\le J\sigma^*_1\,P(b > \tilde r^2/\sigma_1^{*2}),\quad b \sim \mathrm{Beta}(\tfrac m2, \tfrac{n-m}2)",
    source="the law of ‖UVᵀζ‖², here",
    hypotheses={"H is a r² with one kink": _one_kink, "m < n": lambda case: case.m < case.n},
    margin=held,
    draw=_beside_kink,
    proof="wide-radius",
)


def distance(m: int, n: int, jump: float, g: Any) -> Tensor:
    """‖Q*/‖Q*‖_F − P/‖P‖_F‖_F (…), P the polar factor of G, for H = ½r² + jump·(r − 1)₊ and m × n gradients with the
    singular values g (…, min(m, n)) > 0: 0 where the update is orthogonal, √2 at most.

    For m < n it falls like jump^{−2/(n−m)}, and never to 0 unless all g are equal; for m ≥ n it is 0 from a finite jump
    on if n min g > 1. Raises InputError for a g that is not of this kind.
    """
    values = to_tensor(g, "g").double()
    k = min(m, n)
    if not values.ndim or values.shape[-1] != k or not bool((values > 0).all()):
        raise InputError(f"g has shape {tuple(values.shape)}: give {k} singular values > 0")
    rows = values.sort(-1, descending=True).values.reshape(-1, k)
    sigma = solve(diagonal(rows, k, n), Power(2.0, 0.5) + Kink(1.0, jump), on_failure="return").sigma
    apart = sigma / sigma.norm(dim=-1, keepdim=True) - 1 / math.sqrt(k)
    return apart.norm(dim=-1).reshape(values.shape[:-1])


CLAIMS = (never, width, radius_law)
