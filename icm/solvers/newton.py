"""Newton's method on the singular values, for a whole batch at once, in O(k) memory per element.

The Hessian of f is D + 4 diag(x) L diag(x)/σ₁ with a positive diagonal D and the divided differences
L_ij = ½ (w_i − w_j)/(λ_i − λ_j) of one smooth function (see `sphere.Expectation`). L has small numerical rank, so a
few of its columns, chosen by pivoting, give a Newton step through one small linear system: no k × k matrix is formed.

f is even in every σ_i and ⟨g, |σ|⟩ ≥ ⟨g, σ⟩, so without a wall the search is unconstrained and iterates are reflected
into σ ≥ 0. At a wall, coordinates that press against it are held and the others take the Newton step of their own
problem (Bertsekas, SIAM J. Control Optim. 20 (1982) 221).

Every iterate is a sum x + low of two floats: near a kink f depends on how far σ is from it, not on how large σ is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_RANK = 32  # columns of L at most
_RANK_ERROR = 1e-7  # what may be left of the scaled L: the factor by which an iteration may miss quadratic convergence
_HALVINGS = 40
_ARMIJO = 1e-4
_NOISE = 1e-14  # relative rounding of an objective value, for powers
_PATIENCE = 2  # iterations without a clearly smaller gap before the rounding floor is accepted


@dataclass(frozen=True, eq=False)
class Local:
    """A convex objective near one point per row: value (B,), gradient (B, k), and the parts of its Hessian
    diag(diagonal) + coupling · diag(x) L diag(x) + rank_one · gradient gradientᵀ, with L_ij the divided differences
    ½ (weight_i − weight_j)/(lam_i − lam_j), on the diagonal ½ bend_i."""

    value: Tensor
    gradient: Tensor
    diagonal: Tensor
    coupling: Tensor
    x: Tensor
    lam: Tensor
    weight: Tensor
    bend: Tensor
    rank_one: Tensor

    def map(self, change: Callable[..., Tensor], *others: Local) -> Local:
        return Local(*(change(*ts) for ts in zip(*(vars(o).values() for o in (self, *others)), strict=True)))


@dataclass(frozen=True, eq=False)
class Domain:
    """Where x may lie: 0 ≤ x ≤ top (B,), top possibly infinite, or anywhere if `signed`; ‖x*‖₂ ≤ reach (B,)."""

    reach: Tensor
    top: Tensor | None = None
    signed: bool = False

    def __getitem__(self, rows: Tensor) -> Domain:
        return Domain(self.reach[rows], None if self.top is None else self.top[rows], self.signed)

    def add(self, x: Tensor, low: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """x + low + step as a sum of two floats, brought back into the domain."""
        step = low + step
        total = x + step
        back = total - x
        low = (x - (total - back)) + (step - back)
        if not self.signed:
            # Reflected, f being even; but a long step reflected at 0 and cut off at a wall would end where it began.
            bottom = total.abs() if self.top is None else total.clamp(min=0)
            low, total = torch.where(total < 0, -low if self.top is None else torch.zeros_like(low), low), bottom
        if self.top is not None:
            top = self.top[:, None]
            over = (total > top) | ((total == top) & (low > 0))
            low, total = low.masked_fill(over, 0.0), torch.minimum(total, top)
        return total, low

    def gap(self, residual: Tensor, x: Tensor) -> Tensor:
        """max ⟨residual, y − x⟩ over the y of the domain within reach, residual = −gradient of a convex objective: a
        bound of what is left to gain. (The bound of the bounded problem where that is smaller.)"""
        up = residual if self.signed else residual.clamp(min=0)
        gap = self.reach * up.norm(dim=-1) - (residual * x).sum(-1)
        if self.top is not None:
            box = up * (self.top[:, None] - x) + (up - residual) * x
            gap = torch.minimum(gap, box.sum(-1).nan_to_num(math.inf))
        return gap

    def free(self, residual: Tensor, x: Tensor) -> Tensor | None:
        """The coordinates (B, k) that do not press against the top; None where there is none."""
        return None if self.top is None else ~((x >= self.top[:, None]) & (residual > 0))


@dataclass(frozen=True, eq=False)
class Minimum:
    """x + low (B, k), the objective's own value (B,) and gradient (B, k) there, and the iterations taken (B,)."""

    x: Tensor
    low: Tensor
    value: Tensor
    gradient: Tensor
    iterations: Tensor


Evaluate = Callable[[Tensor, Tensor, Tensor], Local]


