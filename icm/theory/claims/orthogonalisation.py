"""Theorem 2, exactly: for which slopes A < B left and right of a kink at r̃ the orthogonal update r̃UVᵀ is optimal.

With h(v) = E(Σ v_i ζ_i²)₊ it is exactly if A ≤ n min g and B ≥ B(A) = A + J(g − A/n), J(q) = max_v ⟨q, v⟩/h(v). The
gradients for which it just is, for an H that is given, are g = A/n + (B − A) ∇h(v), v any: so instances are drawn on
both sides of the threshold, and as near to it as wanted. Nothing here asks the solver.
"""

from __future__ import annotations

import math

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, stack
from icm.curvature import Curvature, Kink
from icm.rigour import Rigour
from icm.solvers.flat import closed_form
from icm.solvers.gauge import gauge, hinge
from icm.sphere import hinge_error
from icm.theory import rigorous
from icm.theory.case import Case, remembered
from icm.theory.claim import Claim
from icm.theory.claims.kink_needed import compared, falls, rise, spectrum
from icm.theory.curvatures import kinked
from icm.theory.instances import Draw, Instances, diagonal

_SHAPES = ((1, 1), (4, 1), (2, 2), (3, 2), (3, 3), (5, 3), (4, 4), (5, 5), (6, 5), (8, 8))
_SHARES = (0.0, 0.3, 0.8, 0.99, 1 - 1e-4, 1 - 1e-7, 1 + 1e-7, 1.001, 1.01, 1.05, 1.3, 2.0)  # 1 is at the threshold
_ROOM = 1e-9  # J is computed to 1e−11 relative; B − A nearer to it than this counts as neither above nor below
_ROUND = 1e-11  # and so does what is nearer to it than this, relative to n max g
_LOOSE = 1e-3  # relative distance of B below the threshold from which float64 sees F fall
_EPS = torch.finfo(torch.float64).eps


def kink(case: Case) -> tuple[float, Ball, Ball]:
    """The radius of H's first kink, and the slopes A and B left and right of it (B,)."""
    radius = case.H.kinks[0][0]
    if not case.rigorous:
        ends = [torch.as_tensor(float(case.H.slope(radius, side)), dtype=torch.float64) for side in ("left", "right")]
        A, B = (Ball(x.expand(len(case)), 8 * _EPS * x.expand(len(case)), Rigour.CERTIFIED) for x in ends)
        return radius, A, B
    from flint import arb

    from icm.solvers.enclosure.curvature import decompose

    terms, c = decompose(case.H), torch.full((len(case), 1), radius, dtype=torch.float64)
    both = rigorous.each_row(c, lambda row: [terms.slope(arb(radius), right) for right in (False, True)])
    return radius, both[:, 0], both[:, 1]


def form(case: Case, v: Tensor) -> tuple[Ball, Ball]:
    """h(v) = E(Σ v_i ζ_i²)₊ (B,) and ∇h(v) (B, n), for v (B, n)."""
    if case.rigorous:
        from flint import arb

        from icm.solvers.enclosure.sphere import hinge_of_form

        def both(row: Tensor) -> list[arb]:
            at = hinge_of_form([arb(x) for x in row.tolist()], 1)
            return [at.value, *at.weights]

        found = rigorous.each_row(v, both)
        return found[:, 0], found[:, 1:]
    n = v.shape[-1]
    value, slope, _ = hinge(v)
    up, down = (v >= 0).all(-1), (v <= 0).all(-1)
    value = value.where(~up, v.mean(-1)).where(~down, 0.0)
    slope = slope.where(~down[:, None] | up[:, None], 0.0)
    error = 16 * hinge_error(n)  # with room for a rare event {Σ vζ² > 0}
    return Ball(value, error * value, Rigour.CERTIFIED), Ball(slope, error * slope, Rigour.CERTIFIED)


