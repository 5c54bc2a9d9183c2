"""Alignment: some optimum shares the gradient's singular vectors, and when it is the only one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, norm, stack
from icm.curvature import Curvature, Power, Wall
from icm.rigour import Rigour
from icm.solvers import Solution, solve
from icm.solvers.certificate import decomposition_error, mean_length
from icm.theory.case import Case, least_value
from icm.theory.claim import Claim
from icm.theory.claims.convexity import any_curvature
from icm.theory.claims.von_neumann import loss
from icm.theory.curvatures import smooth
from icm.theory.evidence import Expected
from icm.theory.instances import Instances, diagonal, draw, orthonormal

_EPS = torch.finfo(torch.float64).eps
_TIGHT = 1e-10  # relative gap asked of the matrix solver where its Q is looked at, not its value
_SHORT = 1 - 1e-12  # of a wall's radius: rounding then leaves nothing beyond it


def full(case: Case, tol: float | None = None) -> Solution:
    """The program solved on all entries of Q from a random start: no singular vector of G is used."""
    return solve(case.G, case.H, method="matrix", tol=tol, on_failure="return")


def difference_of_values(case: Case) -> Ball:
    """The least F over all Q less the least over aligned ones, each known to its gap, over ⟨G, Q⟩."""
    found = full(case)
    return (least_value(found) - case.optimum) / found.gain.where(found.gain > 0, 1.0)


alignment = Claim(
    name="alignment",
    statement="Some optimum is Q* = U diag(σ*) Vᵀ with the singular vectors of G = U diag(g) Vᵀ: quasi-Newton on all "
    "entries of Q, from a random start, finds no other value than the minimum over σ.",
    latex=r"\min_Q F(Q) = \min_{\sigma \ge 0}\, f(\sigma) - \langle g, \sigma\rangle",
    source="Su, arXiv 2511.00674, Proposition 3.1",
    equality=True,
    hypotheses={"solved": lambda case: case.solved},
    margin=difference_of_values,
    draw=draw(smooth, rotated=True),
    proof="alignment",
    enclosable=False,  # the gap of a Q with singular vectors of its own is not computed in balls
)


def excess(case: Case) -> Ball:
    """F at the Q that quasi-Newton finds less the least over aligned ones, over ⟨G, Q⟩."""
    found = full(case)
    gain = found.gain.where(found.gain > 0, 1.0)
    return (case.objective(found.Q.nan_to_num(0.0)) - case.optimum) / gain


not_beaten = Claim(
    name="not-beaten",
    statement="No Q that quasi-Newton on all its entries finds is better than the best aligned one.",
    latex=r"F(Q) \ge \min_{\sigma \ge 0}\, f(\sigma) - \langle g, \sigma\rangle",
    source="Su, arXiv 2511.00674, Proposition 3.1",
    hypotheses={"solved": lambda case: case.solved},
    margin=excess,
    draw=draw(smooth, rotated=True),
    proof="alignment",
)


def strong_convexity(case: Case, found: Solution) -> Tensor:
    """μ (B,) with ⟨∇F(Q) − ∇F(Q*), Q − Q*⟩ ≥ μ‖Q − Q*‖_F² at the Q found, from the powers c r^p in H; 0 if none.

    With x = Qζ and y = Q*ζ, F′ differs by 2E⟨ψ(|x|²)x − ψ(|y|²)y, x − y⟩ along D = Q − Q*. For p ≥ 2 ψ rises, and
    ⟨αx − βy, x − y⟩ = ½(α+β)|x−y|² + ½(α−β)(|x|²−|y|²) leaves E[ψ(|x|²)|Dζ|²] ≥ ‖D‖_F² min w_i at least, where
    w_i ≥ Eψ/(n + p − 2) (docs/theory.md, section 4), Er^q ≥ (Er)^q for q ≥ 1, r^q ≥ r ‖Q‖₂^{q−1} for q < 1, and Er ≥
    κ_n‖Q‖_F. For p < 2 the Hessian of c|x|^p is at least c p(p−1)M^{p−2}, M ≥ ‖Q‖₂, ‖Q*‖₂, and E|Dζ|² = ‖D‖_F²/n.
    ‖Q*‖₂ is bounded without alignment by −F* = E[rH′(r) − H(r)] ≥ (p−1)c E‖Q*ζ‖^p ≥ (p−1)c(κ_n‖Q*‖_F)^p.
    """
    n, sigma = case.n, found.sigma
    length, kappa = sigma.norm(dim=-1), mean_length(case.n)
    powers = [part for part in case.H.parts if isinstance(part, Power) and part.exponent > 1 and part.scale > 0]
    depth = found.gap - found.value
    longest = torch.full_like(length, torch.inf)
    for part in powers:
        bound = (depth / (part.scale * (part.exponent - 1))) ** (1 / part.exponent) / kappa
        longest = torch.minimum(longest, bound)
    longest = torch.maximum(longest, sigma[:, 0])
    modulus = torch.zeros_like(length)
    for part in powers:
        p, c = part.exponent, part.scale
        if p < 2:
            modulus = modulus + c * p * (p - 1) * longest ** (p - 2) / n
        elif p < 3:
            modulus = modulus + 0.5 * c * p * kappa * length * sigma[:, 0] ** (p - 3) / (n + p - 2)
        else:
            modulus = modulus + 0.5 * c * p * (kappa * length) ** (p - 2) / (n + p - 2)
    return modulus


def asymmetry(G: Tensor, Q: Tensor) -> Tensor:
    """Σ over P = GᵀQ and GQᵀ of ‖P − Pᵀ‖_F and the least eigenvalue of (P + Pᵀ)/2, if negative (B,)."""
    total = torch.zeros(len(G), dtype=torch.float64)
    for product in (G.mT @ Q, G @ Q.mT):
        lowest = torch.linalg.eigvalsh(0.5 * (product + product.mT))[:, 0]
        total = total + torch.linalg.matrix_norm(product - product.mT) + (-lowest).clamp(min=0)
    return total


def misalignment(case: Case) -> Ball:
    """What of GᵀQ* and GQ*ᵀ is not symmetric and positive semidefinite, over ‖G‖_F‖Q*‖_F.

    Taken at the Q found, which is within ‖∇F(Q)‖_F/μ of Q*, see `strong_convexity`; Q* moves each of the four by
    at most twice that, relatively."""
    G, found = case.G, full(case, _TIGHT)
    Q = found.Q.nan_to_num(0.0)
    U, sigma, Vh = torch.linalg.svd(Q, full_matrices=False)
    slopes = case.slopes(sigma)
    g = torch.linalg.matrix_norm(G)
    rounding = decomposition_error(case.m, case.n) * (g + slopes.middle.norm(dim=-1)) + slopes.radius.norm(dim=-1)
    residual = torch.linalg.matrix_norm((U * slopes.middle[:, None, :]) @ Vh - G) + rounding
    size = torch.linalg.matrix_norm(Q)
    relative = residual / strong_convexity(case, found) / size
    total = asymmetry(G, Q) / (g * size)
    radius = 8 * relative / (1 - relative).clamp(min=0) + 8 * decomposition_error(case.m, case.n)
    fine = torch.isfinite(total) & torch.isfinite(radius) & (relative < 1)
    return Ball(total.where(fine, 0.0), radius.where(fine, torch.inf), min(slopes.rigour, Rigour.CERTIFIED))


aligned_factors = Claim(
    name="aligned-factors",
    statement="Where H has a part c r^p, p > 1, every optimum is aligned: GᵀQ* and GQ*ᵀ are symmetric and positive "
    "semidefinite, as quasi-Newton on all entries of Q finds them.",
    latex=r"G^\top Q^* = Q^{*\top} G \succeq 0, \qquad G Q^{*\top} = Q^* G^\top \succeq 0",
    source="Su, arXiv 2511.00674, Proposition 3.1; equality in von Neumann's inequality",
    equality=True,
    hypotheses={"solved": lambda case: case.solved},
    margin=misalignment,
    draw=draw(smooth, rotated=True),
    enclosable=False,  # the distance to Q* rests on float64 singular vectors
    proof="aligned-factors",
)


def turns(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Orthogonal left (m × m) and right (n × n) factors: free, near I, permutations, signs; and a stretch."""
    size = len(made)
    kind = rng.integers(4, size=size)

    def factor(rows: int) -> Tensor:
        free = orthonormal(rng, size, rows, rows).numpy()
        noise = 10 ** rng.uniform(-8, -1, (size, 1, 1)) * rng.standard_normal((size, rows, rows))
        near = torch.linalg.qr(torch.from_numpy(np.eye(rows) + noise))[0]
        near = (near * near.diagonal(dim1=1, dim2=2).sign()[:, None, :]).numpy()
        shuffled = rng.permuted(np.broadcast_to(np.arange(rows), (size, rows)), axis=1)
        signs = rng.choice([-1.0, 1.0], (size, 1, rows)) * np.eye(rows)
        return torch.from_numpy(np.stack([free, near, np.eye(rows)[shuffled], signs])[kind, np.arange(size)])

    stretch = 1 + (rng.random(size) < 0.5) * rng.uniform(-1, 1, size) * 10 ** rng.uniform(-6, 0, size)
    return {"left": factor(made.m), "right": factor(made.n), "stretch": torch.from_numpy(stretch)}


