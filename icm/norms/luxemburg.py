"""The Luxemburg norm of a curvature on spectra: N(v) = inf {t > 0 : E H(‖diag(v)ζ‖/t) ≤ 1}, and max ⟨g, v⟩ over
N(v) ≤ 1 with an upper bound that proves it.

With f(v) = E H(‖diag(v)ζ‖), N(v) ≤ 1 says f(v) ≤ 1. Where no wall binds first, the maximiser solves μ∇f = g, f = 1,
for some μ > 0. Minimising m f^{τ+1}/(τ+1) − ⟨g, v⟩ gives m f^τ ∇f = g, a maximiser on its own level f, and m is
moved until that is 1: for τ > 0 the level hardly depends on m, and stays determined where f is linear on rays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature, Custom, Power
from icm.solvers.certificate import mean_length, norm
from icm.solvers.dual import norm_dual
from icm.solvers.flat import closed_form
from icm.solvers.gauge import gauge, lower_bound
from icm.solvers.newton import Domain, Local, minimise
from icm.sphere import expect, hinge_error

_EPS = torch.finfo(torch.float64).eps
_TAU = 3.0
_TOL, _TIGHT = 1e-14, 1e-16  # of ⟨g, v⟩; at a wall small g decide alone what is left to gain
_NOISE = 2.5e-15  # relative rounding of f for smooth H
_FLOOR, _DAMPING = 1e-12, 0.03  # curvature added in a Newton step, for H that has none off its kinks
_OUTER, _NEWTON, _ITERATIONS = 40, 100, 100
_RAY_STEPS, _RETRACTIONS = 10, 8
_PRESSED = 1e-9  # relative distance from a wall within which a value counts as stopped by it, for the bound
_GRID, _REFINED = 9, 2  # multipliers tried for a flat answer at a kink


@dataclass(frozen=True, eq=False)
class Luxemburg:
    """N for matrices of `dim` inputs; `unit` is the radius with H(unit) = 1, or the wall before it.

    Spectra are (B, k), k ≤ dim, float64, in any order; results (B,) or (B, k).
    """

    H: Curvature
    dim: int
    unit: float

    @property
    def kappa(self) -> float:
        """κ_n = E|ζ₁|: H(κ_n‖v‖₂) ≤ f(v), so ‖v‖₂ ≤ unit/κ_n on the unit ball."""
        return mean_length(self.dim)

    def length(self, sigma: Tensor) -> Tensor:
        """N(σ)."""
        size = sigma.amax(-1)
        alive = (size > 0).nonzero()[:, 0]
        found = torch.zeros_like(size)
        if len(alive):
            found[alive] = self._length(sigma[alive] / size[alive, None]) * size[alive]
        return found

    def _length(self, x: Tensor) -> Tensor:
        """N(x) for max x = 1: 1/s with E H(s‖diag(x)ζ‖) = 1, by Newton's method on log f as a function of log s.

        H(s E‖·‖) ≤ f(s) ≤ H(s) brackets it, E‖·‖ ≥ κ_n‖x‖.
        """
        H, one = self.H, torch.ones_like(x[:, 0])
        if isinstance(H, Power):
            if H.exponent == 2:
                return H.scale**0.5 * (x.square().sum(-1) / self.dim).sqrt()
            return expect(H, x, self.dim).value ** (1 / H.exponent)
        flat = (x.amin(-1) == 1) if x.shape[1] == self.dim else torch.zeros_like(one, dtype=torch.bool)
        low = one * math.log(self.unit)
        high = torch.minimum(low - (self.kappa * x.norm(dim=-1)).log(), one * math.log(H.wall))
        low, at = torch.minimum(low, high), high.clone()
        moving = (~flat & (low < high)).nonzero()[:, 0]
        at = torch.where(flat, low, at)
        for step in range(_NEWTON):
            if not len(moving):
                break
            s = at[moving].exp().clamp(max=H.wall)
            e = expect(H, s[:, None] * x[moving], self.dim, estimate=False)
            level = e.value.log()
            fine = (level <= 0) if step == 0 else torch.zeros_like(level, dtype=torch.bool)  # the wall came first
            a, b = torch.where(level <= 0, at[moving], low[moving]), torch.where(level > 0, at[moving], high[moving])
            move = -level * e.value / ((e.slopes * x[moving]).sum(-1) * s)
            new = at[moving] + move
            new = torch.where((new >= a) & (new <= b), new, (a + b) / 2)
            small = (new - at[moving]).abs() <= _EPS
            done = fine | small | (level.abs() <= _EPS) | (b - a <= 2 * _EPS)
            low[moving], high[moving] = a, b
            at[moving] = torch.where(fine, at[moving], new)
            moving = moving[~done]
        s = torch.where(flat, self.unit, at.exp().clamp(max=H.wall))
        for part in H.parts:
            if isinstance(part, Custom):  # convexity beyond the radii that it was checked at is not taken on trust
                part.reaching(float(s.amax()))
        return 1 / s

    def maximise(self, g: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
        """v ≥ 0 with N(v) = 1 where ⟨g, v⟩ is largest, 0 for g = 0 and, at a wall, off `support` (B, k), where g counts
        as 0; and where it is the corner of a kink, held there by a multiplier (B,)."""
        H, size = self.H, norm(g)
        v, held = torch.zeros_like(g), torch.zeros_like(size, dtype=torch.bool)
        rows = (g.amax(-1) > 0).nonzero()[:, 0]
        if not len(rows):
            return v, held
        g = g / size.where(size > 0, 1.0)[:, None]
        if self.dim == 1:
            v[rows] = self.unit
            return v, held
        if isinstance(H, Power):
            v[rows] = g[rows] if H.exponent == 2 else norm_dual(g[rows], self.dim, H.exponent, _TOL, _ITERATIONS).v
            v[rows] = v[rows] / self.length(v[rows])[:, None]
            return v, held
        if math.isfinite(H.wall):
            box = H.wall * support[rows].to(g.dtype)
            fits = expect(H, box, self.dim, estimate=False).value <= 1
            v[rows[fits]], rows = box[fits], rows[~fits]
            g = g.where(support, 0.0)
        if g.shape[1] == self.dim and len(rows):
            equal = (g[rows].amin(-1) == g[rows].amax(-1)) | self._at_corner(g[rows])
            v[rows[equal]], held[rows[equal]], rows = self.unit, True, rows[~equal]
        if len(rows):
            v[rows] = self._onto_sphere(self._on_level(g[rows]))
        return v, held

    def _onto_sphere(self, v: Tensor) -> Tensor:
        """v (B, k) near f(v) = 1 moved there, to N(v) = 1: what a wall stops stays, the rest is scaled by s, found by
        Newton's method on the convex s ↦ f."""
        wall = self.H.wall
        stopped = v >= wall
        if bool(stopped.any()):
            s, free = torch.ones_like(v[:, :1]), v.where(~stopped, 0.0)
            for _ in range(_RETRACTIONS):
                at = v.where(stopped, (s * v).clamp(max=wall))
                e = expect(self.H, at, self.dim, estimate=False)
                rise = (e.slopes * free.where(at < wall, 0.0)).sum(-1, keepdim=True)
                s = (s + torch.where(rise > 0, (1 - e.value[:, None]) / rise.where(rise > 0, 1.0), 0.0)).clamp(min=0)
            v = v.where(stopped, (s * v).clamp(max=wall))
        return (v / self.length(v)[:, None]).clamp(max=self.H.wall)

    def _at_corner(self, g: Tensor) -> Tensor:
        """Where unit·1 is a kink at which some multiplier A ≤ ξ ≤ B has E[ξ ζ_i²] = a g_i for some a > 0, (B,): then
        ⟨g, v⟩ is largest there. Decided by the closed form of ξ or by the gauge J(a g − A/n) ≤ B − A, see
        `solvers.flat`; the left side is convex in a."""
        none = torch.zeros_like(g[:, 0], dtype=torch.bool)
        if not any(abs(c - self.unit) <= 8 * _EPS * c for c, _ in self.H.kinks):
            return none
        at = min((c for c, _ in self.H.kinks), key=lambda c: abs(c - self.unit))
        A, B = (float(self.H.slope(at, side)) for side in ("left", "right"))
        least, most = closed_form(g, self.dim)
        found = (least > 0) & (A * most <= B * least)
        low, high = A / (self.dim * g.amin(-1)), B / (self.dim * g.amax(-1))
        rows = (~found & (low < high)).nonzero()[:, 0]
        low, high, g = low[rows, None], high[rows, None], g[rows]
        if not len(rows):
            return found
        share = torch.linspace(0, 1, _GRID + 2, dtype=g.dtype, device=g.device)[1:-1]
        for attempt in range(_REFINED + 1):
            a = low + (high - low) * share
            q = (a[..., None] * g[:, None] - A / self.dim).flatten(0, 1)
            J = (lower_bound(q)[0] if attempt == 0 else gauge(q).jump).view_as(
                a
            )  # the bound is cheap, and seldom far off
            best = J.argmin(-1, keepdim=True)
            fits = J.gather(1, best)[:, 0] <= B - A
            if attempt > 0:
                found[rows[fits]] = True
            going = fits if attempt == 0 else ~fits
            width = (high - low) / (_GRID + 1)
            low, high = (a.gather(1, best) + sign * width for sign in (-1, 1))
            rows, g, low, high = rows[going], g[going], low[going], high[going]
            if not len(rows):
                break
        return found

    def _on_level(self, g: Tensor) -> Tensor:
        """v near f(v) = 1 where ⟨g, v⟩ is largest on its level, for g (B, k) of unit length."""
        H = self.H
        noise = 4 * hinge_error(self.dim) if H.hinges else 4 * _NOISE
        v = self._start(g)
        unit = torch.ldexp(torch.ones_like(v[:, 0]), torch.frexp(v.norm(dim=-1))[1])
        e = expect(H, v, self.dim, estimate=False)
        log_m = ((g * v).sum(-1) / (e.slopes * v).sum(-1) / unit).log() - _TAU * e.value.log()
        x, radius = v / unit[:, None], self.unit / self.kappa
        top = H.wall / unit if math.isfinite(H.wall) else None
        domain = Domain(radius / unit, top)
        low, high = torch.full_like(log_m, -math.inf), torch.full_like(log_m, math.inf)
        before, rows = torch.full((2, len(g)), math.nan, dtype=g.dtype, device=g.device), torch.arange(len(g))
        rows = rows.to(g.device)
        for _ in range(_OUTER):
            at = log_m[rows]
            x[rows], level = self._minimise(g[rows], x[rows], at, unit[rows], domain[rows], noise)
            low[rows] = torch.where(level > 0, at, low[rows])
            high[rows] = torch.where(level < 0, at, high[rows])
            secant = (at - before[0, rows]) / (before[1, rows] - level)
            ratio = torch.where(torch.isfinite(secant) & (secant >= _TAU), secant, _TAU + 0.5)
            new = at + (ratio * level).clamp(-3, 3)
            a, b = low[rows], high[rows]
            middle = torch.where(torch.isfinite(a + b), (a + b) / 2, new)
            log_m[rows] = torch.where((new > a) & (new < b), new, middle)
            before[0, rows], before[1, rows] = at, level
            rows = rows[(level.abs() > noise) & (b - a > 2 * _EPS)]
            if not len(rows):
                break
        return x * unit[:, None]

    def _start(self, g: Tensor) -> Tensor:
        """A multiple of g, cut off at the wall, near f = 1."""
        if not math.isfinite(self.H.wall):
            return g / self.length(g)[:, None]
        low = (self.H.wall / g.amax(-1)).log() - math.log(self.dim)
        high = (self.H.wall / g.masked_fill(g <= 0, math.inf).amin(-1)).log()
        for _ in range(_RAY_STEPS):
            middle = (low + high) / 2
            v = (middle.exp()[:, None] * g).clamp(max=self.H.wall)
            above = expect(self.H, v, self.dim, estimate=False).value > 1
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (high.exp()[:, None] * g).clamp(max=self.H.wall)

    def _minimise(
        self, g: Tensor, x: Tensor, log_m: Tensor, unit: Tensor, domain: Domain, noise: float
    ) -> tuple[Tensor, Tensor]:
        """argmin m f^{τ+1}/(τ+1) − ⟨g, x⟩ for x = v/unit, and log f there."""
        H = self.H
        m = log_m.exp()

        def evaluate(x: Tensor, low: Tensor, rows: Tensor) -> Local:
            scale = unit[rows]
            e = expect(H, x * scale[:, None], self.dim, estimate=False, low=low * scale[:, None])
            first = m[rows] * e.value**_TAU
            value = first * e.value / (_TAU + 1)
            gradient = (first * scale)[:, None] * e.slopes
            diagonal = (first * scale.square())[:, None] * e.stiffness
            if H.hinges:
                diagonal = diagonal + _FLOOR + _DAMPING * (g[rows] - gradient).norm(dim=-1, keepdim=True)
            return Local(
                value,
                gradient,
                diagonal,
                4 * first * scale.square() / e.size,
                e.x,
                e.x.square(),
                e.weight,
                e.bend,
                _TAU / (first * e.value),
            )

        found = minimise(evaluate, g, x, domain, _TOL if domain.top is None else _TIGHT, _ITERATIONS, noise=noise)
        return found.x, ((_TAU + 1) * found.value / m).log() / (_TAU + 1)

    def upper(self, g: Tensor, v: Tensor, held: Tensor) -> Tensor:
        """An upper bound (B,) of max ⟨g, w⟩ over N(w) ≤ 1, from v (B, k) near the maximiser.

        Convexity gives ⟨∇f(v), w⟩ ≤ 1 − f(v) + ⟨∇f(v), v⟩ for f(w) ≤ 1, so with r = g − μ∇f(v), for every μ ≥ 0,

            ⟨g, w⟩ ≤ μ (1 − f(v) + ⟨∇f(v), v⟩) + ⟨r, w⟩,

        and w ≤ wall, ‖w‖₂ ≤ unit/κ_n bound the last term, H(κ_n ‖w‖₂) ≤ f(w) ≤ 1. Errors of evaluation are added.
        """
        e = expect(self.H, v, self.dim, level=1)
        free, d, wall = v < self.H.wall * (1 - _PRESSED), e.slopes, self.H.wall
        radius = self.unit / self.kappa
        gv, dv = ((t * v * free).sum(-1) for t in (g, d))
        mu = torch.where(dv > 0, gv / dv.where(dv > 0, 1.0), 0.0)
        rest = (g - mu[:, None] * d).clamp(min=0)
        ball = radius * norm(rest * free)
        if math.isfinite(wall):
            ball = torch.minimum(ball, wall * (rest * free).sum(-1)) + wall * (rest * ~free).sum(-1)
        dv = (d * v).sum(-1)
        error = e.error + 4 * _EPS
        bound = mu * (1 - e.value + dv) + ball + error * mu * (e.value + dv + radius * norm(d))
        if math.isfinite(wall):
            bound = torch.minimum(bound, wall * g.sum(-1))  # μ = 0
        bound = torch.where(held, (g * v).sum(-1), bound)
        return bound * (1 + 4 * _EPS)