def minimise(
    evaluate: Evaluate,
    g: Tensor,
    x: Tensor,
    domain: Domain,
    tol: float,
    max_iterations: int,
    low: Tensor | None = None,
    noise: float = _NOISE,
) -> Minimum:
    """argmin F(x) − ⟨g, x⟩ over the domain for g (B, k), started at x (B, k), or x + low.

    `evaluate(x, low, rows)` gives F near x + low for the batch elements `rows`. A row stops when the domain's bound of
    its gap falls below tol ⟨g, x⟩, or no longer falls, or where F is not finite. `noise` is the relative rounding of an
    objective value: smaller decreases cannot be seen.
    """
    rows = torch.arange(len(x), device=x.device)
    x, low = domain.add(x, torch.zeros_like(x) if low is None else low, torch.zeros_like(x))
    here = evaluate(x, low, rows)
    value, gradient = here.value.clone(), here.gradient.clone()
    iterations, stuck = torch.zeros_like(rows), torch.zeros_like(rows)
    best = torch.full_like(domain.reach, torch.inf)
    for _ in range(max_iterations):
        residual = g[rows] - here.gradient
        scale = (g[rows] * x[rows]).sum(-1)
        gap = domain[rows].gap(residual, x[rows])
        fell = gap < 0.5 * best[rows]
        stuck[rows] = torch.where(fell | (gap > 1e-7 * scale), 0, stuck[rows] + 1)
        best[rows] = torch.minimum(gap, best[rows])
        going = (gap > tol * scale) & (stuck[rows] < _PATIENCE) & torch.isfinite(here.value)
        keep = going.nonzero()[:, 0]
        if len(keep) == 0:
            break
        if len(keep) < len(rows):
            rows, residual, here = rows[keep], residual[keep], here.map(lambda t, keep=keep: t[keep])
        step = newton_step(here, residual, domain[rows].free(residual, x[rows]))
        x[rows], low[rows], here = _search(
            evaluate, rows, g[rows], x[rows], low[rows], domain[rows], here, residual, step, noise
        )
        value[rows], gradient[rows] = here.value, here.gradient
        iterations[rows] += 1
    return Minimum(x, low, value, gradient, iterations)


def newton_step(here: Local, residual: Tensor, free: Tensor | None) -> Tensor:
    """Hessian⁻¹ residual, with L replaced by its pivoted columns: (D + X S Xᵀ)⁻¹ by Woodbury's identity; on the free
    coordinates alone where others are held."""
    X, S = _low_rank(here)
    X = torch.cat([X, here.gradient[:, None, :]], 1)  # (B, r, k)
    inverse_S = torch.cat([S, 1 / here.rank_one.where(here.rank_one != 0, torch.inf)[:, None]], 1)
    # A column of weight zero is kept out of the small system by a unit diagonal and a zero row.
    live = (inverse_S != 0).to(X)
    X = X * live[:, :, None]
    if free is not None:
        X, residual = X * free[:, None, :], residual * free
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
    lam = here.lam
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
        near = gap.abs() <= 1e-6 * lam.abs()
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
    evaluate: Evaluate,
    rows: Tensor,
    g: Tensor,
    x: Tensor,
    low: Tensor,
    domain: Domain,
    here: Local,
    residual: Tensor,
    step: Tensor,
    noise: float,
) -> tuple[Tensor, Tensor, Local]:
    """x + α·step for the first α = 1, ½, ¼, … that decreases the objective enough; rows that find none stay."""
    start = here.value - (g * x).sum(-1)
    slack = noise * (here.value.abs() + (g * x).sum(-1).abs())
    there_x, there_low = domain.add(x, low, step)
    there = evaluate(there_x, there_low, rows)
    alpha = torch.ones_like(start)
    for halving in range(_HALVINGS + 1):
        value = there.value - (g * there_x).sum(-1)
        moved = alpha[:, None] * step if domain.top is None else (there_x - x) + (there_low - low)
        # NaN and infinity compare false, so a step out of H's range is shortened.
        again = (~(value <= start - _ARMIJO * (residual * moved).sum(-1) + slack)).nonzero()[:, 0]
        if len(again) == 0:
            break
        if halving == _HALVINGS:
            there_x[again], there_low[again] = x[again], low[again]
            return there_x, there_low, there.map(lambda t, old, again=again: t.index_copy(0, again, old[again]), here)
        alpha[again] *= 0.5
        there_x[again], there_low[again] = domain[again].add(x[again], low[again], alpha[again, None] * step[again])
        closer = evaluate(there_x[again], there_low[again], rows[again])
        there = there.map(lambda t, new, again=again: t.index_copy(0, again, new), closer)
    return there_x, there_low, there
