"""Newton's method on the singular values, for a whole batch at once, in O(k) memory per element.

The Hessian of f is D + 4 diag(x) L diag(x)/σ₁ with a positive diagonal D and the divided differences
L_ij = ½ (w_i − w_j)/(λ_i − λ_j) of one smooth function (see `sphere.Expectation`). L has small numerical rank, so a
few of its columns, chosen by pivoting, give a Newton step through one small linear system: no k × k matrix is formed.

f is even in every σ_i and ⟨g, |σ|⟩ ≥ ⟨g, σ⟩, so the search is unconstrained and iterates are reflected into σ ≥ 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_RANK = 32  # columns of L at most
_RANK_ERROR = 1e-7  # what may be left of the scaled L: the factor by which an iteration may miss quadratic convergence
_HALVINGS = 40
_ARMIJO = 1e-4
_NOISE = 1e-14  # relative rounding of an objective value: smaller decreases cannot be seen
_PATIENCE = 2  # iterations without a clearly smaller gap before the rounding floor is accepted


@dataclass(frozen=True, eq=False)
class Local:
    """A convex objective near one point per row: value (B,), gradient (B, k), and the parts of its Hessian
    diag(diagonal) + coupling · diag(x) L diag(x) + rank_one · gradient gradientᵀ."""

    value: Tensor
    gradient: Tensor
    diagonal: Tensor
    coupling: Tensor
    x: Tensor
    weight: Tensor
    bend: Tensor
    rank_one: Tensor

    def map(self, change: Callable[..., Tensor], *others: Local) -> Local:
        return Local(*(change(*ts) for ts in zip(*(vars(o).values() for o in (self, *others)), strict=True)))


@dataclass(frozen=True, eq=False)
class Minimum:
    """x (B, k), the objective's own value (B,) and gradient (B, k) there, and the iterations taken (B,)."""

    x: Tensor
    value: Tensor
    gradient: Tensor
    iterations: Tensor


def minimise(
    evaluate: Callable[[Tensor, Tensor], Local], g: Tensor, x: Tensor, reach: Tensor, tol: float, max_iterations: int
) -> Minimum:
    """argmin F(x) − ⟨g, x⟩ over x ≥ 0 for g (B, k), started at x (B, k).

    `evaluate(x, rows)` gives F near x for the batch elements `rows`. A row stops when the bound
    ⟨∇F − g, x⟩ + reach ‖(g − ∇F)₊‖ of its gap falls below tol ⟨g, x⟩, or no longer falls, or where F is not
    finite.
    """
    rows = torch.arange(len(x), device=x.device)
    here = evaluate(x, rows)
    x, value, gradient = x.clone(), here.value.clone(), here.gradient.clone()
    iterations, stuck = torch.zeros_like(rows), torch.zeros_like(rows)
    best = torch.full_like(reach, torch.inf)
    for _ in range(max_iterations):
        residual = g[rows] - here.gradient
        scale = (g[rows] * x[rows]).sum(-1)
        gap = reach[rows] * residual.clamp(min=0).norm(dim=-1) - (residual * x[rows]).sum(-1)
        fell = gap < 0.5 * best[rows]
        stuck[rows] = torch.where(fell | (gap > 1e-7 * scale), 0, stuck[rows] + 1)
        best[rows] = torch.minimum(gap, best[rows])
        going = (gap > tol * scale) & (stuck[rows] < _PATIENCE) & torch.isfinite(here.value)
        keep = going.nonzero()[:, 0]
        if len(keep) == 0:
            break
        if len(keep) < len(rows):
            rows, residual, here = rows[keep], residual[keep], here.map(lambda t, keep=keep: t[keep])
        step = _newton_step(here, residual)
        x[rows], here = _search(evaluate, rows, g[rows], x[rows], here, residual, step)
        value[rows], gradient[rows] = here.value, here.gradient
        iterations[rows] += 1
    return Minimum(x, value, gradient, iterations)


