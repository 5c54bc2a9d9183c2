"""σ* for any H whose program is bounded and has an answer that is neither 0 nor flat: a start, and Newton's method."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature
from icm.solvers.certificate import norm
from icm.solvers.flat import Orthogonality, Reason
from icm.solvers.gauge import gauge, hinge
from icm.solvers.newton import Domain, Local, minimise
from icm.sphere import expect, hinge_error

_RAY_STEPS = 6
_NEAR_STEPS = 8
_NEAREST = 1e-12  # of r̃: least distance from a flat spectrum at which a start is looked for
_FAR = 3.0  # times the jump: a kink that would have to be this much stronger to hold the answer does not shape it
_SLACK = 1e-3  # by which the largest averages stay below what a kink can provide
_DECADES, _REFINED = 16, 8  # of floors tried for the smallest ones
_NOISE = 2.5e-15  # relative rounding of f for smooth H
_FLOOR, _DAMPING = 1e-12, 0.03  # of ‖g‖/‖σ‖: curvature added in a Newton step, for H that has none off its kinks


@dataclass(frozen=True, eq=False)
class Start:
    """σ = sigma + low (B, k), and the radius (B,) of the kink that it is near, NaN where there is none."""

    sigma: Tensor
    low: Tensor
    kink: Tensor

    def __getitem__(self, rows: Tensor) -> Start:
        return Start(self.sigma[rows], self.low[rows], self.kink[rows])


def start_of(g: Tensor, dim: int, H: Curvature, along: Tensor | None, why: Orthogonality | None, rows: Tensor) -> Start:
    """Where Newton's method begins for g (B, k), the elements `rows` of those that `why` speaks of: at `along`, if
    given, else near the minimiser on the ray of g; or beside r̃·1, where that is not optimal and it is lower there."""
    none = torch.full_like(g[:, 0], math.nan)
    if along is None:
        # A law concentrated at its mean has ‖Qζ‖ = ‖σ‖/√n and needs H' = √n ‖g‖ there.
        size = norm(g)
        along = (g / size[:, None]) * (math.sqrt(dim) * H.balancing_radius(math.sqrt(dim) * size))[:, None]
        along = _on_ray(g, dim, H, along)
    start = Start(along.clamp(max=H.wall), torch.zeros_like(g), none)
    left = [] if why is None else [i for i, row in enumerate(rows.tolist()) if why.reasons[row] is Reason.DESCENT]
    if why is None or not left:
        return start
    at = torch.tensor(left, device=g.device)
    start.kink[at] = why.radius[rows[at]]
    v = why.v[rows[at]]
    at = at[(v.amin(-1) < 0) & (v.amax(-1) > 0)]
    if len(at):
        mine = rows[at]
        q, jump = g[at] - why.left[mine, None] / dim, (why.right - why.left)[mine]
        at = at[(q * why.v[mine]).sum(-1) < _FAR * jump * hinge(why.v[mine])[0]]  # else the optimum is not close by
    if len(at):
        beside = _beside(g[at], dim, H, why.radius[rows[at]], why.v[rows[at]])
        here, there = (_objective(g[at], dim, H, s) for s in (Start(start.sigma[at], start.low[at], none[at]), beside))
        lower = there < here
        start.sigma[at[lower]], start.low[at[lower]] = beside.sigma[lower], beside.low[lower]
    return start


def start_beside(g: Tensor, dim: int, H: Curvature, why: Orthogonality, rows: Tensor) -> Start:
    """Near r̃·1 where the optimum is so near to it that no Newton step from afar finds the way.

    Close to r̃·1, σ* = r̃(1 + y) with y small, and the averages E[ξ ζ_i²] that the kink can provide fall short of
    g − A/n by a multiple of y. What falls short are the smallest entries, and those too large for B: they are clipped
    until the kink can provide them, and the extremal v of that is the direction of y.
    """
    A, jump = why.left[rows, None], (why.right - why.left)[rows, None]
    q = torch.minimum(g - A / dim, (1 - _SLACK) * jump / dim)
    scale = jump / dim * (1 - 2 * _SLACK)
    low, high = torch.full_like(jump, -1.0), torch.zeros_like(jump)
    low = low * _DECADES
    for points in (_DECADES, _REFINED):
        floors = low + (high - low) * torch.linspace(0, 1, points + 1, dtype=g.dtype, device=g.device)
        Q = torch.maximum(q[:, None, :], (scale * 10**floors)[:, :, None])
        found = gauge(Q.flatten(0, 1))
        enough = found.jump.view_as(floors) <= jump
        enough[:, -1] = True
        first = enough.to(torch.int8).argmax(-1, keepdim=True)
        low, high = floors.gather(1, (first - 1).clamp(min=0)), floors.gather(1, first)
        v = found.v.view_as(Q).gather(1, first[..., None].expand(-1, -1, dim))[:, 0]
    return _beside(g, dim, H, why.radius[rows], v)


def _objective(g: Tensor, dim: int, H: Curvature, at: Start) -> Tensor:
    return expect(H, at.sigma, dim, estimate=False, low=at.low).value - (g * at.sigma).sum(-1)


def _beside(g: Tensor, dim: int, H: Curvature, radius: Tensor, v: Tensor) -> Start:
    """r̃(1 + t v) with t near the minimiser of F on that ray, on which F first falls."""
    v = v / v.abs().amax(-1, keepdim=True)
    low, high = torch.full_like(radius, math.log(_NEAREST)), torch.full_like(radius, math.log(0.5))
    for _ in range(_NEAR_STEPS):
        middle = 0.5 * (low + high)
        sigma, rest = _stretched(radius, v, middle)
        slope = ((expect(H, sigma, dim, estimate=False, low=rest).slopes - g) * v).sum(-1)
        low, high = torch.where(slope > 0, low, middle), torch.where(slope > 0, middle, high)
    return Start(*_stretched(radius, v, low), radius)


def _stretched(radius: Tensor, v: Tensor, log: Tensor) -> tuple[Tensor, Tensor]:
    """r̃(1 + t v), t = e^log, as a float and what is below its rounding."""
    flat = radius[:, None].expand_as(v)
    return Domain(radius).add(flat, torch.zeros_like(v), flat * v * log.exp()[:, None])


def _on_ray(g: Tensor, dim: int, H: Curvature, longest: Tensor) -> Tensor:
    """Near the minimiser of F on the ray of `longest` (B, k), between 1/√n of it and all of it.

    A spread law reaches far beyond its mean, where a steep H is too large by many powers of e; Newton's method would
    come back one e-folding at a time. F'(c) on a ray increases, so its zero is bracketed and halved in log c.
    """
    low, high = torch.full_like(longest[:, 0], -0.5 * math.log(dim)), torch.zeros_like(longest[:, 0])
    for _ in range(_RAY_STEPS if dim > 1 else 0):
        middle = 0.5 * (low + high)
        at = longest * middle.exp()[:, None]
        slope = ((expect(H, at, dim, estimate=False).slopes - g) * at).sum(-1)
        low, high = torch.where(slope > 0, low, middle), torch.where(slope > 0, middle, high)
    return longest * (0.5 * (low + high)).exp()[:, None]


def solve_general(
    g: Tensor, dim: int, H: Curvature, start: Start, reach: Tensor, tol: float, max_iterations: int, level: int
) -> tuple[Tensor, Tensor, Tensor]:
    """σ* = sigma + low (B, k), both returned, and the iterations (B,), in units of ‖g‖ and of the start's length."""
    size = norm(g)
    direction = g / size[:, None]
    # A power of two: σ and what lies below its rounding keep their digits.
    unit = torch.ldexp(torch.ones_like(size), torch.frexp(norm(start.sigma))[1])
    cornered = bool(H.hinges)
    near = torch.isfinite(start.kink)

    def evaluate(x: Tensor, low: Tensor, rows: Tensor) -> Local:
        scale = unit[rows, None]
        sigma, low = x * scale, low * scale
        e = expect(H, sigma, dim, level, estimate=False, low=low)
        lam, diagonal = e.x.square(), e.stiffness * (unit / size)[rows, None]
        gradient = e.slopes / size[rows, None]
        if cornered:
            # H may be linear on all of the law: Levenberg's term, which vanishes with the residual.
            diagonal = diagonal + _FLOOR + _DAMPING * (direction[rows] - gradient).norm(dim=-1, keepdim=True)
            c = start.kink[rows, None]
            offset = (((sigma - c) + low) / e.size[:, None]) * ((sigma + c) / e.size[:, None])
            lam = torch.where(near[rows, None], offset, lam)
        return Local(
            e.value / (size[rows] * unit[rows]),
            gradient,
            diagonal,
            4 * unit[rows] / (size[rows] * e.size),
            e.x,
            lam,
            e.weight,
            e.bend,
            torch.zeros_like(e.size),
        )

    top = H.wall / unit if math.isfinite(H.wall) else None
    domain = Domain(reach / unit, top)
    x, low, noise = start.sigma / unit[:, None], start.low / unit[:, None], hinge_error(dim) if cornered else _NOISE
    found = minimise(evaluate, direction, x, domain, tol, max_iterations, low, 4 * noise)
    return found.x * unit[:, None], found.low * unit[:, None], found.iterations