@remembered
def least_jump(case: Case) -> tuple[Tensor, Tensor]:
    """(J, v): the least B − A (B,) for which r̃UVᵀ is optimal, ∞ where A > n min g, and a maximiser v (B, n) or, where
    J = ∞, the direction −e_n; with equal g and A = n g, J = 0."""
    g = spectrum(case).middle
    q = g - kink(case)[1].middle[:, None] / case.n
    v, jump = torch.zeros_like(g), torch.full_like(g[:, 0], math.inf)
    v[:, -1] = -1.0
    rows = (q.amin(-1) > 0).nonzero()[:, 0]
    if len(rows):
        found = gauge(q[rows])
        jump[rows], v[rows] = found.jump, found.v / found.v.abs().amax(-1, keepdim=True)
    none = (q == 0).all(-1)
    return jump.where(~none, 0.0), v.where(~none[:, None], 1.0)


def directional(case: Case, v: Tensor) -> Ball:
    """F′(r̃UVᵀ; v) = A mean(v) + (B − A) h(v) − ⟨g, v⟩ (B,)."""
    _, A, B = kink(case)
    return A * Ball.of(v).sum() / case.n + (B - A) * form(case, v)[0] - (spectrum(case) * v).sum()


def best(case: Case) -> Ball:
    """F* − F(r̃UVᵀ) over r̃Σg (B,): at least what a multiplier proves, at most what the drawn spectra reach.

    ξ = A + t·1{Σ v_i ζ_i² > 0}, A ≤ A + t ≤ B, makes s = A/n + t ∇h(v) a subgradient, and if s ≥ g, F(σ) − F* ≤
    ⟨s − g, σ⟩. The v is the extremal one, and t a little above J(g − A/n). Where that proves nothing but a spectrum
    below r̃UVᵀ was reached, the deviation is that one's, which is the least it can be.
    """
    radius, A, B = kink(case)
    g, (jump, v) = spectrum(case), least_jump(case)
    sigma = torch.full_like(g.middle, radius)
    room = jump * _ROOM / 2 + _ROUND * case.n * g.middle[:, 0]
    t = torch.minimum(jump + room, (B - A).lower.clamp(min=0))
    s = (A / case.n)[:, None] + form(case, v)[1] * t[:, None]
    excess = s - g
    scale = radius * g.middle.sum(-1)
    proven = (excess * sigma).sum() / scale
    low = (-proven).lower.where((excess.lower >= 0).all(-1), -torch.inf)
    x = [sigma * (1 + epsilon * v) for epsilon in (1e-2, 1e-4)]
    candidates = torch.cat([torch.stack(x, 1).clamp(min=0), compared(case, sigma)], 1)
    reached = (rise(case, g, sigma, candidates) / scale[:, None]).amin(-1)
    high = reached.upper.clamp(max=0)
    low = low.where(torch.isfinite(low) | (high == 0), high)
    return Ball.between(low, high, min(proven.rigour, reached.rigour))


def at_the_threshold(rng: Generator, size: int, n: int, A: float, B: float, shares: tuple[float, ...]) -> Tensor:
    """g (size, n), descending: on the ray from (A + B)/(2n) through A/n + (B − A) ∇h(v) at these shares of it."""
    v = torch.from_numpy(rng.standard_normal((size, n)))
    tilted = 1 - torch.from_numpy(rng.uniform(0.05, 0.95, (size, 1)) / rng.uniform(0.1, 1, (size, n)))
    pairs = torch.from_numpy(rng.choice([-1.0, 1.0], (size, n))) * (1 + 1e-3 * v)
    kind = torch.from_numpy(rng.integers(3, size=(size, 1)))
    v = v.where(kind > 0, tilted).where(kind < 2, pairs).sort(-1, descending=True).values
    _, slope, _ = hinge(v)
    slope = slope.where((v > 0).any(-1, keepdim=True), 0.0)
    centre = (A + B) / (2 * n)
    share = torch.from_numpy(rng.choice(shares, (size, 1)))
    g = centre + share * (A / n + (B - A) * slope - centre)
    return g.clamp(min=1e-3 * centre)


def _curvature(rng: Generator) -> tuple[Curvature, float, float, float]:
    """An H with a kink, its radius and slopes; A = 0 now and then."""
    H = Kink(1.0, float(f"{10 ** rng.uniform(-1, 2):.4g}")) if rng.random() < 0.2 else kinked(rng)
    radius = H.kinks[0][0]
    A, B = (float(H.slope(radius, side)) for side in ("left", "right"))
    return H, radius, A, B


