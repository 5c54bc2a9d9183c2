"""`method="products"`: the program solved on the spectrum that products tell, and φ applied by products. No SVD."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature, as_curvature
from icm.errors import InputError
from icm.maps.compiled import Compiled, compile_map, precisions_for, unit_roundoff
from icm.maps.error import spread
from icm.maps.polynomial import Precision
from icm.maps.scalar import ScalarMap, from_spectrum
from icm.maps.statistics import Method, Spectrum, spectrum
from icm.maps.warm import solve_near
from icm.program import Program
from icm.solvers.certificate import reach, spectral_gap
from icm.solvers.solution import Solution, Status
from icm.solvers.spectrum import SpectralSolution
from icm.sphere import expect

_SOLVE_TOL = 1e-10  # of the reduced program, which costs little next to the products
_CORNERED_TOL = 1e-9
_FINE = 5e-3  # errors asked for below this need the statistics in float64


@dataclass(frozen=True, eq=False)
class Plan:
    """What one look at a batch of matrices (B, m, n) tells: their spectra, σ* of each, and φ compiled; None where Q = 0
    or where there is no answer."""

    spectrum: Spectrum
    found: SpectralSolution
    compiled: tuple[Compiled | None, ...]

    @property
    def domain(self) -> Tensor:
        """The ‖G‖₂ (B,) up to which the maps hold, float64; a quarter beyond that of G where Q = 0."""
        domains = [
            1.25 * float(top) if map is None else map.domain for map, top in zip(self.compiled, self.top, strict=True)
        ]
        return torch.tensor(domains, dtype=torch.float64)

    @property
    def top(self) -> Tensor:
        """‖G‖₂ (B,) when it was made, or a little more, float64."""
        return self.spectrum.top

    @property
    def length(self) -> Tensor:
        """‖σ‖₂ (B,), which is ‖Q‖_F for that G, float64."""
        return self.found.sigma[: len(self.compiled)].norm(dim=-1)

    def __call__(self, G: Tensor) -> Tensor:
        """Q (B, m, n) for G (B, m, n) with singular values near those planned for."""
        Q = torch.zeros_like(G)
        for i, map in enumerate(self.compiled):
            if map is not None:
                Q[i] = map(G[i])
        return Q


def plan(
    G: Tensor,
    H: Curvature | str,
    tol: float,
    *,
    statistics: Method = "auto",
    precisions: tuple[Precision, ...] | None = None,
    margin: float = 1.0,
    previous: Plan | None = None,
) -> Plan:
    """The plan for G (B, m, n) whose Q has an error within tol where that can be had.

    Statistics are in float32 first where tol allows it, and in float64 where that is not enough. Raises InputError for
    a G of other dimensions, GrammarError for a text that is no H.
    """
    if G.ndim != 3:
        raise InputError(f"G has shape {tuple(G.shape)}: a plan is for a stack (B, m, n); use G[None] for one matrix")
    H = as_curvature(H)
    if tol >= _FINE and G.dtype != torch.float64:
        made = _planned(G, H, tol, torch.float32, statistics, precisions, margin, previous)
        if all(map is None or map.error.total <= tol for map in made.compiled):
            return made
    return _planned(G, H, tol, torch.float64, statistics, precisions, margin, previous)


def _planned(
    G: Tensor,
    H: Curvature,
    tol: float,
    dtype: torch.dtype,
    statistics: Method,
    precisions: tuple[Precision, ...] | None,
    margin: float,
    previous: Plan | None,
) -> Plan:
    m, n = G.shape[-2:]
    known = spectrum(G, statistics, dtype=dtype)
    g, count = torch.cat([known.g, known.other]), len(G)
    solve_tol = _CORNERED_TOL if H.hinges or math.isfinite(H.wall) else _SOLVE_TOL
    largest = torch.finfo(G.dtype).max
    earlier = [None] * count if previous is None else previous.compiled
    near = [None if map is None else map.phi for map in (*earlier, *earlier)]
    found = solve_near(g, n, H, solve_tol, m, largest, near)
    allowed = precisions or precisions_for(G.dtype, G.device)
    compiled = [
        _compile(i, known, found, tol, allowed, margin, earlier[i], G.dtype, max(m, n) / min(m, n))
        for i in range(count)
    ]
    return Plan(known, found, tuple(compiled))


def _compile(
    i: int,
    known: Spectrum,
    found: SpectralSolution,
    tol: float,
    precisions: tuple[Precision, ...],
    margin: float,
    previous: Compiled | None,
    dtype: torch.dtype,
    aspect: float,
) -> Compiled | None:
    sigma = found.sigma[i]
    if not bool(torch.isfinite(sigma).all()) or not bool((sigma > 0).any()):
        return None
    one = known[i]
    flat = found.flat is not None and bool(found.flat.held[i])
    phi = from_spectrum(one.g, sigma, flat)
    unsure = _unsure(phi, one, found, i + len(known.g))
    return compile_map(phi, one, tol, precisions, margin, previous, flat, unsure, unit_roundoff(dtype), aspect)


def _unsure(phi: ScalarMap, known: Spectrum, found: SpectralSolution, row: int) -> float:
    """What φ owes to the spectrum that it was solved for: how far the φ of another, at the edge of what is known, is
    from it."""
    sigma = found.sigma[row]
    if not bool((sigma > 0).any()):
        return 1.0
    flat = found.flat is not None and bool(found.flat.held[row])
    return spread(phi, from_spectrum(known.other, sigma, flat), known.g)


def solve_products(program: Program, tol: float, statistics: Method = "auto") -> Solution:
    """The solution of `program` by matrix products; tol bounds `Solution.error` = ‖Q − Q*‖_F/‖Q*‖_F.

    The working precision is the cheapest whose rounding leaves the error within tol. g and sigma are what the
    statistics tell of the singular values of G and Q. The gap is that of σ on those statistics, and what an error of
    that size can add to it at second order; it is an estimate. Under a wall Q may pass it by its error: value and gap
    are then those of Q/(1 + error), which does not. For an unbounded program no direction is computed.
    """
    G, H, dim = program.G, program.H, program.dim
    batch, (m, n) = G.shape[:-2], G.shape[-2:]
    flat_G = G.detach().reshape(-1, m, n)
    made = plan(flat_G, H, tol, statistics=statistics)
    found, g = made.found, made.spectrum.g
    count = len(g)
    Q = made(flat_G)
    sigma = torch.stack([torch.zeros_like(g[i]) if map is None else map.sigma(g[i]) for i, map in _each(made)])
    error = torch.tensor([0.0 if map is None else map.error.total for map in made.compiled], dtype=torch.float64)
    statuses = list(found.status[:count])
    lost = torch.tensor([s in (Status.UNBOUNDED, Status.OVERFLOW) for s in statuses])
    gain = (flat_G.double() * Q.double()).sum((-2, -1)).cpu()
    value, gap = _value(g, dim, H, sigma, error, gain, m)
    for i in range(count):
        if lost[i]:
            Q[i], sigma[i], error[i] = math.nan, math.nan, math.inf
            gap[i], value[i] = math.inf, -math.inf if statuses[i] is Status.UNBOUNDED else math.nan
        elif statuses[i] is Status.OPTIMAL and float(error[i]) > tol:
            statuses[i] = Status.STALLED
    device = G.device
    held = torch.zeros(count, dtype=torch.bool) if found.flat is None else found.flat.held[:count]
    return Solution(
        Q=Q.reshape(G.shape),
        sigma=sigma.to(device, G.dtype).reshape(*batch, -1),
        g=g.to(device).reshape(*batch, -1),
        gain=gain.to(device).reshape(batch),
        value=value.to(device).reshape(batch),
        gap=gap.to(device).reshape(batch),
        statuses=tuple(statuses),
        orthogonal=held.to(device).reshape(batch),
        iterations=found.iterations[:count].to(device).reshape(batch),
        method="products",
        tol=tol,
        curvature=H,
        margin=None if found.margin is None else found.margin[:count].to(device).reshape(batch),
        gradient=G,
        error=error.to(device).reshape(batch),
    )


def _each(made: Plan) -> list[tuple[int, Compiled | None]]:
    return list(enumerate(made.compiled))


def _value(
    g: Tensor, dim: int, H: Curvature, sigma: Tensor, error: Tensor, gain: Tensor, outputs: int
) -> tuple[Tensor, Tensor]:
    """(value, gap) (B,) for Q with singular values near sigma (B, k) and an error of that relative size."""
    inside = sigma.clamp(max=H.wall)
    e = expect(H, inside, dim)
    gap = spectral_gap(g, inside, e, reach(g, dim, H), outputs, dim, H)
    away = error * sigma.norm(dim=-1)
    # ∇F = 0 at Q*, so what is between Q and the modelled σ costs ½ D ‖Q − Q*‖², D the largest second derivative; the
    # coupling of the singular values adds at most as much again.
    steep = e.stiffness.amax(-1).nan_to_num(0.0)
    gap = gap + steep * away.square()
    if math.isfinite(H.wall):
        inwards = 1 / (1 + error)
        return e.value - inwards * gain, gap + (1 - inwards) * gain.abs()
    return e.value - gain, gap
