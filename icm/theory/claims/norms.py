"""Powers as norms: N_p(Q) = (E‖Qζ‖^p)^{1/p}, steepest descent in it, and level sets for any other H."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, norm, stack
from icm.curvature import Curvature, Power
from icm.sphere import expect
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.cap import exponents, single
from icm.theory.curvatures import power, scale, smooth, super_quadratic
from icm.theory.evidence import Expected
from icm.theory.instances import Instances, draw, rotate, spectra

_NEWTON = 12  # steps to a level set
_INSIDE = 1e-10  # how far inside it to stay


def length(case: Case, sigma: Ball | Tensor, p: float) -> Ball:
    """N_p(Q) (B,) for Q with singular values sigma (B, k)."""
    return case.mean(sigma, Power(p)).root(p)


def exponent(case: Case) -> float:
    """p for H = c r^p, 2 for any other H."""
    p = exponents(case.H)[1]
    return p if single(case) else 2.0


def unit_powers(low: float, high: float) -> Callable[[Generator], Curvature]:
    """r^p with p between the two, or one of them."""

    def curvature(rng: Generator) -> Curvature:
        ends = [p for p in (low, 2.0, 3.0, 4.0, high) if low <= p <= high]
        p = ends[rng.integers(len(ends))] if rng.random() < 0.3 else round(float(rng.uniform(low, high)), 3)
        return Power(p)

    return curvature


def second(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Another matrix of the same shape: of its own, nearly parallel or nearly opposite to the first."""
    size = len(made)
    other = rotate(rng, spectra(rng, size, made.k)[0], made.m, made.n)
    other = other * torch.linalg.matrix_norm(made.G)[:, None, None] * 10 ** rng.uniform(-2, 2)
    near = torch.from_numpy(10 ** rng.uniform(-6, 0, (size, 1, 1)))
    sign = torch.from_numpy(rng.choice([0.0, 1.0, -1.0], (size, 1, 1), p=[0.5, 0.3, 0.2]))
    factor = torch.from_numpy(10 ** rng.uniform(-1, 1, (size, 1, 1)))
    return {"other": torch.where(sign == 0, other, sign * factor * made.G + near * other)}


def triangle(case: Case) -> Ball:
    """1 − N(Q₁ + Q₂)/(N(Q₁) + N(Q₂)); the rounding of Q₁ + Q₂ is in the radius, by Weyl."""
    p, other = exponent(case), case["other"]
    both = case.G + other
    values = case.spectrum(both)
    rounding = torch.finfo(torch.float64).eps * torch.linalg.matrix_norm(both)[:, None]
    values = Ball(values.middle, values.radius + rounding, values.rigour)
    return 1.0 - length(case, values, p) / (
        length(case, case.spectrum(case.G), p) + length(case, case.spectrum(other), p)
    )


norm_triangle = Claim(
    name="norm-triangle",
    statement="N_p(Q₁ + Q₂) ≤ N_p(Q₁) + N_p(Q₂) for p ≥ 1, N_p(Q) = (E‖Qζ‖^p)^{1/p}.",
    latex=r"N_p(Q_1 + Q_2) \le N_p(Q_1) + N_p(Q_2),\quad N_p(Q) = (E\|Q\zeta\|^p)^{1/p}\quad (p \ge 1)",
    source="Minkowski's inequality; docs/theory.md, section 7",
    hypotheses={"H is a power": single, "Q₁ ≠ 0": lambda case: case.drawn[:, 0] > 0},
    margin=triangle,
    draw=draw(unit_powers(1.0, 10.6), rotated=True, extra=second),
    proof="norm-triangle",
)


def frobenius(case: Case) -> Ball:
    """‖Q‖_F/√n (B,) from the entries of Q = G."""
    return norm(Ball.of(case.G.flatten(1))) / Ball.of(float(case.n)).sqrt()


def chain(case: Case) -> Ball:
    """The least of 1 − N_p/N_q over neighbours p < q in a list that ends with ‖Q‖₂, N_2 being ‖Q‖_F/√n."""
    p, values = exponent(case), case.spectrum(case.G)
    orders = sorted({1.0, p, p + 0.125, 2 * p})
    lengths = [(q, length(case, values, q)) for q in orders if q != 2.0] + [(2.0, frobenius(case))]
    steps = [ball for _, ball in sorted(lengths, key=lambda pair: pair[0])] + [values[:, 0]]
    return stack([1.0 - low / high for low, high in pairwise(steps)]).amin()


