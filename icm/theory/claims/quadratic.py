"""H = c r²: the optimum is the gradient itself, Q* = nG/(2c)."""

from __future__ import annotations

import torch
from numpy.random import Generator

from icm.ball import Ball, stack
from icm.curvature import Curvature, Power
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.curvatures import scale
from icm.theory.instances import draw


def parabola(rng: Generator) -> Curvature:
    """c r²."""
    return Power(2.0, scale(rng))


def is_parabola(case: Case) -> bool:
    """H = c r², c > 0."""
    return isinstance(case.H, Power) and case.H.exponent == 2 and case.H.scale > 0


def deviation(case: Case) -> Ball:
    """The larger of max |σ_i − n g_i/(2c)| over σ₁ and ‖Q − nG/(2c)‖_F over ‖Q‖_F, Q as the solver gives it.

    F(Q) − F* = (c/n) ‖Q − Q*‖_F² says how far its Q may be from Q*."""
    factor = case.n / (2.0 * Ball.of(float(getattr(case.H, "scale", 1.0))))
    sigma, Q = case.sigma, case.solution.Q.nan_to_num(0.0)
    spectral = ((sigma - factor * case.g).abs() / sigma.middle[:, :1]).amax(-1)
    length = torch.linalg.matrix_norm(Q)
    size = length.where(length > 0, 1.0)
    apart = (Ball.of(Q) - factor * case.G) / size[:, None, None]
    away = (2.0 * factor * (case.objective(Q) - case.optimum).clamp(0.0)).sqrt() / size
    distance = (apart * apart).sum().sum().sqrt()
    whole = Ball(distance.middle, distance.radius + away.upper, min(distance.rigour, away.rigour))
    return stack([spectral, whole]).amax(-1)


quadratic = Claim(
    name="quadratic",
    statement="For H = c r² the optimum is Q* = nG/(2c), the gradient itself.",
    latex=r"H = c r^2 \implies Q^* = \frac{n}{2c}\,G",
    source="docs/theory.md, section 3",
    equality=True,
    hypotheses={"H is c r²": is_parabola},
    margin=deviation,
    draw=draw(parabola, rotated=True, decades=6.0),
    proof="quadratic",
    resolution=1e-5,
)

CLAIMS = (quadratic,)
