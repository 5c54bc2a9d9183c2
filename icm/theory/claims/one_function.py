"""Stationarity: one function R carries the optimum's singular values to the gradient's, g_i = σ_i R(σ_i²)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball
from icm.curvature import Curvature, Power
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.curvatures import power, scale, smooth
from icm.theory.instances import POSITIVE, Draw, Instances, draw

Extra = Callable[[Generator, Instances], Mapping[str, Tensor]]


_ROUNDED = 1e-14  # relative, with room: what rounding p − 2 does to r^(p−2) within a factor e^40 of 1


def weights(H: Curvature) -> list[tuple[Ball, Power | None]] | None:
    """ψ(s) = H′(√s)/(2√s) at s = r² as Σ factor·r^(p−2), None for r⁰; None if H is no sum of such powers, p − 2 = 0 or
    at least 1."""
    found: list[tuple[Ball, Power | None]] = []
    for part in H.parts:
        if not isinstance(part, Power) or (part.exponent != 2 and part.exponent < 3):
            return None
        factor = 0.5 * Ball.of(part.exponent) * part.scale
        factor = Ball(factor.middle, factor.radius + _ROUNDED * factor.middle, factor.rigour)
        found.append((factor, None if part.exponent == 2 else Power(part.exponent - 2)))
    return found


def R(case: Case, x: Tensor) -> Ball:
    """R(x²) = (2/n) E ψ((1−B)s + Bx²) (B, q) at points x (B, q) ≥ 0, for the law of s at the optimum.

    B ~ Beta(1, n/2) is the length of two of the n + 2 coordinates of a uniform vector: the mean is that of ψ for the
    singular values (σ, x, x) in dimension n + 2. It is taken from means of powers, or as the sum of all n + 2 weights
    E[ψζ_i²] = ∂f/∂σ_i/2σ_i, for which every singular value has to be positive, and n of them.
    """
    sigma, (size, count) = case.sigma.middle, x.shape
    longer = torch.cat([sigma[:, None, :].expand(-1, count, -1), x[:, :, None].expand(-1, -1, 2)], -1).flatten(0, 1)
    terms = weights(case.H)
    if terms is None:
        slopes = case.slopes(longer, dim=case.n + 2)
        total = (slopes / (2.0 * Ball.of(longer))).sum()
    else:
        total = Ball.of(torch.zeros(len(longer), dtype=torch.float64))
        for factor, term in terms:
            total = total + (factor if term is None else factor * case.mean(longer, term, dim=case.n + 2))
    total = Ball(total.middle.reshape(size, count), total.radius.reshape(size, count), total.rigour)
    known = case.usable[:, None].expand(size, count)
    return 2.0 / Ball.of(float(case.n)) * Ball(total.middle, total.radius.where(known, torch.inf), total.rigour)


def reachable(case: Case) -> Tensor:
    """Where `R` can be evaluated: (σ, x, x) fills all n + 2 coordinates, or ψ is a sum of powers."""
    if weights(case.H) is not None:
        return torch.ones(len(case), dtype=torch.bool)
    return (case.sigma.middle > 0).all(-1) & (case.k == case.n)


def deviation(case: Case) -> Ball:
    """max |g_i − σ_iR(σ_i²)| over max g."""
    there = case.sigma * R(case, case.sigma.middle)
    return ((case.g - there).abs() / case.g.middle.amax(-1, keepdim=True)).amax(-1)


def powers(rng: Generator) -> Curvature:
    """Powers whose ψ is a power with exponent ≥ 1 or a constant, and sums of them."""
    H = power(rng, 3.0, 10.6)
    return H if rng.random() < 0.4 else Power(2.0, scale(rng)) + H


def within_reach(other: Callable[[Generator], Curvature], extra: Extra | None = None) -> Draw:
    """Instances whose R can be evaluated: powers as above in any shape, or an `other` H with n positive singular
    values."""
    for_powers = draw(powers, extra=extra)
    for_others = tuple(draw(other, shapes=shapes, kinds=POSITIVE, extra=extra) for shapes in ("tall", "square"))

    def generate(rng: Generator, size: int) -> Instances:
        kind = int(rng.integers(4))
        return (for_powers if kind < 2 else for_others[kind - 2])(rng, size)

    return generate


one_function = Claim(
    name="one-function",
    statement="At the optimum g_i = σ_i R(σ_i²) with one function R for the whole spectrum, "
    "R(x) = (2/n) E ψ((1−B)s + Bx), B ~ Beta(1, n/2) independent of s.",
    latex=r"g_i = \sigma_i R(\sigma_i^2), \qquad R(x) = \tfrac{2}{n}\,\mathbb{E}\,\psi((1-B)s + Bx), \quad "
    r"B \sim \mathrm{Beta}(1, n/2)",
    source="docs/theory.md, equation (3)",
    equality=True,
    hypotheses={
        "solved": lambda case: case.usable,
        "no wall or kink holds σ*": lambda case: case.stationary,
        "R is within reach": reachable,
    },
    margin=deviation,
    draw=within_reach(smooth),
    proof="one-function",
)

CLAIMS = (one_function,)
