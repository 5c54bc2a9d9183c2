"""Curvatures of the library nearest to measured values, in relative least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from icm.curvature import Curvature, Power, Tabulated
from icm.errors import InputError

Kind = Literal["power", "quadratic+power", "tabulated"]

_STEEPEST = 12.0  # exponents tried
_TRIES = 111


@dataclass(frozen=True)
class Fit:
    """A curvature and how far it is from what was measured: the root mean square of H(r)/measured − 1."""

    curvature: Curvature
    distance: float


def fit(radii: Float[Tensor, " k"], values: Float[Tensor, " k"], kind: Kind | str) -> Fit:
    """The H of a kind nearest to values > 0 at radii > 0, argmin Σ (H(r_i)/v_i − 1)².

    kind: "power", c r^p, p in [1, 12]; "quadratic+power", a r² + b r^p, a, b ≥ 0; "tabulated", the convex nondecreasing
    interpolant of the nearest values there are. Raises InputError for another kind and for too few radii (two for a
    power, three for two).
    """
    if kind not in get_args(Kind):
        raise InputError(f"kind={kind!r} is unknown; choose one of {', '.join(get_args(Kind))}")
    least = {"power": 2, "quadratic+power": 3, "tabulated": 1}[kind]
    if len(radii) < least:
        raise InputError(
            f"a curvature of kind {kind!r} takes {least} radii where H is positive and clear of rounding, and there "
            f"are {len(radii)}; measure more, or take another kind"
        )
    H = _tabulated(radii, values) if kind == "tabulated" else _powers(radii, values, kind == "quadratic+power")
    return Fit(H, float((H(radii) / values - 1).square().mean().sqrt()))


def _tabulated(radii: Tensor, values: Tensor) -> Curvature:
    """Through the nearest values Σ_k c_k (r − r_k)₊, c ≥ 0: what convex nondecreasing H with H(0) = 0 can take."""
    order = radii.argsort()
    x, v = radii[order], values[order]
    knots = torch.cat([x.new_zeros(1), x[:-1]])
    hinges = (x[:, None] - knots).clamp(min=0) / v[:, None]
    length = hinges.norm(dim=0)
    c = torch.tensor(_nonnegative(hinges / length)[1], dtype=torch.float64) / length
    return Tabulated(x.tolist(), (v * (hinges @ c)).tolist(), project=True)


def _powers(radii: Tensor, values: Tensor, quadratic: bool) -> Curvature:
    """c r^p, or a r² + b r^p: p on a grid, then between its neighbours; coefficients by nonnegative least squares."""
    from scipy.optimize import minimize_scalar

    height = radii.amax()
    x, weight = radii / height, 1 / values

    def solved(p: float) -> tuple[float, list[float]]:
        columns = [x**p] if not quadratic else [x**2, x**p]
        return _nonnegative(torch.stack([c * weight for c in columns], -1))

    grid = torch.linspace(1, _STEEPEST, _TRIES, dtype=torch.float64).tolist()
    best = min(range(len(grid)), key=lambda i: solved(grid[i])[0])
    ends = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    found: Any = minimize_scalar(lambda q: solved(float(q))[0], bounds=ends, method="bounded", options={"xatol": 1e-12})
    p = float(found.x)
    p = min((grid[best], p), key=lambda q: solved(q)[0])
    weights = solved(p)[1]
    powers = [2.0, p] if quadratic else [p]
    terms = [Power(q, scale=float(c * height**-q)) for q, c in zip(powers, weights, strict=True) if c > 0]
    H: Curvature = terms[0]
    for term in terms[1:]:
        H = H + term
    return H


def _nonnegative(A: Tensor) -> tuple[float, list[float]]:
    """min ‖A c − 1‖² over c ≥ 0, for columns ≥ 0: its value and c."""
    from scipy.optimize import nnls

    c, residual = nnls(A.numpy(), torch.ones(len(A), dtype=torch.float64).numpy())
    return float(residual), c.tolist()