norm_family = Claim(
    name="norm-family",
    statement="N_p(Q) increases with p: N_p ≤ ‖Q‖_F/√n for p ≤ 2, ‖Q‖_F/√n ≤ N_p ≤ ‖Q‖₂ for p ≥ 2.",
    latex=r"N_p \le N_q\ (p \le q),\quad N_2(Q) = \|Q\|_F/\sqrt n,\quad N_q(Q) \le \|Q\|_2",
    source="docs/theory.md, section 7",
    hypotheses={"H is a power": single, "Q ≠ 0": lambda case: case.drawn[:, 0] > 0},
    margin=chain,
    draw=draw(unit_powers(1.0, 10.6), rotated=True, decades=0.5),
    proof="norm-family",
)


def above_limit(case: Case) -> Ball:
    """1 − ‖Q‖₂ (E|ζ₁|^p)^{1/p}/N_p(Q)."""
    p, values = exponent(case), case.spectrum(case.G)
    one = torch.zeros_like(case.drawn)
    one[:, 0] = 1.0
    return 1.0 - values[:, 0] * length(case, one, p) / length(case, values, p)


norm_limit = Claim(
    name="norm-limit",
    statement="N_p(Q) ≥ ‖Q‖₂ (E|ζ₁|^p)^{1/p}, with equality at rank one; the factor tends to 1, so N_p → ‖Q‖₂ as "
    "p → ∞.",
    latex=r"N_p(Q) \ge \|Q\|_2\, (E|\zeta_1|^p)^{1/p}, \qquad N_p(Q) \to \|Q\|_2 \quad (p \to \infty)",
    source="docs/theory.md, section 7",
    hypotheses={"H is a power": single, "Q ≠ 0": lambda case: case.drawn[:, 0] > 0},
    margin=above_limit,
    draw=draw(unit_powers(1.0, 60.0), rotated=True, decades=0.5),
    proof="norm-limit",
)