def others(rng: Generator, size: int, n: int, radius: float) -> Tensor:
    """Spectra (size, 4, n) that r̃UVᵀ is compared with, from near it to anywhere."""
    y = torch.from_numpy(rng.standard_normal((size, 3, n)))
    near = radius * (1 + torch.from_numpy(10 ** rng.uniform(-6, 0, (size, 3, 1))) * y).clamp(min=0)
    far = radius * torch.from_numpy(rng.uniform(0, 2, (size, 1, n)))
    return torch.cat([near, far], 1)


def _draw(shares: tuple[float, ...]) -> Draw:
    def generate(rng: Generator, size: int) -> Instances:
        m, n = _SHAPES[rng.integers(len(_SHAPES))]
        H, radius, A, B = _curvature(rng)
        g = at_the_threshold(rng, size, n, A, B, shares)
        return Instances(diagonal(g, m, n), H, {"spectra": others(rng, size, n, radius)})

    return generate


def _one_kink(case: Case) -> bool:
    return len(case.H.kinks) == 1 and math.isinf(case.H.wall)


def _full(case: Case) -> bool:
    return case.m >= case.n


def _within(case: Case) -> Tensor:
    _, A, B = kink(case)
    room = 2 * _ROUND * case.n * spectrum(case).middle[:, 0]
    return (B - A).middle >= least_jump(case)[0] * (1 + _ROOM) + room


orthogonalisation = Claim(
    name="orthogonalisation",
    statement="For m ≥ n, g > 0 and slopes A ≤ n min g and B ≥ B(A) of H left and right of r̃, F(r̃UVᵀ) = F*.",
    latex=r"m \ge n,\ A \le n g_{\min},\ B \ge A + \max_v \frac{\langle g - A/n, v\rangle}{E(\sum v_i\zeta_i^2)_+} "
    r"\implies F(\tilde r\,UV^\top) = F^*",
    source="Su, arXiv 2511.00674, Theorem 2, with the exact threshold of docs/theory.md, section 10",
    hypotheses={"H has one kink and no wall": _one_kink, "m ≥ n": _full, "B ≥ B(A)": _within},
    margin=best,
    equality=True,
    draw=_draw(_SHARES[:6]),
    batch=100,
    proof="orthogonalisation",
)


def _below(case: Case) -> Tensor:
    _, A, B = kink(case)
    jump = least_jump(case)[0]
    apart = (A.middle - case.n * spectrum(case).middle[:, -1] >= _LOOSE * A.middle).where(jump == math.inf, True)
    return ((B - A).middle <= jump * (1 - _LOOSE)) & apart


def threshold_exact(case: Case) -> Ball:
    """How F falls from r̃UVᵀ along the maximiser of the threshold."""
    radius, v = kink(case)[0], least_jump(case)[1]
    g = spectrum(case)
    return falls(case, g, torch.full_like(v, radius), v, -directional(case, v))


exact = Claim(
    name="threshold-exact",
    statement="For m ≥ n and B < B(A), or A > n min g, r̃UVᵀ is not optimal: F falls along the v that B(A) is attained "
    "at, by at least half of what the slope (B − B(A)) h(v) there promises.",
    latex=r"B < B(A) \implies F(\tilde r\,UV^\top) > F^*",
    source="docs/theory.md, section 10, (10) and (11)",
    hypotheses={"H has one kink and no wall": _one_kink, "m ≥ n": _full, "B < B(A)": _below},
    margin=threshold_exact,
    draw=_draw(_SHARES[7:]),
    batch=100,
    proof="threshold-exact",
)


def _short(rng: Generator, size: int) -> Instances:
    """One bound missed by a factor near 1: n max g above B, or n min g below A."""
    m, n = _SHAPES[rng.integers(len(_SHAPES))]
    H, _, A, B = _curvature(rng)
    g = torch.from_numpy(A + (B - A) * rng.uniform(0, 1, (size, n))) / n
    factor = torch.from_numpy(rng.choice([1.001, 1.01, 1.1, 2.0], size))
    up = torch.from_numpy(rng.random(size) < 0.5) | (A == 0)
    row = torch.arange(size)
    g[row[up], 0] = factor[up] * B / n
    g[row[~up], -1] = A / n / factor[~up]
    return Instances(diagonal(g.sort(-1, descending=True).values, m, n), H)


