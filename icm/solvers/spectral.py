"""The general solver of the reduced program: scale first, decide boundedness, then Newton.

A pure power c r^p is solved through its norm N(σ) = (E‖Qζ‖^p)^{1/p}: minimise ½N² − ⟨g, σ⟩, which is free of scale
and as well conditioned at p = 1.01 as at p = 10, then stretch the answer to length. Other H are solved in units of ‖g‖ and of the radius where H' balances it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature, Power
from icm.solvers.certificate import mean_length
from icm.solvers.newton import Local, minimise
from icm.sphere import expect


@dataclass(frozen=True, eq=False)
class NormDual:
    """N†(g) = max ⟨g, v⟩ / N(v) for N(v) = (E‖diag(v)ζ‖^p)^{1/p}: enclosed by lower and upper (B,), with a
    maximiser v (B, k) of N(v) = N†, and the iterations (B,)."""

    lower: Tensor
    upper: Tensor
    v: Tensor
    iterations: Tensor


def norm_dual(g: Tensor, dim: int, p: float, tol: float, max_iterations: int) -> NormDual:
    """The dual of N(v) = (E‖diag(v)ζ‖^p)^{1/p} at g (B, k) ≥ 0, not all zero, through min ½N² − ⟨g, v⟩ = −½N†²."""
    H = Power(p)

    def evaluate(v: Tensor, rows: Tensor) -> Local:
        e = expect(H, v, dim)
        # θ(f) = ½ f^{2/p}: θ' and θ''/θ'² for the rank-one term in ∇θ = θ'∇f.
        theta = 0.5 * e.value ** (2 / p)
        first = 2 * theta / (p * e.value)
        second = (2 / p - 1) * first / e.value
        return Local(
            theta,
            first[:, None] * e.slopes,
            first[:, None] * e.stiffness,
            4 * first / e.size,
            e.x,
            e.weight,
            e.bend,
            second / first.square(),
        )

    size = g.amax(-1, keepdim=True)
    g = g / size
    # Along g, the best length for a law concentrated at its mean: N(g)² ≈ ‖g‖²/n.
    start = expect(H, g, dim).value ** (2 / p)
    v = g * (g.square().sum(-1) / start)[:, None]
    kappa = mean_length(dim)
    reach = g.norm(dim=-1) / kappa**2
    v, iterations = minimise(evaluate, g, v, reach, tol, max_iterations)
    e = expect(H, v, dim)
    N = e.value ** (1 / p)
    gradient = (N**2 / (p * e.value))[:, None] * e.slopes
    residual = g - gradient
    error = (2 * e.error + 1e-15) * (g * v).sum(-1)
    gap = reach * residual.clamp(min=0).norm(dim=-1) - (residual * v).sum(-1) + error
    lower = (g * v).sum(-1) / N * (1 - 2 * e.error)
    upper = (2 * ((g * v).sum(-1) - 0.5 * N**2 + gap)).sqrt()
    size = size[:, 0]
    return NormDual(lower * size, upper * size, v * size[:, None], iterations)


def solve_power(g: Tensor, dim: int, H: Power, tol: float, max_iterations: int) -> tuple[Tensor, Tensor]:
    """σ* (B, k) for H = c r^p, p > 1, g not all zero; and the iterations (B,)."""
    p = H.exponent
    size = g.amax(-1)
    dual = norm_dual(g / size[:, None], dim, p, tol, max_iterations)
    # At the minimiser of ½N² − ⟨g, v⟩: ∇N^p = p N^{p−2} g, so c ℓ^{p−1} p N^{p−2} = ‖g‖ fixes the length ℓ.
    N = expect(Power(p), dual.v, dim).value ** (1 / p)
    length = (size / (H.scale * p) / N ** (p - 2)) ** (1 / (p - 1))
    return dual.v * length[:, None], dual.iterations


def solve_general(
    g: Tensor, dim: int, H: Curvature, reach: Tensor, tol: float, max_iterations: int, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """σ* (B, k) for any smooth H for which the program is bounded and σ* ≠ 0; and the iterations (B,)."""
    size = g.norm(dim=-1)
    direction = g / size[:, None]
    # A law concentrated at its mean has ‖Qζ‖ = ‖σ‖/√n and needs H' = √n ‖g‖ there.
    radius = H.radius_at_slope(math.sqrt(dim) * size)
    fallback = H.length_scale if math.isfinite(H.length_scale) else 1.0
    radius = torch.where(torch.isfinite(radius) & (radius > 0), radius, fallback)
    unit = math.sqrt(dim) * radius

    def evaluate(x: Tensor, rows: Tensor) -> Local:
        e = expect(H, x * unit[rows, None], dim)
        return Local(
            e.value / (size[rows] * unit[rows]),
            e.slopes / size[rows, None],
            e.stiffness * (unit / size)[rows, None],
            4 * unit[rows] / (size[rows] * e.size),
            e.x,
            e.weight,
            e.bend,
            torch.zeros_like(e.size),
        )

    x = direction if start is None else start / start.norm(dim=-1, keepdim=True)
    x, iterations = minimise(evaluate, direction, x, reach / unit, tol, max_iterations)
    return x * unit[:, None], iterations
