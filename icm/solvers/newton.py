"""Newton's method on the singular values, for a whole batch at once.

The Hessian of f is D + 4 diag(x) L diag(x)/σ₁ with a positive diagonal D and a divided-difference matrix L of one
smooth function (see `sphere.Expectation`). L has small numerical rank, so conjugate gradients preconditioned by D
need a handful of products: no factorisation, no k³.

f is even in every σ_i and ⟨g, |σ|⟩ ≥ ⟨g, σ⟩, so the search is unconstrained and iterates are reflected into σ ≥ 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_CG_ITERATIONS = 100
_HALVINGS = 60
_ARMIJO = 1e-4
_NOISE = 1e-14  # relative rounding of an objective value: smaller decreases cannot be seen
_PATIENCE = 2  # iterations without a clearly smaller gap before the rounding floor is accepted


@dataclass(frozen=True, eq=False)
class Local:
    """A convex objective near one point per row: value (B,), gradient (B, k), and the parts of its Hessian
    diag(diagonal) + coupling_scale · diag(x) L diag(x) + rank_one · gradient gradientᵀ."""

    value: Tensor
    gradient: Tensor
    diagonal: Tensor
    coupling_scale: Tensor
    x: Tensor
    weight: Tensor
    bend: Tensor
    rank_one: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return (
            self.value,
            self.gradient,
            self.diagonal,
            self.coupling_scale,
            self.x,
            self.weight,
            self.bend,
            self.rank_one,
        )

    def take(self, rows: Tensor) -> Local:
        return Local(*(t[rows] for t in self.tensors()))

    def put(self, rows: Tensor, other: Local) -> Local:
        return Local(*(t.index_copy(0, rows, o) for t, o in zip(self.tensors(), other.tensors(), strict=True)))


def minimise(
    evaluate: Callable[[Tensor, Tensor], Local],
    g: Tensor,
    x: Tensor,
    reach: Tensor,
    tol: float,
    max_iterations: int,
) -> tuple[Tensor, Tensor]:
    """argmin F(x) − ⟨g, x⟩ over x ≥ 0 for g (B, k), started at x (B, k); and the iterations taken (B,).

    `evaluate(x, rows)` gives F near x for the batch elements `rows`. A row stops when the bound
    ⟨∇F − g, x⟩ + reach ‖(g − ∇F)₊‖ of its gap falls below tol ⟨g, x⟩, or no longer falls.
    """
    x = x.clone()
    rows = torch.arange(len(x), device=x.device)
    iterations, stuck = torch.zeros_like(rows), torch.zeros_like(rows)
    best = torch.full_like(reach, torch.inf)
    here = evaluate(x, rows)
    for _ in range(max_iterations):
        residual = g[rows] - here.gradient
        scale = (g[rows] * x[rows]).sum(-1)
        gap = reach[rows] * residual.clamp(min=0).norm(dim=-1) - (residual * x[rows]).sum(-1)
        fell = gap < 0.5 * best[rows]
        stuck[rows] = torch.where(fell | (gap > 1e-7 * scale), 0, stuck[rows] + 1)
        best[rows] = torch.minimum(gap, best[rows])
        going = (gap > tol * scale) & (stuck[rows] < _PATIENCE)
        if not bool(going.all()):
            keep = going.nonzero()[:, 0]
            if len(keep) == 0:
                break
            rows, residual, here = rows[keep], residual[keep], here.take(keep)
        step = _direction(here, residual, g[rows])
        x[rows], here = _search(evaluate, rows, g[rows], x[rows], here, residual, step)
        iterations[rows] += 1
    return x, iterations


def _direction(here: Local, residual: Tensor, g: Tensor) -> Tensor:
    """The Newton step, by conjugate gradients to an accuracy that keeps the convergence quadratic."""
    L = coupling(here.x, here.weight, here.bend)
    L *= (here.coupling_scale[:, None] * here.x)[:, :, None]
    L *= here.x[:, None, :]

    def product(p: Tensor) -> Tensor:
        along = (here.gradient * p).sum(-1, keepdim=True)
        return (
            here.diagonal * p + torch.bmm(L, p[:, :, None])[:, :, 0] + here.rank_one[:, None] * along * here.gradient
        )

    relative = residual.norm(dim=-1) / g.norm(dim=-1)
    target = relative.clamp(max=0.1) * residual.norm(dim=-1)
    d = torch.zeros_like(residual)
    r, z = residual, residual / here.diagonal
    p, rz = z, (r * z).sum(-1)
    for i in range(_CG_ITERATIONS):
        Hp = product(p)
        curvature = (p * Hp).sum(-1)
        # Rounding can make the curvature of a nearly flat direction negative: keep what is known to descend.
        live = (curvature > 0) & (rz > 0)
        alpha = torch.where(live, rz / curvature, 0.0)
        if i == 0:
            alpha = torch.where(live, alpha, 1.0)
        d = d + alpha[:, None] * p
        r = r - alpha[:, None] * Hp
        if bool(((r.norm(dim=-1) <= target) | ~live).all()):
            break
        z = r / here.diagonal
        rz, before = (r * z).sum(-1), rz
        p = z + torch.where(live, rz / before, 0.0)[:, None] * p
    return d


def coupling(x: Tensor, weight: Tensor, bend: Tensor) -> Tensor:
    """L (B, k, k), L_ij = ½ (w_i − w_j)/(λ_i − λ_j) in λ = x², and ½ w'(λ_i) where λ_i and λ_j meet."""
    lam = x.square()
    gap = lam[:, :, None] - lam[:, None, :]
    # Closer than this the quotient loses more digits than the mean of the two derivatives (error ~ gap²) does.
    close = gap.abs() <= 1e-5 * lam[:, :, None]
    L = (weight[:, :, None] - weight[:, None, :]).div_(gap.masked_fill_(close, 1.0))
    return L.mul_(0.5).where(~close, 0.5 * bend[:, :, None])


def _search(
    evaluate: Callable[[Tensor, Tensor], Local],
    rows: Tensor,
    g: Tensor,
    x: Tensor,
    here: Local,
    residual: Tensor,
    step: Tensor,
) -> tuple[Tensor, Local]:
    """x + α·step for the first α = 1, ½, ¼, … that decreases the objective enough; rows that find none stay."""
    start = here.value - (g * x).sum(-1)
    noise = _NOISE * (here.value.abs() + (g * x).sum(-1).abs())
    expected = (residual * step).sum(-1)
    there_x = (x + step).abs()
    there = evaluate(there_x, rows)
    alpha = torch.ones_like(start)
    for _ in range(_HALVINGS):
        value = there.value - (g * there_x).sum(-1)
        # NaN and infinity compare false, so a step out of H's range is shortened.
        bad = ~(value <= start - _ARMIJO * alpha * expected + noise)
        if not bool(bad.any()):
            return there_x, there
        again = bad.nonzero()[:, 0]
        alpha[again] *= 0.5
        there_x[again] = (x[again] + alpha[again, None] * step[again]).abs()
        there = there.put(again, evaluate(there_x[again], rows[again]))
    again = bad.nonzero()[:, 0]
    there_x[again] = x[again]
    return there_x, there.put(again, here.take(again))