def losses(case: Case) -> Ball:
    """The lesser of F(Q) − F(U diag(σ(Q)) Vᵀ) and F(U diag(σ(Q)) Vᵀ) − F*, over ‖σ(Q)‖‖g‖ + E H(‖Qζ‖).

    Q is the solver's optimum turned by the drawn factors: another matrix with singular vectors of its own."""
    Q = case["stretch"][:, None, None] * (case["left"] @ case.solution.Q.nan_to_num(0.0) @ case["right"].mT)
    sigma, g = case.spectrum(Q), case.spectrum(case.G)
    value = case.mean(sigma)
    aligned = value - (sigma * g).sum() - case.optimum
    size = norm(sigma).middle * norm(g).middle + value.middle
    return stack([loss(case, Q), aligned]).amin(-1) / size


misaligned = Claim(
    name="misaligned",
    statement="F(Q) ≥ F(U diag(σ(Q)) Vᵀ) ≥ F* for every Q with singular values σ(Q): singular vectors other than those "
    "of G = U diag(g) Vᵀ gain nothing.",
    latex=r"F(Q) \ge F(U \operatorname{diag}(\sigma(Q)) V^\top) \ge F^*",
    source="Su, arXiv 2511.00674, Proposition 3.1 and Lemma 4.1",
    hypotheses={"solved": lambda case: case.solved},
    margin=losses,
    draw=draw(any_curvature, rotated=True, extra=turns),
    proof="alignment",
)