def _missed(case: Case) -> tuple[Tensor, Tensor]:
    """By how much g passes each of the necessary bounds, relative to it (B,)."""
    _, A, B = kink(case)
    g = case.n * spectrum(case).middle
    return (A.middle - g[:, -1]) / A.middle.clamp(min=1e-300), (g[:, 0] - B.middle) / B.middle


def _necessary(case: Case) -> Ball:
    down, up = _missed(case)
    v = torch.zeros_like(spectrum(case).middle)
    v[down > up, -1], v[down <= up, 0] = -1.0, 1.0
    return falls(case, spectrum(case), torch.full_like(v, kink(case)[0]), v, -directional(case, v))


necessary = Claim(
    name="threshold-necessary",
    statement="For m ≥ n, A ≤ n min g and B ≥ n max g are necessary: else F falls from r̃UVᵀ along −e_n or e_1.",
    latex=r"\tilde r\,UV^\top\ \text{optimal} \implies A \le n g_{\min},\ B \ge n g_{\max}",
    source="docs/theory.md, section 10",
    hypotheses={
        "H has one kink and no wall": _one_kink,
        "m ≥ n": _full,
        "a bound is missed": lambda case: torch.maximum(*_missed(case)) >= 0.9 * _LOOSE,
    },
    margin=_necessary,
    draw=_short,
    proof="threshold-bounds",
)


def _multiplied(rng: Generator, size: int) -> Instances:
    """g = E[ξ ζ_i²] for ξ = Σ x_i ζ_i² with x in [A, B], its ends among them."""
    m, n = _SHAPES[rng.integers(len(_SHAPES))]
    H, radius, A, B = _curvature(rng)
    share = rng.uniform(0, 1, (size, n)) ** rng.choice([0.2, 1, 5], (size, 1))
    share[rng.random((size, n)) < 0.3] = 0.0
    share[rng.random((size, n)) < 0.3] = 1.0
    x = torch.from_numpy(A + (B - A) * (1e-12 + (1 - 2e-12) * share))
    g = ((2 * x + x.sum(-1, keepdim=True)) / (n * (n + 2))).sort(-1, descending=True).values
    return Instances(diagonal(g, m, n), H, {"spectra": others(rng, size, n, radius)})


def _closed(case: Case) -> Tensor:
    _, A, B = kink(case)
    low, high = closed_form(spectrum(case).middle, case.n)
    return (A.middle <= low) & (high <= B.middle) & (spectrum(case).middle.amin(-1) > 0)


def by_closed_form(case: Case) -> Ball:
    """F* − F(r̃UVᵀ) over r̃Σg (B,): ξ(ζ) = (n/2) Σ ((n+2) g_i − Σg) ζ_i² makes g a subgradient, so that it is at least
    0; at most what the drawn spectra and those along the maximiser of the threshold reach."""
    radius = kink(case)[0]
    g, v = spectrum(case), least_jump(case)[1]
    sigma = torch.full_like(v, radius)
    x = torch.stack([sigma * (1 + epsilon * v) for epsilon in (1e-1, 1e-3)], 1).clamp(min=0)
    reached = rise(case, g, sigma, torch.cat([x, compared(case, sigma)], 1)) / (radius * g.middle.sum(-1))[:, None]
    return stack([reached.amin(-1), directional(case, v) / (g * v.abs()).sum()]).amin(-1)


sufficient = Claim(
    name="threshold-sufficient",
    statement="For m ≥ n, A ≤ (n/2)((n+2) min g − Σg) and B ≥ (n/2)((n+2) max g − Σg) are sufficient: no spectrum lies "
    "below r̃UVᵀ and F falls along no direction.",
    latex=r"A \le \tfrac n2((n+2)g_{\min} - \tau),\ B \ge \tfrac n2((n+2)g_{\max} - \tau) "
    r"\implies \tilde r\,UV^\top\ \text{optimal}, \quad \tau = \textstyle\sum g_i",
    source="docs/theory.md, section 10",
    hypotheses={"H has one kink and no wall": _one_kink, "m ≥ n": _full, "the closed form fits": _closed},
    margin=by_closed_form,
    draw=_multiplied,
    batch=100,
    proof="threshold-bounds",
)

CLAIMS = (orthogonalisation, exact, necessary, sufficient)
