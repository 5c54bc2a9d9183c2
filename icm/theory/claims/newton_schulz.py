"""The optimum's map on singular values is increasing; Newton–Schulz steps as Muon takes them are not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, norm
from icm.curvature import Power
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.convexity import any_curvature
from icm.theory.claims.one_function import R, reachable, within_reach
from icm.theory.evidence import Expected
from icm.theory.instances import Instances, draw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def points(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Two numbers x ≤ y per instance, over σ₁: apart, close, decades below or above the spectrum."""
    y = 10 ** rng.uniform(-4, 1, len(made))
    near = 1 - 10 ** rng.uniform(-12, -1, len(made))
    x = y * near.clip(0, 1) * (rng.uniform(0, 1, len(made)) if rng.random() < 0.5 else 1.0)
    return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}


def rise(case: Case) -> Ball:
    """yR(y²) − xR(x²) over yR(y²) at x and y times σ₁, 1 where both are 0."""
    at = torch.stack([case["x"], case["y"]], -1) * case.sigma.middle[:, :1]
    image = at * R(case, at)
    return 1.0 - image[:, 0] / image[:, 1]


map_monotone = Claim(
    name="map-monotone",
    statement="x R(x²) is nondecreasing for every H, so that g ↦ σ* acts on all singular values as one increasing "
    "function: a polynomial or a table that stands for it should increase as well.",
    latex=r"x \le y \implies x R(x^2) \le y R(y^2)",
    source="docs/theory.md, section 3",
    hypotheses={
        "solved": lambda case: case.usable,
        "R is within reach": reachable,
        "0 < x ≤ y": lambda case: (case["x"] > 0) & (case["x"] <= case["y"]),
    },
    margin=rise,
    draw=within_reach(any_curvature, points),
    proof="map-monotone",
)


def newton_schulz(x: Ball, steps: int = STEPS, coefficients: tuple[float, float, float] = COEFFICIENTS) -> Ball:
    """x ↦ ax + bx³ + cx⁵, `steps` times."""
    a, b, c = coefficients
    for _ in range(steps):
        square = x * x
        x = x * (a + square * (b + c * square))
    return x


def kept_order(case: Case) -> Ball:
    """The least rise of the iterated polynomial from one singular value of G/‖G‖_F to the next larger one."""
    g = case.spectrum(case.G)
    image = newton_schulz(g / norm(g)[:, None])
    return (image[:, :-1] - image[:, 1:]).amin(-1)


newton_schulz_monotone = Claim(
    name="newton-schulz-monotone",
    statement="Five Newton–Schulz steps x ↦ 3.4445x − 4.7750x³ + 2.0315x⁵ on G/‖G‖_F keep the order of its singular "
    "values, as every optimum of the program does.",
    latex=r"p(x) = 3.4445x - 4.7750x^3 + 2.0315x^5, \quad "
    r"0 \le x \le y \le 1 \implies p^{\circ 5}(x) \le p^{\circ 5}(y)",
    source="the coefficients: Jordan et al., Muon, 2024, and torch.optim.Muon; order: Su, arXiv 2511.00674, Theorem 1",
    expected=Expected.FAILS,
    hypotheses={"two positive singular values": lambda case: (case.drawn > 0).sum(-1) > 1},
    margin=kept_order,
    draw=draw(Power(2.0), shapes=((2, 2), (3, 3), (4, 6), (5, 3))),
    proof="newton-schulz-monotone",
)

CLAIMS = (map_monotone, newton_schulz_monotone)