def steps(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Steps D from the optimum, over σ₁, and a part along Q* itself, −4Q* to Q*: tiny, large, or of rank one."""
    size, m, n = len(made), made.m, made.n
    D = rng.standard_normal((size, m, n))
    thin = rng.standard_normal((size, m, 1)) * rng.standard_normal((size, 1, n))
    length = 10 ** rng.uniform(-7, 0.5, (size, 1, 1)) * (rng.random((size, 1, 1)) < 0.8)
    D = length * np.where(rng.random((size, 1, 1)) < 0.5, D, thin)
    along = np.where(rng.random(size) < 0.3, rng.uniform(-4, 1, size), 0.0)
    return {"D": torch.from_numpy(D), "along": torch.from_numpy(along)}


def growth(case: Case) -> Ball:
    """F(Q* + D) − F* less what is claimed of it, over E H(‖(Q* + D)ζ‖) + E H(‖Q*ζ‖), for the pair (g, σ)."""
    sigma, top = case.sigma, case.sigma.middle[:, :1, None]
    best = diagonal(sigma.middle, case.m, case.n)
    Q = best + case["along"][:, None, None] * best + case["D"] * top
    D = Q - best  # to rounding, by which its singular values may move
    there, away = case.spectrum(Q), case.spectrum(D)
    away = Ball(away.middle, away.radius + 2 * _EPS * torch.linalg.matrix_norm(D)[:, None], away.rigour)
    value, least = case.mean(there), case.mean(sigma)
    gain = (case.g * (Ball.of(Q.diagonal(dim1=1, dim2=2)) - sigma)).sum()
    excess = value - least - gain
    size = value.middle + least.middle
    return (excess - claimed(case, away, there)) / size.where(size > 0, 1.0)


def claimed(case: Case, away: Ball, there: Ball) -> Ball:
    """Σ over the powers c r^p in H: c E‖Dζ‖^p/(2^{p−1} − 1) for p ≥ 2, else c p(p−1) M^{p−2}‖D‖_F²/(2n).

    |x + d|^p − |x|^p − p|x|^{p−2}⟨x, d⟩ is at least |d|^p/(2^{p−1} − 1), or ½p(p−1)M^{p−2}|d|² by Taylor's formula; its
    mean at x = Q*ζ, d = Dζ is what F gains, as ∇F(Q*) = 0."""
    total = Ball.of(torch.zeros(len(case), dtype=torch.float64))
    for part in case.H.parts:
        if not isinstance(part, Power) or part.exponent == 1:
            continue
        p = part.exponent
        if p >= 2:
            total = total + case.mean(away.clamp(0.0), part) / (Ball.of(2.0) ** (p - 1) - 1.0)
        else:
            M = stack([there[:, 0], case.sigma[:, 0]]).amax(-1)
            square = (away * away).sum() / (2.0 * case.n)
            factor = Ball.of(part.scale) * p * (Ball.of(p) - 1.0)
            total = total + factor * square * M ** (p - 2)
    return total


uniqueness = Claim(
    name="uniqueness",
    statement="If H has a part c r^p, c > 0, p > 1, the optimum is unique: F(Q* + D) − F* ≥ c E‖Dζ‖^p/(2^{p−1} − 1) "
    "for p ≥ 2, which is c‖D‖_F²/n for p = 2, and ≥ c p(p−1) M^{p−2}‖D‖_F²/(2n) for p < 2, M the larger of ‖Q*‖₂ and "
    "‖Q* + D‖₂; such parts add up.",
    latex=r"F(Q^* + D) - F^* \ge \frac{c\,\mathbb{E}\|D\zeta\|^p}{2^{p-1}-1} \;(p \ge 2), \qquad "
    r"\frac{c\,p(p-1)}{2n} M^{p-2} \|D\|_F^2 \;(1 < p < 2)",
    source="the modulus of |x|^p: Lindqvist, Proc. Amer. Math. Soc. 109 (1990) 157, Lemma 4.2",
    hypotheses={"solved": lambda case: case.usable},
    margin=growth,
    draw=draw(smooth, extra=steps),
    proof="uniqueness",
)


def contractions(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Q within the wall: 1 where G is, anything where it is not; near the identity and of full length; or anything."""
    size, k = len(made), made.k
    g = made.G.diagonal(dim1=1, dim2=2)
    rest = torch.from_numpy(rng.uniform(-1, 1, (size, k)))
    free = torch.from_numpy(rng.standard_normal((size, made.m, made.n)))
    free = free / torch.linalg.matrix_norm(free, 2)[:, None, None]
    near = (
        diagonal(torch.ones_like(rest), made.m, made.n)
        + torch.from_numpy(10 ** rng.uniform(-3, 0, (size, 1, 1))) * free
    )
    U, _, Vh = torch.linalg.svd(near, full_matrices=False)
    kind = torch.from_numpy(rng.random(size))[:, None, None]
    Q = diagonal(rest.where(g == 0, 1.0), made.m, made.n).where(kind < 0.4, free)
    Q = (U @ Vh).where(kind > 0.7, Q)
    return {"Q": Q * (made.H.wall * _SHORT)}


def inside(case: Case) -> Tensor:
    """‖Q‖₂ ≤ r̃."""
    return case.spectrum(case["Q"])[:, 0].upper <= case.H.wall


def sharpness(case: Case, least: Ball) -> Ball:
    """F(Q) − F* − least·‖Q − r̃UVᵀ‖_F²/(2r̃) over r̃ Σ g, where E H vanishes, U and V being identities (G is diagonal).

    With k singular values of at most r̃, ‖Q − r̃UVᵀ‖_F² ≤ 2r̃ Σ (r̃ − u_iᵀQv_i), and F(Q) − F* = Σ g_i (r̃ − u_iᵀQv_i)."""
    wall, g = case.H.wall, case.spectrum(case.G)
    polar = wall * diagonal((case.G.diagonal(dim1=1, dim2=2) > 0).double(), case.m, case.n)
    apart = Ball.of(case["Q"]) - polar
    square = (apart * apart).sum().sum() / (2.0 * wall)
    lost = wall * g.sum() - case.inner(case["Q"], case.G)
    return (lost - least * square) / (wall * case.drawn.sum(-1))


def lone_wall(case: Case) -> Tensor:
    """H is a wall and nothing else, and G is diagonal with a positive entry."""
    straight = (diagonal(case.G.diagonal(dim1=1, dim2=2), case.m, case.n) == case.G).all(-1).all(-1)
    return isinstance(case.H, Wall) & straight & (case.G >= 0).all(-1).all(-1) & (case.drawn[:, 0] > 0)


def walls(rng: Generator) -> Curvature:
    """A wall alone."""
    return Wall(float(f"{10 ** rng.uniform(-2, 2):.4g}"))


wall_uniqueness = Claim(
    name="wall-uniqueness",
    statement="Under a lone wall r̃ and for G of full rank the only optimum is r̃UVᵀ: "
    "F(Q) − F* ≥ g_k ‖Q − r̃UVᵀ‖_F²/(2r̃) whenever ‖Q‖₂ ≤ r̃.",
    latex=r"\|Q\|_2 \le \tilde r \implies F(Q) - F^* \ge \frac{g_k}{2\tilde r}\,\|Q - \tilde r UV^\top\|_F^2",
    source="Bernstein and Newhouse, arXiv 2409.20325, Proposition 4; docs/theory.md, section 10",
    hypotheses={"a wall alone": lone_wall, "‖Q‖₂ ≤ r̃": inside, "full rank": lambda case: case.drawn[:, -1] > 0},
    margin=lambda case: sharpness(case, case.spectrum(case.G)[:, -1]),
    draw=draw(walls, extra=contractions),
    proof="wall-uniqueness",
)

a_wall_has_one_optimum = Claim(
    name="a-wall-has-one-optimum",
    statement="Under a lone wall r̃ there is no optimum but the polar factor on the range of G, whatever its rank: "
    "F(Q) − F* ≥ 10⁻² g₁ ‖Q − r̃UVᵀ‖_F²/(2r̃) whenever ‖Q‖₂ ≤ r̃.",
    latex=r"\|Q\|_2 \le \tilde r \implies F(Q) - F^* \ge 10^{-2}\,\frac{g_1}{2\tilde r}\,\|Q - \tilde r UV^\top\|_F^2",
    source="Bernstein and Newhouse, arXiv 2409.20325, Proposition 4: unique if and only if the rank is full",
    expected=Expected.FAILS,
    hypotheses={"a wall alone": lone_wall, "‖Q‖₂ ≤ r̃": inside},
    margin=lambda case: sharpness(case, 1e-2 * case.spectrum(case.G)[:, 0]),
    draw=draw(walls, kinds=("zeros", "moderate"), extra=contractions),
    proof="a-wall-has-one-optimum",
)

CLAIMS = (
    alignment,
    not_beaten,
    aligned_factors,
    misaligned,
    uniqueness,
    wall_uniqueness,
    a_wall_has_one_optimum,
)
