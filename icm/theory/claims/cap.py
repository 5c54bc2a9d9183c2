"""The cap: how far the exponent of a power lets the optimum's singular values move together, and that it is reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, stack
from icm.curvature import Curvature, Power
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.homogenisation import several
from icm.theory.curvatures import power, scale
from icm.theory.instances import Instances, draw


def exponents(H: Curvature) -> tuple[float, float]:
    """The least and the largest exponent of a sum of powers; NaN for any other H."""
    found = [part.exponent for part in H.parts if isinstance(part, Power)]
    return (min(found), max(found)) if len(found) == len(H.parts) else (math.nan, math.nan)


def between(low: float, high: float) -> Callable[[Case], bool]:
    """Whether H is a sum of powers with exponents between the two."""
    return lambda case: low <= exponents(case.H)[0] and exponents(case.H)[1] <= high


def single(case: Case) -> bool:
    """Whether H is one power."""
    return isinstance(case.H, Power)


def alpha(case: Case) -> Ball:
    """α, the largest exponent of H less 2; NaN unless H is a sum of powers."""
    return Ball.of(exponents(case.H)[1]) - 2.0


def weights(case: Case) -> Ball:
    """R_i = g_i/σ*_i (B, k) where g_i > 0, and R_1 elsewhere."""
    positive = (case.sigma.middle > 0) & (case.drawn > 0)
    R = case.g / case.sigma.where(positive, 1.0)
    return R.where(positive, R[:, :1])


def spread(case: Case) -> Ball:
    """max R_i/min R_i (B,) over all i with g_i > 0: the largest (g_i/g_j)/(σ*_i/σ*_j) of all pairs in either order."""
    R = weights(case)
    return R.amax() / R.amin()


def below_cap(case: Case) -> Ball:
    """1 − (g_i/g_j)/(σ_i/σ_j)/(1+α), the least of all pairs."""
    return 1.0 - spread(case) / (1.0 + alpha(case))


def powers(rng: Generator) -> Curvature:
    """c r^{2+α}; one in ten has α < 0."""
    return power(rng, 1.5, 2.0) if rng.random() < 0.1 else power(rng, 2.0, 10.6)


def sums(rng: Generator) -> Curvature:
    """Two or three powers, one time in ten with one below 2."""
    H = power(rng, 2.0, 3.0) + power(rng, 2.0, 8.0)
    H = H + power(rng, 2.0, 5.0) if rng.random() < 0.3 else H
    return H + power(rng, 1.5, 1.999) if rng.random() < 0.1 else H


cap = Claim(
    name="cap",
    statement="For H = c r^{2+α}, α ≥ 0: (g_i/g_j)/(σ*_i/σ*_j) ≤ 1 + α for g_i ≥ g_j > 0.",
    latex=r"H = c\,r^{2+\alpha},\ \alpha \ge 0 \implies \frac{g_i/g_j}{\sigma^*_i/\sigma^*_j} \le 1 + \alpha "
    r"\quad (g_i \ge g_j > 0)",
    source="docs/theory.md, section 4",
    hypotheses={
        "H is a power": single,
        "α ≥ 0": between(2.0, math.inf),
        "two positive singular values": several,
    },
    margin=below_cap,
    draw=draw(powers),
    proof="cap",
)

elasticity = Claim(
    name="cap-elasticity",
    statement="If 0 ≤ r φ′(r) ≤ α φ(r) for φ = H′/r, then (g_i/g_j)/(σ*_i/σ*_j) ≤ 1 + α for g_i ≥ g_j > 0; sums of "
    "powers from 2 on have α = their largest exponent − 2.",
    latex=r"0 \le r\varphi'(r) \le \alpha\varphi(r),\ \varphi = H'/r \implies "
    r"\frac{g_i/g_j}{\sigma^*_i/\sigma^*_j} \le 1 + \alpha \quad (g_i \ge g_j > 0)",
    source="docs/theory.md, section 4",
    hypotheses={"H is a sum of powers from 2 on": between(2.0, math.inf), "two positive singular values": several},
    margin=below_cap,
    draw=draw(sums),
    proof="cap-elasticity",
)


def between_caps(case: Case) -> Ball:
    """1 − (1+α)/((g_i/g_j)/(σ_i/σ_j)), the least of all pairs."""
    return 1.0 - spread(case) * (1.0 + alpha(case))


def rising(case: Case) -> Ball:
    """1 − R_i/R_j, the least of neighbours i = j − 1 with g_i ≥ g_j > 0."""
    R, positive = weights(case), case.drawn > 0
    return (1.0 - R[:, :-1] / R[:, 1:]).where(positive[:, 1:], 0.0).amin()


def reversed_margin(case: Case) -> Ball:
    """The smaller of both sides' margins."""
    return stack([between_caps(case), rising(case)]).amin()


