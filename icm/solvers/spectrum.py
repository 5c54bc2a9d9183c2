"""The reduced program solved and certified: from G's singular values to those of Q*. Scale first, then Newton.

A pure power c r^p is solved through its norm N(σ) = (E‖Qζ‖^p)^{1/p}: minimise ½N² − ⟨g, σ⟩, which is free of scale
and as well conditioned at p = 1.01 as at p = 10, then stretch the answer to length. Other H are solved in units of
‖g‖ and of the radius where H' balances it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from icm.curvature import Curvature, Power
from icm.errors import InputError
from icm.solvers import certificate
from icm.solvers.boundedness import Decision, decide
from icm.solvers.closed_form import coefficients, solve_closed_form
from icm.solvers.dual import length_of_power, norm_dual
from icm.solvers.flat import Flat, decide_flat
from icm.solvers.general import Start, solve_general, start_beside, start_of
from icm.solvers.solution import Status
from icm.sphere import expect, uses_rule

_INNER = 0.01  # of tol for the iteration: convergence is quadratic, so this costs at most one more step
_DUAL_TOL = 1e-8
_SMALL = 512  # inputs up to which that is worth its price
_FIRST = 15  # steps before an answer beside a kink is looked for from closer by
_LEVELS = 4  # of the general rule, tried in turn before a solve is given up as stalled

SpectralMethod = Literal["auto", "newton", "closed-form"]


@dataclass(frozen=True, eq=False)
class SpectralSolution:
    """sigma (B, k), NaN where the program is unbounded or the optimum out of range; value, gap, iterations (B,) and
    status as in `Solution`; direction (B, k), where any element is unbounded, and margin (B,) if they were needed; what
    was decided at kinks and walls."""

    sigma: Tensor
    value: Tensor
    gap: Tensor
    status: list[Status]
    iterations: Tensor
    method: str
    direction: Tensor | None
    margin: Tensor | None
    flat: Flat | None


def solve_spectrum(
    g: Tensor,
    dim: int,
    H: Curvature,
    *,
    method: SpectralMethod = "auto",
    tol: float = 1e-10,
    max_iterations: int = 100,
    outputs: int | None = None,
    largest: float = torch.finfo(torch.float64).max,
) -> SpectralSolution:
    """argmin f(σ) − ⟨g, σ⟩ over σ ≥ 0 for g (B, k) ≥ 0, float64, with a gap that holds for a Q of `outputs` × dim
    assembled from computed factors (k × dim by default). An optimum with σ₁ outside
    [1/largest, largest] has Status.OVERFLOW.

    Raises InputError if a closed form is demanded of an H that has none.
    """
    form = None if method == "newton" else coefficients(H)
    if method == "closed-form" and form is None:
        raise InputError(f"H = {H} has no closed form here (a*r^2 + b*r^4 has); use method='newton'")
    decision = decide(g, dim, H, max_iterations)
    sigma, low, rho = torch.zeros_like(g), torch.zeros_like(g), torch.zeros_like(g[:, 0])
    rows, inner, outputs = decision.open.nonzero()[:, 0], _INNER * tol, outputs or g.shape[1]
    iterations, flat = decision.iterations.clone(), None
    if H.kinks or math.isfinite(H.wall):
        flat = decide_flat(g, dim, H, outputs, rows)
        sigma = flat.sigma.clone()
    if flat is not None:
        sigma = _inside(g, H, flat, sigma, tol, certificate.corner_slack(outputs, dim))
    if len(rows):
        rho[rows] = certificate.reach(g[rows], dim, H, None if decision.upper is None else decision.upper[rows])
        rows = rows if flat is None else rows[~flat.held[rows]]
    if len(rows):
        active = g[rows]
        if form is not None:
            sigma[rows], count = solve_closed_form(active, dim, *form)
        elif isinstance(H, Power):
            sigma[rows], rho[rows], count = _solve_power(active, dim, H, inner, max_iterations)
        else:
            start = start_of(active, dim, H, _along_dual(decision, rows, H), None if flat is None else flat.why, rows)
            first = max_iterations if flat is None else min(_FIRST, max_iterations)
            sigma[rows], low[rows], count = solve_general(active, dim, H, start, rho[rows], inner, first, level=0)
        iterations[rows] += count
    judge = _Judge(g, dim, H, rho, decision, flat, tol, outputs, largest)
    value, gap, status = judge.certify(sigma, low, level=0)
    rows = _rows(status, Status.STALLED, g.device)
    if flat is not None and decision.upper is None and len(rows):
        # The bound ‖g‖₂/κ_n of N† was enough for every other answer; the bound of σ* may need N† itself.
        dual = norm_dual(g[rows], dim, 1.0, _DUAL_TOL, max_iterations)
        rho[rows] = torch.minimum(rho[rows], certificate.reach(g[rows], dim, H, dual.upper))
        value, gap, status = judge.certify(sigma, low, level=0)
    for attempt in (_beside, _onwards):
        if flat is None:
            break
        # With kinks or a wall more than a few steps may be needed, or a start close beside a flat answer.
        rows = _rows(status, Status.STALLED, g.device)
        rows = rows[~flat.held[rows]]
        rows, again = attempt(g, dim, H, Start(sigma, low, torch.full_like(rho, math.nan)), flat, rows)
        if len(rows):
            steps = max_iterations
            sigma[rows], low[rows], count = solve_general(g[rows], dim, H, again, rho[rows], inner, steps, level=0)
            iterations[rows] += count
            value, gap, status = judge.certify(sigma, low, level=0)
    for level in range(1, _LEVELS if uses_rule(H) else 0):
        # A Custom H with detail finer than the rule's panels: refine the rule for the elements that need it.
        rows = _rows(status, Status.STALLED, g.device)
        rows = rows if flat is None else rows[~flat.held[rows]]
        if not len(rows):
            break
        again, before = Start(sigma, low, torch.full_like(gap, math.nan))[rows], gap[rows]
        sigma[rows], low[rows], count = solve_general(g[rows], dim, H, again, rho[rows], inner, max_iterations, level)
        iterations[rows] += count
        value, gap, status = judge.certify(sigma, low, level)
        if not bool((gap[rows] < 0.1 * before).any()):
            break  # what is left is noise in the user's function, and finer nodes only see more of it
    if flat is not None and math.isfinite(H.wall):
        pressing = (g - expect(H, sigma.nan_to_num(0.0), dim, low=low).slopes).clamp(min=0)
        flat = replace(flat, why=replace(flat.why, pressure=torch.where(sigma >= H.wall, pressing, 0.0)))
    lost = torch.tensor([s in (Status.UNBOUNDED, Status.OVERFLOW) for s in status], device=g.device)
    return SpectralSolution(
        sigma=sigma.masked_fill(lost[:, None], math.nan),
        value=value,
        gap=gap,
        status=status,
        iterations=iterations,
        method="newton" if form is None else "closed-form",
        direction=decision.v if Status.UNBOUNDED in status else None,
        margin=decision.margin,
        flat=flat,
    )


def _inside(g: Tensor, H: Curvature, flat: Flat, sigma: Tensor, tol: float, slack: float) -> Tensor:
    """σ of the answers held at a kink, a few roundings inside its radius where rounding across the jump would cost more
    than a share of tol."""
    jumps = sum(jump for _, jump in H.kinks)
    steep = flat.held & (jumps * slack > 0.05 * tol * g.sum(-1)) & (flat.why.right < math.inf)
    return torch.where(steep[:, None], sigma * (1 - 2 * slack), sigma)


def _rows(status: list[Status], wanted: Status, device: torch.device) -> Tensor:
    return torch.tensor([i for i, s in enumerate(status) if s is wanted], dtype=torch.int64, device=device)


def _beside(g: Tensor, dim: int, H: Curvature, reached: Start, flat: Flat, rows: Tensor) -> tuple[Tensor, Start]:
    """Those of the rows whose optimum may lie close beside a flat one, and a start there."""
    rows = rows[[flat.why.descends(row) and dim <= _SMALL for row in rows.tolist()]] if len(rows) else rows
    return rows, start_beside(g[rows], dim, H, flat.why, rows) if len(rows) else reached


def _onwards(g: Tensor, dim: int, H: Curvature, reached: Start, flat: Flat, rows: Tensor) -> tuple[Tensor, Start]:
    """All of the rows, from where they are."""
    return rows, reached[rows]


def _along_dual(decision: Decision, rows: Tensor, H: Curvature) -> Tensor | None:
    """Along the maximiser of the dual, which H' balances where it reaches N†; None where no dual was needed."""
    if decision.v is None or decision.length is None or decision.upper is None:
        return None
    return decision.v[rows] * (H.balancing_radius(decision.upper[rows]) / decision.length[rows])[:, None]


