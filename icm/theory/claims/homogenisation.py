"""Order and homogenisation: how the optimum's singular values compare with the gradient's."""

from __future__ import annotations

from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball
from icm.curvature import Curvature, Power, Wall
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.curvatures import kinked, nearly, smooth, sub_quadratic, super_quadratic, walled
from icm.theory.instances import draw


def ratios(case: Case) -> Ball:
    """(σ_j/σ_i)/(g_j/g_i) (B, k−1) for neighbours j = i+1, ≥ 1 where σ* is more homogeneous; 1 where a g is 0."""
    g, sigma = case.g, case.sigma
    small, large = slice(1, None), slice(None, -1)
    ratio = (sigma[:, small] / sigma[:, large]) / (g[:, small] / g[:, large])
    return ratio.where((g.middle[:, small] > 0) & (sigma.middle[:, large] > 0), 1.0)


def free(case: Case) -> Tensor:
    """f is differentiable at σ*, and its gradient is g."""
    return case.stationary


def any_curvature(rng: Generator) -> Curvature:
    """Smooth, with a kink, or with a wall."""
    family = (smooth, smooth, smooth, kinked, walled)[rng.integers(5)]
    return family(rng)


def rising(rng: Generator) -> Curvature:
    """Super-quadratic, now and then with a wall around it, or a power that just misses it."""
    H = nearly(super_quadratic, 1.98, 2.0)(rng)
    return H + Wall(float(f"{H.length_scale * 10 ** rng.uniform(-0.3, 0.3):.4g}")) if rng.random() < 0.15 else H


def several(case: Case) -> Tensor:
    """More than one positive singular value."""
    return (case.drawn > 0).sum(-1) > 1


homogenisation = Claim(
    name="homogenisation",
    statement="If H is super-quadratic and f differentiable at σ*, σ*_i/σ*_j ≤ g_i/g_j for g_i ≥ g_j > 0.",
    latex=r"s \mapsto H(\sqrt s)\ \text{convex} \implies "
    r"\sigma^*_i/\sigma^*_j \le g_i/g_j \quad (g_i \ge g_j > 0)",
    source="Su, arXiv 2511.00674, Theorem 1",
    hypotheses={
        "H is super-quadratic": lambda case: bool(case.H.is_superquadratic()),
        "no wall or kink holds σ*": free,
        "two positive singular values": several,
    },
    margin=lambda case: (ratios(case) - 1.0).amin(-1),
    draw=draw(rising),
    proof="homogenisation",
)

reversal = Claim(
    name="reversal",
    statement="If H is sub-quadratic and f differentiable at σ*, σ*_i/σ*_j ≥ g_i/g_j for g_i ≥ g_j > 0: the optimum is "
    "less homogeneous.",
    latex=r"s \mapsto H(\sqrt s)\ \text{concave} \implies "
    r"\sigma^*_i/\sigma^*_j \ge g_i/g_j \quad (g_i \ge g_j > 0)",
    source="Su, arXiv 2511.00674, the counterpart of Theorem 1",
    hypotheses={
        "H is sub-quadratic": lambda case: all(isinstance(p, Power) and p.exponent <= 2 for p in case.H.parts),
        "no wall or kink holds σ*": free,
        "two positive singular values": several,
    },
    margin=lambda case: (1.0 - ratios(case)).amin(-1),
    draw=draw(nearly(sub_quadratic, 2.0, 2.02)),
    proof="reversal",
)


def same_order(case: Case) -> Ball:
    """The least product of the differences of two neighbours in σ and in g, over σ₁ and g₁."""
    sigma, g = case.sigma, case.g
    steps = [(x[:, :-1] - x[:, 1:]) / x[:, :1] for x in (sigma, g)]
    return (steps[0] * steps[1]).amin(-1)


order = Claim(
    name="order",
    statement="σ* keeps the order of g, for every H, where f is differentiable at σ*.",
    latex=r"(g_i - g_j)(\sigma^*_i - \sigma^*_j) \ge 0",
    source="Su, arXiv 2511.00674, Theorem 1",
    hypotheses={"no wall or kink holds σ*": free, "two positive singular values": several},
    margin=same_order,
    draw=draw(any_curvature),
    proof="order",
)

CLAIMS = (order, homogenisation, reversal)
