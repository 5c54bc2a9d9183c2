"""The reduced program solved and certified: from G's singular values to those of Q*. Scale first, then Newton.

A pure power c r^p is solved through its norm N(σ) = (E‖Qζ‖^p)^{1/p}: minimise ½N² − ⟨g, σ⟩, which is free of scale
and as well conditioned at p = 1.01 as at p = 10, then stretch the answer to length. Other H are solved in units of
‖g‖ and of the radius where H' balances it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from icm.curvature import Curvature, Power
from icm.errors import InputError
from icm.solvers import certificate
from icm.solvers.boundedness import Decision, decide
from icm.solvers.closed_form import coefficients, solve_closed_form
from icm.solvers.dual import length_of_power, norm_dual
from icm.solvers.newton import Local, minimise
from icm.solvers.solution import Status
from icm.sphere import expect, uses_rule

_INNER = 0.01  # of tol for the iteration: convergence is quadratic, so this costs at most one more step
_RAY_STEPS = 6
_LEVELS = 4  # of the general rule, tried in turn before a solve is given up as stalled

SpectralMethod = Literal["auto", "newton", "closed-form"]


@dataclass(frozen=True, eq=False)
class SpectralSolution:
    """sigma (B, k), NaN where the program is unbounded or the optimum out of range; value, gap, iterations (B,) and
    status as in `Solution`; direction (B, k), where any element is unbounded, and margin (B,) if they were needed."""

    sigma: Tensor
    value: Tensor
    gap: Tensor
    status: list[Status]
    iterations: Tensor
    method: str
    direction: Tensor | None
    margin: Tensor | None


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
    sigma, rho, iterations = torch.zeros_like(g), torch.zeros_like(g[:, 0]), decision.iterations.clone()
    rows, inner = decision.open.nonzero()[:, 0], _INNER * tol
    if len(rows):
        active, upper = g[rows], None if decision.upper is None else decision.upper[rows]
        rho[rows] = certificate.reach(active, dim, H, upper)
        if form is not None:
            sigma[rows], count = solve_closed_form(active, dim, *form)
        elif isinstance(H, Power):
            sigma[rows], rho[rows], count = _solve_power(active, dim, H, inner, max_iterations)
        else:
            start = _start(decision, rows, H)
            sigma[rows], count = _solve_general(active, dim, H, start, rho[rows], inner, max_iterations, level=0)
        iterations[rows] += count
    value, gap, status = _certify(g, dim, H, sigma, rho, decision, tol, outputs or g.shape[1], largest, level=0)
    for level in range(1, _LEVELS if uses_rule(H) else 0):
        # A Custom H with detail finer than the rule's panels: refine the rule for the elements that need it.
        rows = torch.tensor([i for i, s in enumerate(status) if s is Status.STALLED], dtype=torch.int64).to(g.device)
        if not len(rows):
            break
        again, before = sigma[rows], gap[rows]
        sigma[rows], count = _solve_general(g[rows], dim, H, again, rho[rows], inner, max_iterations, level)
        iterations[rows] += count
        value, gap, status = _certify(g, dim, H, sigma, rho, decision, tol, outputs or g.shape[1], largest, level)
        if not bool((gap[rows] < 0.1 * before).any()):
            break  # what is left is noise in the user's function, and finer nodes only see more of it
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
    )


def _start(decision: Decision, rows: Tensor, H: Curvature) -> Tensor | None:
    """Along the maximiser of the dual, which H' balances where it reaches N†; None where no dual was needed."""
    if decision.v is None or decision.length is None or decision.upper is None:
        return None
    return decision.v[rows] * (H.balancing_radius(decision.upper[rows]) / decision.length[rows])[:, None]


def _certify(
    g: Tensor,
    dim: int,
    H: Curvature,
    sigma: Tensor,
    rho: Tensor,
    decision: Decision,
    tol: float,
    outputs: int,
    largest: float,
    level: int,
) -> tuple[Tensor, Tensor, list[Status]]:
    """(value, gap, status) of every row: those left open are held to tol, the others keep what was decided."""
    status = list(decision.status)
    e = expect(H, sigma.nan_to_num(0.0, 0.0, 0.0), dim, level=level + 1)
    along = (g * sigma).sum(-1)
    value, gap = e.value - along, decision.gap.clone()
    for row, ended in enumerate(status):
        if ended in (Status.UNBOUNDED, Status.OVERFLOW):
            value[row] = -math.inf if ended is Status.UNBOUNDED else math.nan
    if bool(decision.open.any()):
        gap = torch.where(decision.open, certificate.spectral_gap(g, sigma, e, rho, outputs, dim), gap)
        in_range = certificate.in_range(along, sigma.amax(-1), largest)
        for row in (decision.open & ~(gap <= tol * along)).nonzero()[:, 0].tolist():
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


def _solve_general(
    g: Tensor, dim: int, H: Curvature, start: Tensor | None, reach: Tensor, tol: float, max_iterations: int, level: int
) -> tuple[Tensor, Tensor]:
    """σ* (B, k) for any smooth H for which the program is bounded and σ* ≠ 0, from `start` (B, k) or a guess; and
    the iterations (B,)."""
    size = certificate.norm(g)
    direction = g / size[:, None]
    if start is None:
        # A law concentrated at its mean has ‖Qζ‖ = ‖σ‖/√n and needs H' = √n ‖g‖ there.
        radius = H.balancing_radius(math.sqrt(dim) * size)
        start = direction * (math.sqrt(dim) * radius)[:, None]
        start = _on_ray(g, dim, H, start, level)
    unit = certificate.norm(start)

    def evaluate(x: Tensor, rows: Tensor) -> Local:
        e = expect(H, x * unit[rows, None], dim, level, estimate=False)
        return Local(
            e.value / (size[rows] * unit[rows]),
            e.slopes / size[rows, None],
            e.stiffness * (unit / size)[rows, None],
            4 * unit[rows] / (size[rows] * e.size),
            e.x,
            e.weight,
            e.bend,
            torch.zeros_like(e.size),
        )

    found = minimise(evaluate, direction, start / unit[:, None], reach / unit, tol, max_iterations)
    return found.x * unit[:, None], found.iterations


def _on_ray(g: Tensor, dim: int, H: Curvature, longest: Tensor, level: int) -> Tensor:
    """Near the minimiser of F on the ray of `longest` (B, k), between 1/√n of it and all of it.

    A spread law reaches far beyond its mean, where a steep H is too large by many powers of e; Newton's method would
    come back one e-folding at a time. F'(c) on a ray increases, so its zero is bracketed and halved in log c.
    """
    low, high = torch.full_like(longest[:, 0], -0.5 * math.log(dim)), torch.zeros_like(longest[:, 0])
    for _ in range(_RAY_STEPS if dim > 1 else 0):
        middle = 0.5 * (low + high)
        at = longest * middle.exp()[:, None]
        slope = ((expect(H, at, dim, level, estimate=False).slopes - g) * at).sum(-1)
        low, high = torch.where(slope > 0, low, middle), torch.where(slope > 0, middle, high)
    return longest * (0.5 * (low + high)).exp()[:, None]
