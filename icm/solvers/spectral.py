"""The general solver of the reduced program: scale first, decide boundedness, then Newton.

A pure power c r^p is solved through its norm N(σ) = (E‖Qζ‖^p)^{1/p}: minimise ½N² − ⟨g, σ⟩, which is free of scale
and as well conditioned at p = 1.01 as at p = 10, then stretch the answer to length. Other H
are solved in units of ‖g‖ and of the radius where H' balances it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature, Power
from icm.solvers.certificate import mean_length
from icm.solvers.newton import Local, minimise
from icm.sphere import expect, power_error


@dataclass(frozen=True, eq=False)
class NormDual:
    """N†(g) = max ⟨g, v⟩ / N(v) for N(v) = (E‖diag(v)ζ‖^p)^{1/p}: enclosed by lower and upper (B,), with a
    maximiser v (B, k), its own length N(v) (B,), which is N† too, and the iterations (B,)."""

    lower: Tensor
    upper: Tensor
    length: Tensor
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
    reach = g.norm(dim=-1) / mean_length(dim) ** 2
    # ½N² is homogeneous of degree 2, so Newton's first step from c·g does not depend on c; n suits a flat spectrum.
    found = minimise(evaluate, g, dim * g, reach, tol, max_iterations)
    v = found.x
    along, N = (g * v).sum(-1), (2 * found.value).sqrt()
    residual = g - found.gradient
    error = 2 * power_error(p) + 1e-15
    gap = reach * (residual.clamp(min=0).norm(dim=-1) + error * found.gradient.norm(dim=-1)) - (residual * v).sum(-1)
    size = size[:, 0]
    return NormDual(
        lower=size * along / N * (1 - error),
        upper=size * (2 * (along - found.value + gap + error * along)).sqrt(),
        length=size * N,
        v=v * size[:, None],
        iterations=found.iterations,
    )


def solve_power(g: Tensor, dim: int, H: Power, tol: float, max_iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """σ* (B, k) for H = c r^p, p > 1, g not all zero; a bound (B,) of ‖σ*‖₂; and the iterations (B,)."""
    p = H.exponent
    size = g.amax(-1)
    # A relative gap δ in ½N² is one of δ p/(p−1) or less in the value of the power itself.
    dual = norm_dual(g / size[:, None], dim, p, tol * (p - 1) / p, max_iterations)
    # At the minimiser of ½N² − ⟨g, v⟩: ∇N^p = p N^{p−2} g, so c ℓ^{p−1} p N^{p−2} = ‖g‖ fixes the length ℓ.
    length = (size / (H.scale * p) / dual.length ** (p - 2)) ** (1 / (p - 1))
    # N(σ*) = (N†/(c p))^{1/(p−1)}, and N(σ) ≥ E‖diag(σ)ζ‖ ≥ κ_n ‖σ‖₂.
    rho = (size * dual.upper / (H.scale * p)) ** (1 / (p - 1)) / mean_length(dim)
    return dual.v * length[:, None], rho, dual.iterations


def solve_general(
    g: Tensor, dim: int, H: Curvature, start: Tensor | None, reach: Tensor, tol: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """σ* (B, k) for any smooth H for which the program is bounded and σ* ≠ 0, from `start` (B, k) or a guess; and
    the iterations (B,)."""
    size = g.norm(dim=-1)
    direction = g / size[:, None]
    if start is None:
        # A law concentrated at its mean has ‖Qζ‖ = ‖σ‖/√n and needs H' = √n ‖g‖ there.
        radius = H.radius_at_slope(math.sqrt(dim) * size)
        fallback = H.length_scale if math.isfinite(H.length_scale) else 1.0
        radius = torch.where(torch.isfinite(radius) & (radius > 0), radius, fallback)
        start = direction * (math.sqrt(dim) * radius)[:, None]
    unit = start.norm(dim=-1)

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

    found = minimise(evaluate, direction, start / unit[:, None], reach / unit, tol, max_iterations)
    return found.x * unit[:, None], found.iterations
