"""H = a r² + b r⁴, a, b ≥ 0: one formula, or one scalar equation.

E‖Qζ‖² = Σσ²/n and E‖Qζ‖⁴ = ((Σσ²)² + 2Σσ⁴)/(n(n+2)), so stationarity reads

    b = 0:   σ = n g / (2a)
    b > 0:   σ_i³ + D σ_i = n(n+2) g_i / (8b),    D = ½ Σ σ_j² + a(n+2)/(4b)          (Su, arXiv 2511.00674: a = 0)
"""

from __future__ import annotations

import torch
from torch import Tensor

from icm.curvature import Curvature, Power


def coefficients(H: Curvature) -> tuple[float, float] | None:
    """(a, b) if H = a r² + b r⁴ with a + b > 0, else None."""
    found = {2.0: 0.0, 4.0: 0.0}
    for part in H.parts:
        if not isinstance(part, Power) or part.exponent not in found:
            return None
        found[part.exponent] += part.scale
    a, b = found[2.0], found[4.0]
    return (a, b) if a + b > 0 else None


def solve_closed_form(g: Tensor, dim: int, a: float, b: float) -> tuple[Tensor, Tensor]:
    """σ* (B, k) for g (B, k), and the iterations (B,) of the scalar equation."""
    if b == 0:
        return dim * g / (2 * a), torch.zeros(len(g), dtype=torch.int64, device=g.device)
    rhs = g * (dim * (dim + 2) / (8 * b))
    unit = rhs.amax(-1, keepdim=True) ** (1 / 3)  # lengths in units in which the largest right-hand side is 1
    unit = unit.where(unit > 0, torch.ones_like(unit))
    rhs = rhs / unit**3
    base = a * (dim + 2) / (4 * b) / unit[:, 0].square()
    # excess(D) = ½Σσ(D)² + base − D is convex and decreasing, so Newton from the left climbs to its root.
    D = base.clone()
    iterations = 0
    while iterations < 100:
        iterations += 1
        sigma = _cubic(rhs, D)
        excess = 0.5 * sigma.square().sum(-1) + base - D
        # dσ/dD = −σ/(3σ² + D)
        slope = (sigma.square() / (3 * sigma.square() + D[:, None]).clamp(min=1e-300)).sum(-1) + 1
        D = D + excess / slope
        if bool((excess.abs() <= 4e-16 * D).all()):
            break
    return _cubic(rhs, D) * unit, torch.full((len(g),), iterations, dtype=torch.int64, device=g.device)


def _cubic(rhs: Tensor, D: Tensor) -> Tensor:
    """The root σ ≥ 0 of σ³ + Dσ = rhs ∈ [0, 1], D (B,) ≥ 0, by Newton's method from above (monotone)."""
    D = D[:, None]
    sigma = torch.minimum(rhs ** (1 / 3), torch.where(D > 0, rhs / D, torch.inf))
    for _ in range(60):
        step = (sigma * (sigma.square() + D) - rhs) / (3 * sigma.square() + D).clamp(min=1e-300)
        sigma = sigma - step
        if bool((step.abs() <= 2e-16 * sigma).all()):
            break
    return sigma