def _newton_step(here: Local, residual: Tensor) -> Tensor:
    """Hessian⁻¹ residual, with L replaced by its pivoted columns: (D + X S Xᵀ)⁻¹ by Woodbury's identity."""
    X, S = _low_rank(here)
    X = torch.cat([X, here.gradient[:, None, :]], 1)  # (B, r, k)
    inverse_S = torch.cat([S, 1 / here.rank_one.where(here.rank_one != 0, torch.inf)[:, None]], 1)
    # A column of weight zero is kept out of the small system by a unit diagonal and a zero row.
    live = (inverse_S != 0).to(X)
    X = X * live[:, :, None]
    small = torch.diag_embed(inverse_S + (1 - live)) + torch.bmm(X / here.diagonal[:, None, :], X.mT)
    straight = residual / here.diagonal
    bent, info = torch.linalg.solve_ex(small, torch.bmm(X, straight[:, :, None]))
    step = straight - torch.bmm(X.mT, bent)[:, :, 0] / here.diagonal
    # Rounding in a nearly flat Hessian can turn the step uphill; the preconditioned residual never does.
    good = ((step * residual).sum(-1) > 0) & (info == 0)
    return step.where(good[:, None], straight).nan_to_num(0.0, 0.0, 0.0)


def _low_rank(here: Local) -> tuple[Tensor, Tensor]:
    """X (B, r, k) and signs (B, r), 0 for no column, with coupling · diag(x) L diag(x) ≈ Xᵀ diag(signs) X.

    Symmetric elimination with the largest remaining diagonal of the matrix scaled by D as pivot. Only the pivots'
    columns of L are ever computed.
    """
    lam = here.x.square()
    scale = here.x * (here.coupling.abs()[:, None] / here.diagonal).sqrt()
    sign = here.coupling.sign()
    left = 0.5 * here.bend * scale.square() * sign[:, None]  # the diagonal not yet explained
    floor = _RANK_ERROR * left.abs().amax(-1).clamp(max=1)
    columns: list[Tensor] = []
    signs: list[Tensor] = []
    for _ in range(min(_RANK, lam.shape[1])):
        pivot = left.abs().argmax(-1, keepdim=True)
        size = left.gather(1, pivot)
        active = size.abs() > floor[:, None]
        if not bool(active.any()):
            break
        gap = lam - lam.gather(1, pivot)
        # Closer than this the quotient loses more digits than the derivative there does (error ~ gap).
        near = gap.abs() <= 1e-6 * lam
        rise = here.weight - here.weight.gather(1, pivot)
        L = torch.where(near, 0.5 * (here.bend + here.bend.gather(1, pivot)), rise / gap.masked_fill(near, 1.0))
        column = 0.5 * L * scale * scale.gather(1, pivot) * sign[:, None]
        for X, s in zip(columns, signs, strict=True):
            column = column - s * X.gather(1, pivot) * X
        column = torch.where(active, column / size.abs().sqrt(), 0.0)
        s = torch.where(active, size.sign(), 0.0)
        left = (left - s * column.square()).scatter(1, pivot, 0.0)
        columns.append(column)
        signs.append(s)
    if not columns:
        return lam.new_zeros(len(lam), 0, lam.shape[1]), lam.new_zeros(len(lam), 0)
    root = here.diagonal.sqrt()
    return torch.stack([X * root for X in columns], 1), torch.cat(signs, 1)


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
    for halving in range(_HALVINGS + 1):
        value = there.value - (g * there_x).sum(-1)
        # NaN and infinity compare false, so a step out of H's range is shortened.
        again = (~(value <= start - _ARMIJO * alpha * expected + noise)).nonzero()[:, 0]
        if len(again) == 0:
            break
        if halving == _HALVINGS:
            there_x[again] = x[again]
            return there_x, there.map(lambda t, old, again=again: t.index_copy(0, again, old[again]), here)
        alpha[again] *= 0.5
        there_x[again] = (x[again] + alpha[again, None] * step[again]).abs()
        closer = evaluate(there_x[again], rows[again])
        there = there.map(lambda t, new, again=again: t.index_copy(0, again, new), closer)
    return there_x, there
