"""The full matrix program by quasi-Newton: no singular vector of G is used, so alignment is found, not assumed.

F(Q) = −Tr(Q Gᵀ) + E H(‖Qζ‖) and ∇F(Q) = U diag(∂f/∂σ) Vᵀ − G are exact at Q = U diag(σ) Vᵀ. F is minimised by L-BFGS
from a random Q, in units of ‖G‖_F and of the radius where H' balances it; a power c r^p through ½N(Q)² − ⟨G, Q⟩,
N(Q) = (E‖Qζ‖^p)^{1/p}, whose minimiser is stretched to length. That Q* shares the singular vectors
of G (Su, arXiv 2511.00674, Prop. 3.1) is then an observation about the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature, Power
from icm.errors import InputError
from icm.program import Program
from icm.solvers.certificate import mean_length, norm, reach
from icm.solvers.dual import length_of_power
from icm.solvers.full import begin, finish, radius_unit
from icm.solvers.solution import Solution
from icm.sphere import expect

_MEMORY = 20  # pairs of steps and gradient changes kept
_TRIALS = 40  # of step lengths in one line search
_DECREASE, _FLATTEN = 0.1, 0.9  # Wolfe's constants δ and σ
_NOISE = 1e-14  # relative rounding of an objective value: smaller changes cannot be seen
_CONE_TOL = 1e-8  # relative gap of the start where H has a finite slope at 0 or infinity
_PATIENCE = 60  # iterations without a smaller gap before the rounding floor is accepted


@dataclass(frozen=True, eq=False)
class Point:
    """A convex objective at one point per row: value (B,), its rounding noise (B,), gradient (B, N), and the relative
    gap (B,) there."""

    value: Tensor
    noise: Tensor
    gradient: Tensor
    gap: Tensor

    def take(self, rows: Tensor) -> Point:
        return Point(*(t[rows] for t in vars(self).values()))

    def put(self, rows: Tensor, other: Point) -> Point:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Point(*(t.index_copy(0, rows, o) for t, o in pairs))


Evaluate = Callable[[Tensor, Tensor], Point]


def solve_matrix(program: Program, tol: float = 1e-8, max_iterations: int = 2000, seed: int = 0) -> Solution:
    """argmin_Q F(Q) for H without a wall and G (…, m, n), by L-BFGS on all m·n entries from a random start.

    tol bounds gap/⟨G, Q⟩ with gap = ⟨∇F, Q⟩ + ρ‖∇F‖_F (see `certificate.matrix_gap`); what misses it is STALLED, as
    an optimum with all n singular values on a kink will be: F is not differentiable there. Whether F is bounded, and
    Q* = 0 under H'(0+) > 0, is decided beforehand from g. Everything runs in float64, batched, and is rounded to G's
    dtype at the end. `seed` makes the start.

    Raises InputError for an H with a wall: a step of L-BFGS knows no constraint.
    """
    if math.isfinite(program.H.wall):
        raise InputError(
            f"H = {program.H} is infinite beyond {program.H.wall:.6g}, a constraint that method='matrix' cannot keep: "
            "use method='newton', or 'reference' to stay with the full matrix"
        )
    task, H = begin(program), program.H
    G = task.G[task.rows]
    Q, iterations = G, task.rows
    if len(task.rows):
        start = _random_start(G, seed)
        if isinstance(H, Power):
            Q, iterations = _solve_power(G, H, start, 0.5 * tol, max_iterations)
        else:
            Q, iterations = _solve_general(G, H, task.dual, start, 0.5 * tol, max_iterations)
    return finish(program, task, Q, iterations, "matrix", tol)


def _solve_power(G: Tensor, H: Power, start: Tensor, tol: float, max_iterations: int) -> tuple[Tensor, Tensor]:
    """Q* (B, m, n) for H = c r^p, p > 1, and the iterations (B,)."""
    size = norm(G.flatten(1))
    V, N, iterations = _norm_dual(G / size[:, None, None], H.exponent, start, tol, max_iterations)
    length = length_of_power(H, size, N)
    return V * length[:, None, None], iterations


def _norm_dual(G: Tensor, p: float, start: Tensor, tol: float, max_iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """argmin ½N(V)² − ⟨G, V⟩ (B, m, n) for ‖G‖_F = 1, N(V) = (E‖Vζ‖^p)^{1/p}; N there (B,), and the iterations (B,).

    tol bounds the relative gap of c r^p at Q = ℓV with ∇F(Q) parallel to the gradient here, or that of ½N² for p = 1.
    """
    dim = G.shape[-1]
    kappa = mean_length(dim)

    def evaluate(v: Tensor, rows: Tensor) -> Point:
        d = G[rows]
        U, sigma, Vh = torch.linalg.svd(v.view_as(d), full_matrices=False)
        e = expect(Power(p), sigma, dim)
        N = e.value ** (1 / p)
        gradient = (U * (e.slopes * (N.square() / (p * e.value))[:, None])[:, None, :]) @ Vh - d
        # ρ/ℓ; for p = 1 the same bound of the minimiser of ½N², N† ≤ 1/κ.
        bound = (p * N ** (p - 2) / kappa) ** (1 / (p - 1)) / kappa if p > 1 else torch.full_like(N, kappa**-2)
        return _point(0.5 * N.square(), gradient, v, d, bound)

    v, iterations = minimise(evaluate, dim * start.flatten(1), tol, max_iterations)
    V = v.view_as(G)
    return V, expect(Power(p), torch.linalg.svdvals(V), dim).value ** (1 / p), iterations


def _solve_general(
    G: Tensor, H: Curvature, dual: Tensor | None, start: Tensor, tol: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Q* (B, m, n) for H for which the program is bounded and Q* ≠ 0, and the iterations (B,)."""
    dim, size = G.shape[-1], norm(G.flatten(1))
    direction = G / size[:, None, None]
    unit = math.sqrt(dim) * radius_unit(H, size, dim, dual)
    bound = reach(size[:, None], dim, H, dual) / unit
    before = torch.zeros_like(size, dtype=torch.int64)
    if dual is not None:
        # Near the cone of H at 0 or infinity Q* is nearly a multiple of the maximiser of ⟨G, V⟩/E‖Vζ‖.
        V, N, before = _norm_dual(direction, 1.0, start, _CONE_TOL, max_iterations)
        start = V / (math.sqrt(dim) * N)[:, None, None]

    def evaluate(x: Tensor, rows: Tensor) -> Point:
        d = direction[rows]
        U, sigma, Vh = torch.linalg.svd(x.view_as(d), full_matrices=False)
        e = expect(H, sigma * unit[rows, None], dim)
        gradient = (U * (e.slopes / size[rows, None])[:, None, :]) @ Vh - d
        return _point(e.value / (size * unit)[rows], gradient, x, d, bound[rows])

    x, iterations = minimise(evaluate, start.flatten(1), tol, max_iterations)
    return x.view_as(G) * unit[:, None, None], before + iterations


