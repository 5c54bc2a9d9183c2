"""H = a r² + b r⁴: one scalar equation in D gives every singular value."""

from __future__ import annotations

from numpy.random import Generator

from icm.ball import Ball
from icm.curvature import Curvature, Power
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.curvatures import scale
from icm.theory.instances import draw


def coefficients(H: Curvature) -> dict[float, float] | None:
    """{2: a, 4: b} of H = a r² + b r⁴, b > 0; None for any other H."""
    found = {2.0: 0.0, 4.0: 0.0}
    for part in H.parts:
        if not isinstance(part, Power) or part.exponent not in found:
            return None
        found[part.exponent] += part.scale
    return found if found[4.0] > 0 else None


def alone(case: Case) -> bool:
    """H = c r⁴."""
    found = coefficients(case.H)
    return found is not None and found[2.0] == 0


def deviation(case: Case, half: float = 0.5) -> Ball:
    """max |8b(σ_i³ + Dσ_i)/(n(n+2)) − g_i| over max g, D = ½Σσ² + a(n+2)/(4b), with `half` for the ½."""
    found = coefficients(case.H) or {2.0: 0.0, 4.0: 1.0}
    n, a, b = case.n, *(Ball.of(found[p]) for p in (2.0, 4.0))
    sigma, g = case.sigma, case.g
    # 8b/(n(n+2)) (σ³ + Dσ) without the division of a by b.
    cubic = 8.0 * b / (n * (n + 2.0)) * (sigma * sigma * sigma + half * (sigma * sigma).sum()[:, None] * sigma)
    linear = 2.0 * a / float(n) * sigma
    return ((cubic + linear - g).abs() / g.middle.amax(-1, keepdim=True)).amax(-1)


def fourth(rng: Generator) -> Curvature:
    """c r⁴."""
    return Power(4.0, scale(rng))


def second_and_fourth(rng: Generator) -> Curvature:
    """a r² + b r⁴."""
    return Power(2.0, scale(rng)) + Power(4.0, scale(rng))


quartic = Claim(
    name="quartic",
    statement="For H = c r⁴, σ_i³ + Dσ_i = n(n+2)g_i/(8c) with D = ½Σσ_j².",
    latex=r"H = c r^4 \implies \sigma_i^3 + D\sigma_i = \frac{n(n+2)}{8c}\,g_i, \qquad D = \tfrac12 \sum_j \sigma_j^2",
    source="Su, arXiv 2511.00674, the example H = r⁴; docs/theory.md, equation (4)",
    equality=True,
    hypotheses={"H is c r⁴": alone, "solved": lambda case: case.usable},
    margin=deviation,
    draw=draw(fourth, decades=6.0),
    proof="quartic",
)

quartic_with_square = Claim(
    name="quartic-with-square",
    statement="For H = a r² + b r⁴, σ_i³ + Dσ_i = n(n+2)g_i/(8b) with D = ½Σσ_j² + a(n+2)/(4b).",
    latex=r"H = a r^2 + b r^4 \implies \sigma_i^3 + D\sigma_i = \frac{n(n+2)}{8b}\,g_i, \qquad "
    r"D = \tfrac12 \sum_j \sigma_j^2 + \frac{a(n+2)}{4b}",
    source="docs/theory.md, equation (4)",
    equality=True,
    hypotheses={
        "H is a r² + b r⁴, b > 0": lambda case: coefficients(case.H) is not None,
        "solved": lambda case: case.usable,
    },
    margin=deviation,
    draw=draw(second_and_fourth, decades=6.0),
    proof="quartic-with-square",
)

CLAIMS = (quartic, quartic_with_square)