def directions(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """What is added to Q* to make a competitor V = Q* + mix σ₁ W: any matrix, little or much of it."""
    W = rotate(rng, spectra(rng, len(made), made.k)[0], made.m, made.n)
    return {"W": W, "mix": torch.from_numpy(10 ** rng.uniform(-4, 2, len(made)))}


def competitor(case: Case) -> Tensor:
    """V (B, m, n), the floats that Q* + mix σ₁ W comes to, for Q* = diag(σ)."""
    sigma = case.sigma.middle
    V = (case["mix"] * sigma[:, 0])[:, None, None] * case["W"]
    V.diagonal(dim1=1, dim2=2).add_(sigma)
    return V


def gained(case: Case, V: Tensor) -> Ball:
    """⟨diag(g), V⟩ (B,)."""
    return (case.g * V.diagonal(dim1=1, dim2=2)).sum()


def gain(case: Case) -> Ball:
    """⟨diag(g), Q*⟩ = Σ gσ (B,)."""
    return (case.g * case.sigma).sum()


def steepest(case: Case) -> Ball:
    """1 − ⟨G, V⟩/N(V) · N(Q*)/⟨G, Q*⟩."""
    p, V = exponent(case), competitor(case)
    theirs = gained(case, V) / length(case, case.spectrum(V), p)
    return 1.0 - theirs * (length(case, case.sigma, p) / gain(case))


def convex_powers(rng: Generator) -> Curvature:
    """c r^p, 1.05 ≤ p ≤ 10.6."""
    return power(rng, 1.05, 10.6)


_POWER = {"H is a power": single, "p > 1": lambda case: exponent(case) > 1, "G ≠ 0": lambda case: case.drawn[:, 0] > 0}

norm_steepest = Claim(
    name="norm-steepest",
    statement="For H = c r^p, p > 1, Q* points along steepest descent in N_p: ⟨G, V⟩/N_p(V) ≤ ⟨G, Q*⟩/N_p(Q*) for "
    "every V, so that N_p†(G) is the right-hand side.",
    latex=r"\frac{\langle G, V\rangle}{N_p(V)} \le \frac{\langle G, Q^*\rangle}{N_p(Q^*)} = N_p^\dagger(G)",
    source="docs/theory.md, section 7",
    hypotheses=_POWER,
    margin=steepest,
    draw=draw(convex_powers, extra=directions),
    proof="norm-steepest",
)


def step(case: Case) -> Ball:
    """c p N(Q*)^{p−1}/N†(G) − 1 for N†(G) = ⟨G, Q*⟩/N(Q*)."""
    p, mean = exponent(case), case.mean(case.sigma, case.H)
    return mean * p / gain(case) - 1.0


norm_length = Claim(
    name="norm-length",
    statement="For H = c r^p, p > 1, the update has length N_p(Q*) = (N_p†(G)/(cp))^{1/(p−1)}.",
    latex=r"N_p(Q^*) = \bigl(N_p^\dagger(G)/(cp)\bigr)^{1/(p-1)}",
    source="docs/theory.md, section 7",
    equality=True,
    hypotheses=_POWER,
    margin=step,
    draw=draw(convex_powers),
    proof="norm-length",
)


def on_level(case: Case, V: Tensor) -> Tensor:
    """V scaled to E H(‖Vζ‖) a little below E H(‖Q*ζ‖), by Newton's method in log t; the level is proved elsewhere."""
    v = torch.linalg.svdvals(V)
    level = expect(case.H, case.sigma.middle, case.n).value.clamp(min=1e-300).log()
    t = case.sigma.middle.norm(dim=-1) / v.norm(dim=-1)
    for _ in range(_NEWTON):
        e = expect(case.H, t[:, None] * v, case.n)
        rate = (e.slopes * v).sum(-1) * t / e.value
        t = t * ((level - e.value.log()) / rate).nan_to_num(0.0).clamp(-3, 3).exp()
    return (t * (1 - _INSIDE)).nan_to_num(1.0, 1.0)[:, None, None] * V  # where there is no Q*, and nothing to scale to


def lower_gain(case: Case) -> Ball:
    """1 − ⟨G, V⟩/⟨G, Q*⟩, unbounded where E H(‖Vζ‖) ≤ E H(‖Q*ζ‖) is not sure."""
    V = on_level(case, competitor(case))
    sure = case.mean(case.spectrum(V)).upper <= case.mean(case.sigma).lower
    found = 1.0 - gained(case, V) / gain(case)
    return Ball(found.middle, found.radius.where(sure, torch.inf), found.rigour)


level_set = Claim(
    name="level-set",
    statement="For every H the update maximises ⟨G, V⟩ over the level set E H(‖Vζ‖) ≤ E H(‖Q*ζ‖).",
    latex=r"E\,H(\|V\zeta\|) \le E\,H(\|Q^*\zeta\|) \implies \langle G, V\rangle \le \langle G, Q^*\rangle",
    source="docs/theory.md, section 7",
    hypotheses={"G ≠ 0": lambda case: case.drawn[:, 0] > 0, "solved": lambda case: case.usable},
    margin=lower_gain,
    draw=draw(smooth, extra=directions),
    proof="level-set",
)


def two_powers(rng: Generator) -> Curvature:
    """A square and a power from 2 on."""
    return Power(2.0, scale(rng)) + power(rng, 2.0, 6.0)


def factors(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Powers of 2 from 2^−12 to 2^12, by which Q* is stretched without rounding."""
    return {"stretch": torch.from_numpy(2.0 ** rng.integers(-12, 13, len(made)))}


def turns(case: Case) -> Ball:
    """max/min − 1 of the ratios of ∇f(tσ) to ∇f(σ) = g. If the direction of Q*(sG) is the same for all s, Q* takes
    every length along it, so that tσ is the optimum of a multiple of g and all these ratios are equal."""
    sigma = case.sigma.middle
    positive = (sigma > 0) & (case.drawn > 0)
    stretched = case.slopes(sigma * case["stretch"][:, None])
    ratio = stretched / case.g.where(positive, 1.0)
    ratio = ratio.where(positive, ratio[:, :1])
    return ratio.amax() / ratio.amin() - 1.0


one_norm_for_all_scales = Claim(
    name="one-norm-for-all-scales",
    statement="For every super-quadratic H the direction of Q* does not depend on the scale of G, as if Q* were "
    "steepest descent in one norm.",
    latex=r"Q^*(sG)/\|Q^*(sG)\| = Q^*(G)/\|Q^*(G)\| \quad (s > 0)",
    source="docs/theory.md, section 7, read for every super-quadratic H; true of powers",
    equality=True,
    hypotheses={
        "H is super-quadratic": lambda case: bool(case.H.is_superquadratic()),
        "G ≠ 0": lambda case: case.drawn[:, 0] > 0,
    },
    margin=turns,
    draw=draw(lambda rng: super_quadratic(rng) if rng.random() < 0.3 else two_powers(rng), extra=factors),
    expected=Expected.FAILS,
    proof="one-norm-for-all-scales",
)

CLAIMS = (norm_triangle, norm_family, norm_limit, norm_steepest, norm_length, level_set, one_norm_for_all_scales)