def _point(value: Tensor, gradient: Tensor, x: Tensor, direction: Tensor, bound: Tensor) -> Point:
    gradient = gradient.flatten(1)
    linear = (direction.flatten(1) * x).sum(-1)
    gap = bound * gradient.norm(dim=-1) + (gradient * x).sum(-1)
    # Where ⟨G, Q⟩ ≤ 0 the relative gap says nothing: Q = 0 is as good.
    # The two terms may cancel, near Q = 0 almost wholly: it is their rounding that hides small changes.
    noise = _NOISE * (value.abs() + linear.abs())
    return Point(value - linear, noise, gradient, (gap / linear).where(linear > 0, torch.inf).nan_to_num(nan=math.inf))


def _random_start(G: Tensor, seed: int) -> Tensor:
    """One random matrix of unit Frobenius norm for every batch element: the answer does not depend on the batch."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(G.shape[-2:], generator=generator, dtype=torch.float64).to(G.device)
    return (start / start.norm()).expand_as(G)


def minimise(evaluate: Evaluate, x: Tensor, tol: float, max_iterations: int) -> tuple[Tensor, Tensor]:
    """L-BFGS for a batch of smooth convex functions of x (B, N): the points of least gap, and the iterations (B,).

    `evaluate(x, rows)` describes the objective of the batch elements `rows` at x. A row stops when its relative gap is
    at most tol, when no step decreases its objective, or when the gap no longer falls.
    """
    rows = torch.arange(len(x), device=x.device)
    answer, iterations = x.clone(), torch.zeros_like(rows)
    here = evaluate(x, rows)
    best, stuck, failed = here.gap.clone(), torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
    memory = Memory(x.norm(dim=-1) / here.gradient.norm(dim=-1))
    for _ in range(max_iterations):
        going = (best > tol) & (stuck < _PATIENCE) & ~failed
        if not bool(going.all()):
            keep = going.nonzero()[:, 0]
            if len(keep) == 0:
                break
            rows, x, here, memory = rows[keep], x[keep], here.take(keep), memory.take(keep)
            best, stuck = best[keep], stuck[keep]
        step = memory.step(here.gradient)
        new, there, found = _search(evaluate, rows, x, here, step)
        # A search that fails is repeated along the gradient alone before the row is given up.
        failed = ~found & memory.fresh
        memory.add(new - x, there.gradient - here.gradient, found)
        x, here = new, there
        iterations[rows] += 1
        better = here.gap < best
        stuck = torch.where(better, 0, stuck + 1)
        best = torch.minimum(best, here.gap)
        answer[rows[better]] = x[better]
    return answer, iterations


class Memory:
    """The inverse Hessian that L-BFGS knows of: pairs (s, y), and its size where it knows nothing, one per row.

    Source: Nocedal & Wright, Numerical Optimization, 2nd ed., algorithm 7.4.
    """

    def __init__(self, scale: Tensor):
        self.scale, self.first = scale, scale
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def fresh(self) -> Tensor:
        """Which rows hold no pair (B,)."""
        return ~torch.stack([r > 0 for _, _, r in self.pairs]).any(0) if self.pairs else self.scale == self.scale

    def step(self, gradient: Tensor) -> Tensor:
        """−(inverse Hessian) gradient; a pair with weight 0 does nothing."""
        q = -gradient
        along = []
        for s, y, weight in reversed(self.pairs):
            a = weight * (s * q).sum(-1)
            along.append(a)
            q = torch.addcmul(q, a[:, None], y, value=-1)
        q = q * self.scale[:, None]
        for (s, y, weight), a in zip(self.pairs, reversed(along), strict=True):
            q = torch.addcmul(q, (a - weight * (y * q).sum(-1))[:, None], s)
        return q

    def add(self, s: Tensor, y: Tensor, found: Tensor) -> None:
        """Remember a step and its change of gradient where `found`; forget everything elsewhere."""
        curvature, size = (s * y).sum(-1), y.square().sum(-1)
        useful = found & (curvature > 1e-14 * s.norm(dim=-1) * y.norm(dim=-1))
        self.pairs = [(a, b, weight * found) for a, b, weight in self.pairs[-_MEMORY + 1 :]]
        self.pairs.append((s, y, torch.where(useful, 1 / curvature, 0.0)))
        self.scale = torch.where(useful, curvature / size, self.scale.where(found, self.first))

    def take(self, rows: Tensor) -> Memory:
        """The memory of some rows."""
        other = Memory(self.first[rows])
        other.scale = self.scale[rows]
        other.pairs = [(s[rows], y[rows], weight[rows]) for s, y, weight in self.pairs]
        return other


def _search(evaluate: Evaluate, rows: Tensor, x: Tensor, here: Point, step: Tensor) -> tuple[Tensor, Point, Tensor]:
    """x + t·step with Wolfe's conditions, one t per row, and whether it was found; rows without one stay at x.

    Where rounding hides the decrease, the slope speaks for it: t is taken if σφ'(0) ≤ φ'(t) ≤ (2δ−1)φ'(0) and φ has not
    visibly grown (Hager & Zhang, SIAM J. Optim. 16 (2005) 170). φ' grows with t, so its zero is bracketed.
    """
    slope = (here.gradient * step).sum(-1)
    t, low, high = (torch.full_like(slope, v) for v in (1.0, 0.0, math.inf))
    slope_low, slope_high = slope.clone(), torch.full_like(slope, math.nan)
    new, there = x.clone(), here
    found, open_ = torch.zeros_like(slope, dtype=torch.bool), slope < 0
    for _ in range(_TRIALS):
        at = open_.nonzero()[:, 0]
        if len(at) == 0:
            break
        trial_x = x[at] + t[at, None] * step[at]
        trial = evaluate(trial_x, rows[at])
        along, start = (trial.gradient * step[at]).sum(-1), slope[at]
        change = trial.value - here.value[at]
        fell = (change <= _DECREASE * t[at] * start) | (
            (change <= here.noise[at]) & (along <= (2 * _DECREASE - 1) * start)
        )
        done = fell & (along >= _FLATTEN * start)
        took = at[done]
        new[took], there = trial_x[done], there.put(took, trial.take(done.nonzero()[:, 0]))
        found[took], open_[took] = True, False
        far, near = at[~fell], at[fell & ~done]
        high[far], slope_high[far] = t[far], along[~fell]
        low[near], slope_low[near] = t[near], along[fell & ~done]
        t = _between(low, high, slope_low, slope_high)
    return new, there, found


def _between(low: Tensor, high: Tensor, slope_low: Tensor, slope_high: Tensor) -> Tensor:
    """The next t: the zero of the secant of φ', kept off the ends of the bracket; twice as far without a bracket."""
    share = slope_low / (slope_low - slope_high)
    share = torch.where(slope_high > 0, share, 0.5).nan_to_num(0.5).clamp(0.1, 0.9)
    return torch.where(high.isinf(), 2 * low, low + share * (high - low))