reverse = Claim(
    name="cap-reversed",
    statement="For H = c r^{2+α}, −1 < α ≤ 0: 1 + α ≤ (g_i/g_j)/(σ*_i/σ*_j) ≤ 1 for g_i ≥ g_j > 0.",
    latex=r"H = c\,r^{2+\alpha},\ -1 < \alpha \le 0 \implies "
    r"1 + \alpha \le \frac{g_i/g_j}{\sigma^*_i/\sigma^*_j} \le 1 \quad (g_i \ge g_j > 0)",
    source="docs/theory.md, section 4",
    hypotheses={
        "H is a power": single,
        "−1 < α ≤ 0": lambda case: 1.0 < exponents(case.H)[0] <= 2.0,
        "two positive singular values": several,
    },
    margin=reversed_margin,
    draw=draw(lambda rng: power(rng, 2.0, 2.1) if rng.random() < 0.1 else power(rng, 1.02, 2.0)),
    proof="cap-reversed",
)


def dominated(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Spectra with σ₁ = 1 and others down to 1e−12 of it, some of them equal."""
    low = rng.uniform(-12, 0, (len(made), 1))
    x = 10 ** (low * rng.uniform(0.8, 1.0, (len(made), made.k)))
    x[:, 1:] = x[:, 1:2] if rng.random() < 0.3 else x[:, 1:]
    x[:, 0] = 1.0
    return {"sigma": torch.from_numpy(x)}


def approach(case: Case) -> Ball:
    """The least (R_1/R_j)/((1 + α(1−δ))/(1 + αδ)) − 1 over j > 1, where δ bounds the share of the other σ in s:
    δ = (Σ_{j>1} λ_j/(nλ_1))^{min(1, α/2)}/E|ζ₁|^α. E|ζ₁|^α = (n+α)/(1+α) E|ζ₁|^{2+α}."""
    sigma = case["sigma"]
    x = Ball.of(sigma) / sigma[:, :1]
    R = case.slopes(sigma) / sigma
    one = torch.zeros_like(sigma)
    one[:, 0] = 1.0
    p, a = exponents(case.H)[1], alpha(case)
    moment = case.mean(one, Power(p if p >= 1 else 1.0)) * (case.n + a) / (1.0 + a)
    rest = (x[:, 1:] * x[:, 1:]).sum() / case.n
    share = (rest if p >= 4 else rest ** (0.5 * p - 1.0 if p > 2 else 1.0)) / moment
    least = (1.0 + a - a * share) / (1.0 + a * share)
    return ((R[:, :1] / R[:, 1:]).amin() - least) / (1.0 + a)


attained = Claim(
    name="cap-attained",
    statement="The cap is sharp for every n ≥ 2: for H = c r^{2+α}, α > 0, and one dominant singular value, "
    "(g_1/g_j)/(σ*_1/σ*_j) ≥ (1 + α(1−δ))/(1 + αδ), δ = (Σ_{j>1} λ_j/(nλ_1))^{min(1,α/2)}/E|ζ₁|^α, which tends to "
    "1 + α as the others vanish.",
    latex=r"\frac{g_1/g_j}{\sigma^*_1/\sigma^*_j} \ge \frac{1+\alpha(1-\delta)}{1+\alpha\delta},\quad "
    r"\delta = \Bigl(\frac{\sum_{j>1}\lambda_j}{n\lambda_1}\Bigr)^{\min(1,\alpha/2)} \Big/ E|\zeta_1|^\alpha",
    source="this project: the cap of docs/theory.md, section 4, is the supremum",
    hypotheses={
        "H is a power": single,
        "α > 0": lambda case: exponents(case.H)[0] > 2.0,
        "σ₁ is the largest": lambda case: (case["sigma"] <= case["sigma"][:, :1]).all(-1),
        "all σ > 0": lambda case: (case["sigma"] > 0).all(-1),
    },
    margin=approach,
    draw=draw(
        lambda rng: Power(round(float(rng.uniform(2.001, 10.0)), 3), scale(rng)),
        shapes=((2, 2), (2, 3), (3, 2), (3, 3), (3, 8), (5, 5), (8, 12), (12, 12)),
        extra=dominated,
    ),
    proof="cap-attained",
)

CLAIMS = (cap, elasticity, reverse, attained)
