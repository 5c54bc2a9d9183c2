"""Densities, tails, hinges and kinks of the sphere, each by one contour integral (see `path`).

ζ is uniform on the unit sphere of R^n and s = Σ λ_i ζ_i². With z standard normal, ζ = z/‖z‖ and ‖z‖ are independent,
so a statement about s at the level u is one about the sign of Σ d_i z_i², d_i = λ_i − u, whose moment generating
function is M(τ) = Π (1 − 2τ d_i)^{−1/2}. With the integrals taken through τ₀ > 0 where the kernel has a pole at 0,

    E[ζ_i² δ(s−u)]   = (1/2πi) ∫ M/(1−2τd_i) dτ            E[ζ_i⁴ δ(s−u)] = (3/n)(1/2πi) ∫ M/(1−2τd_i)² dτ

    E (s−u)₊         = (1/n)(1/2πi) ∫ M τ^{−2} dτ          E[ζ_i² 1{s>u}] = (1/n)(1/2πi) ∫ M/(τ(1−2τd_i)) dτ

and for any ψ = h' that vanishes left of u and is analytic to its right, E h(s) and E[ψ(s) ζ_i²] are the last two with
Ψ(τ) = (n/2) ∫₀¹ (1−t)^{n/2−1} ψ(u + t/2τ) dt under the integral. A kink at the radius c = √u has ψ = 1/(2√s) there and

    Ψ = F/2c,    F = ₂F₁(½, 1; n/2+1; −1/(2c²τ)) = (1−ρ) Σ_j c_j ρ^j,    c_j = c_{j−1} (n/2−j)/(n/2+j),
    V = √(1 + 1/(2c²τ)),    ρ = (V−1)/(V+1),    Σ c_jρ^j = (n/2) ∫₀¹ ((1−p)(1+ρp))^{n/2−1} dp.

As ½(r−c)₊² = ½(s−u)₊ − c(r−c)₊, a jump of H'' costs no more: Ψ = ½(1−F).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from icm.sphere.path import Path, integrate
from icm.sphere.powers import Moments

_JACOBI = 60  # largest n for which S is integrated; above, its series is short
_NEAR = 0.1  # |ρ| below which it is short for every n
_PART = 2**15  # elements of d at a time while paths are laid

Shape = Literal["hinge", "kink", "rise"]


def densities(
    d: Float[Tensor, "rows k"], multiplicity: Float[Tensor, " k"], step: float = 0.25
) -> tuple[Float[Tensor, "rows k"], Float[Tensor, "rows k"]]:
    """E[ζ_i² δ(s−u)], E[ζ_i⁴ δ(s−u)] for rows of d_i = λ_i − u, each standing for `multiplicity` coordinates.

    Every row needs min d < 0 < max d. The first, summed over all n = Σ multiplicity coordinates, is the
    density of s. `step` is the first trapezoid step along the path; it is halved until converged.
    """
    n = float(multiplicity.sum())
    second, fourth = torch.empty_like(d), torch.empty_like(d)
    for part in torch.arange(len(d), device=d.device).split(_rows(d)):
        path = Path.through_saddle(d[part], multiplicity)
        _, second[part], fourth[part] = integrate(path, lambda *_: (0.0, 1.0, 3 / n), step)
    return second, fourth


def hinges(
    d: Float[Tensor, "rows k"],
    multiplicity: Float[Tensor, " k"],
    radius: Float[Tensor, " rows"],
    shape: Shape,
    step: float = 0.25,
    accuracy: float = 0.0,
) -> Moments:
    """E h(s), w_i = E[ψ(s)ζ_i²] and w'(λ_i) for h = (s−u)₊ ("hinge"), (√s−c)₊ ("kink") or ½(√s−c)₊² ("rise"), at rows
    of d_i = λ_i − u, u = c², c = `radius`, each d_i standing for `multiplicity` coordinates.

    Every row needs min d < 0 < max d. For "hinge" w_i summed over all coordinates is P(s > u). `accuracy`: a relative
    error of values and weights that will do, 0 for rounding alone.
    """
    n = float(multiplicity.sum())
    value, weight, bend = d.new_empty(len(d)), torch.empty_like(d), torch.empty_like(d)
    for part in torch.arange(len(d), device=d.device).split(_rows(d)):
        path, c = Path.through_saddle(d[part], multiplicity, pole=1.0), radius[part, None]

        def kernel(delta: Tensor, rows: Tensor, path: Path = path, c: Tensor = c) -> tuple[Tensor, Tensor, Tensor]:
            assert path.start is not None
            inverse = 1 / (path.start[rows] + path.width[rows] * delta)  # 1/τ
            if shape == "hinge":
                psi = torch.full_like(inverse, 1 / n)
            else:
                F, rest = _kink_kernel(inverse / (2 * c[rows].square()), n, accuracy)
                psi = F / (2 * n * c[rows]) if shape == "kink" else rest / (2 * n)
            return psi * inverse.square(), psi * inverse, 2 * psi

        growth: Tensor | float = 0.0
        if shape == "kink" and path.start is not None:
            growth = (1 / (2 * c.square() * path.start)).squeeze(-1).log1p() / 2  # F rises like √τ, to 1
        value[part], weight[part], bend[part] = integrate(path, kernel, step, growth, accuracy)
    return Moments(value, weight, bend)


def _rows(d: Tensor) -> int:
    return max(1, (2**22 if d.is_cuda else _PART) // d.shape[1])


def _kink_kernel(x: Tensor, n: float, accuracy: float = 0.0) -> tuple[Tensor, Tensor]:
    """F and 1 − F at complex x = 1/(2c²τ)."""
    V = (1 + x).sqrt()
    rho = x / (V + 1).square()
    if n > _JACOBI:
        # c_j ≈ e^{−2j²/n} and |ρ| < 1
        digits = 4.6 if accuracy <= 0 else min(4.6, math.sqrt(-math.log(accuracy) / 2))
        S, T = _series(rho, n, int(digits * n**0.5) + 4)
    else:
        p, w = (torch.as_tensor(a, device=x.device) for a in _jacobi(int(n)))
        log = torch.log(1 + rho.unsqueeze(-1) * p)
        S = ((n / 2 - 1) * log).exp() @ w.to(x.dtype)
        near = rho.abs() < _NEAR
        S_near, T_near = _series(rho.where(near, 0.0), n, 18)
        T = torch.where(near, T_near, (S - 1) / rho.where(~near, 1.0))
        S = torch.where(near, S_near, S)
    F = 2 / (1 + V) * S
    return F, rho * (S - T)


def _series(rho: Tensor, n: float, terms: int) -> tuple[Tensor, Tensor]:
    """S = Σ c_j ρ^j and (S − 1)/ρ by Horner's rule on S_j = 1 + ρ (n/2−j)/(n/2+j) S_{j+1}."""
    S = torch.ones_like(rho)
    T = S
    for j in range(terms, 0, -1):
        T = (n / 2 - j) / (n / 2 + j) * S
        S = 1 + rho * T
    return S, T


@cache
def _jacobi(n: int) -> tuple:
    """Nodes p in (0, 1) and weights of (n/2) ∫₀¹ (1−p)^{n/2−1} f(p) dp, exact to degree 79."""
    from scipy.special import roots_jacobi

    y, w = roots_jacobi(40, n / 2 - 1, 0.0)
    return (1 + y) / 2, w / w.sum()