@dataclass(frozen=True, eq=False)
class _Judge:
    """Holds every answer to tol; those decided before any solve keep what was decided."""

    g: Tensor
    dim: int
    H: Curvature
    rho: Tensor
    decision: Decision
    flat: Flat | None
    tol: float
    outputs: int
    largest: float

    def certify(self, sigma: Tensor, low: Tensor, level: int) -> tuple[Tensor, Tensor, list[Status]]:
        """(value, gap, status) of every row at sigma + low (B, k)."""
        g, decision, status, inwards = self.g, self.decision, list(self.decision.status), torch.zeros_like(self.rho)
        e = expect(self.H, sigma.nan_to_num(0.0, 0.0, 0.0), self.dim, level=level + 1, low=low)
        if self.flat is not None:
            # They are those at the radius; σ may lie a little inside, where F is that much larger at most.
            inwards = torch.where(self.flat.held, (self.flat.sigma - sigma).amax(-1) * g.sum(-1), 0.0)
            held = self.flat.held[:, None] & (e.x > 0)
            e = replace(e, weight=torch.where(held, self.flat.slopes / (2 * e.x), e.weight))
        along = (g * sigma).sum(-1)
        value, gap = e.value - along, decision.gap.clone()
        for row, ended in enumerate(status):
            if ended in (Status.UNBOUNDED, Status.OVERFLOW):
                value[row] = -math.inf if ended is Status.UNBOUNDED else math.nan
        if bool(decision.open.any()):
            found = certificate.spectral_gap(g, sigma, e, self.rho, self.outputs, self.dim, self.H)
            gap = torch.where(decision.open, found + inwards, gap)
            in_range = certificate.in_range(along, sigma.amax(-1), self.largest)
            for row in (decision.open & ~(gap <= self.tol * along)).nonzero()[:, 0].tolist():
                status[row] = Status.STALLED
            for row in (decision.open & ~in_range).nonzero()[:, 0].tolist():
                status[row], value[row], gap[row] = Status.OVERFLOW, math.nan, math.inf
        return value, gap, status


def _solve_power(g: Tensor, dim: int, H: Power, tol: float, max_iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """σ* (B, k) for H = c r^p, p > 1, g not all zero; a bound (B,) of ‖σ*‖₂; and the iterations (B,)."""
    p = H.exponent
    size = g.amax(-1)
    # A relative gap δ in ½N² is one of δ p/(p−1) or less in the value of the power itself.
    dual = norm_dual(g / size[:, None], dim, p, tol * (p - 1) / p, max_iterations)
    length = length_of_power(H, size, dual.length)
    # N(σ*) = (N†/(c p))^{1/(p−1)}, and N(σ) ≥ E‖diag(σ)ζ‖ ≥ κ_n ‖σ‖₂.
    rho = (size * dual.upper / (H.scale * p)) ** (1 / (p - 1)) / certificate.mean_length(dim)
    return dual.v * length[:, None], rho, dual.iterations
