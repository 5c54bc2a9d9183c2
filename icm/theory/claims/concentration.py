"""Concentration: how nearly constant ‖Qζ‖² is, and how near a multiple of G that leaves the update of a power."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball
from icm.curvature import Curvature, Power
from icm.theory.case import Case
from icm.theory.claim import Claim, Hypothesis
from icm.theory.claims.cap import alpha, between, single, spread, weights
from icm.theory.curvatures import power
from icm.theory.evidence import Expected
from icm.theory.instances import Draw, Instances, diagonal, draw

_WIDE = ((16, 64), (64, 64), (96, 64), (64, 128), (128, 128), (64, 256), (256, 256), (64, 512), (128, 512))
_FLOOR = 1e-6  # a bound below this is not divided by


def layers(curvature: Callable[[Generator], Curvature], share: float = 0.25) -> Draw:
    """Small gradients of all kinds, and in a share of the batches ten wide ones: the singular values of Gaussian
    matrices (Marchenko–Pastur), half of them with some values enlarged."""
    small = draw(curvature)

    def generate(rng: Generator, size: int) -> Instances:
        if rng.random() >= share:
            return small(rng, size)
        m, n = _WIDE[rng.integers(len(_WIDE))]
        size = min(size, 10)
        g = torch.linalg.svdvals(torch.from_numpy(rng.standard_normal((size, m, n)))) / math.sqrt(n)
        spikes = torch.from_numpy(10 ** rng.uniform(-1, 1, (size, 3)) * (rng.random((size, 1)) < 0.5))
        g[:, :3] = g[:, :3] * (1 + spikes)
        g = g.sort(-1, descending=True).values
        return Instances(diagonal(g, m, n), curvature(rng), {}, ("Marchenko–Pastur",) * size)

    return generate


def shares(case: Case) -> tuple[Ball, Ball]:
    """λ_i/λ_1 (B, k) of σ*, and their sum srank = Σλ/λ_1 (B,)."""
    x = case.sigma / case.sigma[:, :1]
    return x * x, (x * x).sum()


def variance(case: Case) -> Ball:
    """E s²/(E s)² − n/(n+2) (1 + 2/r_eff), over that, at the singular values of G."""
    x = case.drawn / case.drawn[:, :1]
    second, first = case.mean(x, Power(4.0)), case.mean(x, Power(2.0))
    squares = Ball.of(x) * x
    total = squares.sum()
    inverse = (squares * squares).sum() / (total * total)
    expected = case.n * (1.0 + 2.0 * inverse) / (case.n + 2)
    return second / (first * first) / expected - 1.0


concentration_variance = Claim(
    name="concentration-variance",
    statement="Var s/(E s)² = 2/(n+2) · (n/r_eff − 1) for s = ‖Qζ‖² and r_eff = (Σλ)²/Σλ².",
    latex=r"\frac{\operatorname{Var} s}{(E s)^2} = \frac{2}{n+2}\Bigl(\frac{n}{r_{\mathrm{eff}}} - 1\Bigr),\quad "
    r"r_{\mathrm{eff}} = \frac{(\sum\lambda_i)^2}{\sum\lambda_i^2}",
    source="docs/theory.md, section 4",
    equality=True,
    hypotheses={"Q ≠ 0": lambda case: case.drawn[:, 0] > 0},
    margin=variance,
    draw=layers(lambda rng: Power(2.0)),
    proof="concentration-variance",
)


def below_rank(case: Case) -> Ball:
    """α/srank − (max R/min R − 1), over the first, or over 1 where that is tiny."""
    return _below(alpha(case) / shares(case)[1], spread(case) - 1.0)


def extremes(case: Case) -> tuple[Ball, Ball]:
    """max R/min R − 1 if it is (Σλ + αλ_1)/(Σλ + αλ_j), j the last with g_j > 0, or its inverse for α < 0; and
    |α|/srank, its size."""
    share, rank = shares(case)
    last, a = share.where(case.drawn > 0, 1.0).amin(), alpha(case)
    low = last if float(a.middle) >= 0 else Ball.of(torch.ones_like(last.middle))
    return a.abs() * (1.0 - last) / (rank + a * low), a.abs() / rank


def below_extremes(case: Case) -> Ball:
    """That less max R/min R − 1, over |α|/srank, or over 1 where that is tiny."""
    bound, size = extremes(case)
    return _below(bound, spread(case) - 1.0, size)


def above_extremes(case: Case) -> Ball:
    """The other way round."""
    return -below_extremes(case)


def below_steep(case: Case) -> Ball:
    """α(α−1)/(srank + α − 2) − (max R/min R − 1), over the first."""
    a = alpha(case)
    return _below(a * (a - 1.0) / (shares(case)[1] + (a - 2.0)), spread(case) - 1.0)


def _below(bound: Ball, x: Ball, size: Ball | None = None) -> Ball:
    scale = (bound if size is None else size).middle
    return (bound - x) / scale.where(scale > _FLOOR, 1.0)


def gentle(rng: Generator) -> Curvature:
    """c r^{2+α}, 0 ≤ α ≤ 2; one in ten is steeper."""
    return power(rng, 4.0, 6.0) if rng.random() < 0.1 else power(rng, 2.0, 4.0)


def powers(name: str, low: float, high: float) -> dict[str, Hypothesis]:
    """The hypotheses that H is a power with exponent between the two and that there is an update."""
    return {"H is a power": single, name: between(low, high), "G ≠ 0": lambda case: case.drawn[:, 0] > 0}


_GENTLE = powers("0 ≤ α ≤ 2", 2.0, 4.0)
_STEEP = powers("α ≥ 2", 4.0, math.inf)

concentration_spread = Claim(
    name="concentration-spread",
    statement="For H = c r^{2+α}, 0 ≤ α ≤ 2, and R_i = g_i/σ*_i: max R_i/min R_i − 1 ≤ α/srank, srank = Σλ/λ_1.",
    latex=r"\frac{\max_i g_i/\sigma^*_i}{\min_i g_i/\sigma^*_i} - 1 \le \frac{\alpha}{\operatorname{srank}},\quad "
    r"\operatorname{srank} = \sum\lambda_i/\lambda_1 \quad (0 \le \alpha \le 2)",
    source="this project: the first-order statement of docs/theory.md, section 4, as a bound",
    hypotheses=_GENTLE,
    margin=below_rank,
    draw=layers(gentle),
    proof="concentration-spread",
)

concentration_extremes = Claim(
    name="concentration-extremes",
    statement="For H = c r^{2+α}, 0 ≤ α ≤ 2: max R_i/min R_i ≤ (Σλ + αλ_1)/(Σλ + αλ_j), j the last with g_j > 0; for "
    "−1 < α ≤ 0 it is at most the inverse. α = 2 has equality.",
    latex=r"\frac{g_1/\sigma^*_1}{g_j/\sigma^*_j} \le "
    r"\frac{\sum\lambda + \alpha\lambda_1}{\sum\lambda + \alpha\lambda_j}\ (0 \le \alpha \le 2),\quad "
    r"\ge\ (-1 < \alpha \le 0),\quad g_j = \min\{g_i > 0\}",
    source="this project: sharpens the first-order statement of docs/theory.md, section 4",
    hypotheses=powers("−1 < α ≤ 2", 1.01, 4.0),
    margin=below_extremes,
    draw=layers(lambda rng: power(rng, 1.02, 2.0) if rng.random() < 0.3 else gentle(rng)),
    proof="concentration-extremes",
)

concentration_turn = Claim(
    name="concentration-turn",
    statement="For H = c r^{2+α}, α ≥ 2, it turns: max R_i/min R_i ≥ (Σλ + αλ_1)/(Σλ + αλ_j), j the last with g_j > 0, "
    "so that one small singular value makes the spread at least α/srank.",
    latex=r"\frac{g_1/\sigma^*_1}{g_j/\sigma^*_j} \ge "
    r"\frac{\sum\lambda + \alpha\lambda_1}{\sum\lambda + \alpha\lambda_j}\quad (\alpha \ge 2)",
    source="this project: why the first-order statement of docs/theory.md, section 4, bounds no steep power",
    hypotheses=_STEEP,
    margin=above_extremes,
    draw=layers(lambda rng: power(rng, 3.9, 10.6)),
    proof="concentration-turn",
)

concentration_steep = Claim(
    name="concentration-steep",
    statement="For H = c r^{2+α}, α ≥ 2: max R_i/min R_i − 1 ≤ α(α−1)/(srank + α − 2), at most 1 + α at srank = 1.",
    latex=r"\frac{\max_i g_i/\sigma^*_i}{\min_i g_i/\sigma^*_i} - 1 \le "
    r"\frac{\alpha(\alpha-1)}{\operatorname{srank}+\alpha-2} \quad (\alpha \ge 2)",
    source="this project: the first-order statement of docs/theory.md, section 4, as a bound for steep powers",
    hypotheses=_STEEP,
    margin=below_steep,
    draw=layers(lambda rng: power(rng, 3.9, 10.6)),
    proof="concentration-steep",
)

concentration_spread_steep = Claim(
    name="concentration-spread-steep",
    statement="For H = c r^{2+α}, α > 2, as for 0 ≤ α ≤ 2: max R_i/min R_i − 1 ≤ α/srank.",
    latex=r"\frac{\max_i g_i/\sigma^*_i}{\min_i g_i/\sigma^*_i} - 1 \le \frac{\alpha}{\operatorname{srank}} "
    r"\quad (\alpha > 2)",
    source="docs/theory.md, section 4, read as a bound: R varies over the spectrum by about α/srank",
    hypotheses=_STEEP,
    margin=below_rank,
    draw=layers(lambda rng: power(rng, 4.0, 10.6)),
    expected=Expected.FAILS,
    proof="concentration-spread-steep",
)


def sine(case: Case) -> Ball:
    """sin ∠(Q*, G) (B,): ‖g − cσ‖/‖g‖ for c = ⟨g, σ⟩/‖σ‖², which does not cancel."""
    g, sigma = case.g / case.g[:, :1], case.sigma / case.sigma[:, :1]
    c = (g * sigma).sum() / (sigma * sigma).sum()
    rest = g - Ball(c.middle[:, None], c.radius[:, None], c.rigour) * sigma
    return (rest * rest).sum().sqrt() / (g * g).sum().sqrt()


def below_angle(case: Case) -> Ball:
    """1 − sin ∠(Q*, G)/(ε/(2+ε)) for ε = α/srank; the difference itself where the bound is tiny."""
    epsilon = alpha(case) / shares(case)[1]
    return _below(epsilon / (epsilon + 2.0), sine(case))


concentration_angle = Claim(
    name="concentration-angle",
    statement="For H = c r^{2+α}, 0 ≤ α ≤ 2, and ε = α/srank: cos ∠(Q*, G) ≥ 2√(1+ε)/(2+ε), which is the same as "
    "sin ∠(Q*, G) ≤ ε/(2+ε).",
    latex=r"\cos\angle(Q^*, G) \ge \frac{2\sqrt{1+\varepsilon}}{2+\varepsilon},\quad "
    r"\varepsilon = \frac{\alpha}{\operatorname{srank}} \quad (0 \le \alpha \le 2)",
    source="this project: concentration-spread with Kantorovich's inequality",
    hypotheses=_GENTLE,
    margin=below_angle,
    draw=layers(gentle),
    proof="concentration-angle",
)


def varies(case: Case) -> Tensor:
    """Ratios within [a, a(1+ε)], ε > 0, as computed."""
    R = weights(case).middle
    return R.amax(-1) > R.amin(-1)


def kantorovich(case: Case) -> Ball:
    """1 − sin ∠(Q*, G)/(ε/(2+ε)) for 1 + ε = max R/min R."""
    epsilon = spread(case) - 1.0
    return _below(epsilon / (epsilon + 2.0), sine(case))


angle = Claim(
    name="ratios-angle",
    statement="For every H: if the ratios g_i/σ*_i are within [a, a(1+ε)], cos ∠(Q*, G) ≥ 2√(1+ε)/(2+ε).",
    latex=r"a \le g_i/\sigma^*_i \le a(1+\varepsilon) \implies "
    r"\cos\angle(Q^*, G) \ge \frac{2\sqrt{1+\varepsilon}}{2+\varepsilon}",
    source="Kantorovich's inequality",
    hypotheses={"the ratios differ": varies},
    margin=kantorovich,
    proof="ratios-angle",
)

CLAIMS = (
    concentration_variance,
    concentration_spread,
    concentration_extremes,
    concentration_turn,
    concentration_steep,
    concentration_spread_steep,
    concentration_angle,
    angle,
)
