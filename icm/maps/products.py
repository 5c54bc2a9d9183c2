"""`method="products"`: the program solved on the spectrum that products tell, and φ applied by products. No SVD."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from icm.curvature import Curvature
from icm.maps.planning import plan
from icm.maps.statistics import Method
from icm.program import Program
from icm.solvers.certificate import reach, spectral_gap
from icm.solvers.solution import Solution, Status
from icm.sphere import expect


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
    found, g = made.answers, made.spectrum.g
    Q = made(flat_G)
    maps = list(enumerate(made.compiled))
    sigma = torch.stack([torch.zeros_like(g[i]) if map is None else map.sigma(g[i]) for i, map in maps])
    error, statuses = made.errors, list(found.status)
    lost = torch.tensor([s in (Status.UNBOUNDED, Status.OVERFLOW) for s in statuses])
    gain = (flat_G.double() * Q.double()).sum((-2, -1)).cpu()
    value, gap = _value(g, dim, H, sigma, error, gain, m)
    for i in range(len(g)):
        if lost[i]:
            Q[i], sigma[i], error[i] = math.nan, math.nan, math.inf
            gap[i], value[i] = math.inf, -math.inf if statuses[i] is Status.UNBOUNDED else math.nan
        elif statuses[i] is Status.OPTIMAL and float(error[i]) > tol:
            statuses[i] = Status.STALLED
    device = G.device
    return Solution(
        Q=Q.reshape(G.shape),
        sigma=sigma.to(device, G.dtype).reshape(*batch, -1),
        g=g.to(device).reshape(*batch, -1),
        gain=gain.to(device).reshape(batch),
        value=value.to(device).reshape(batch),
        gap=gap.to(device).reshape(batch),
        statuses=tuple(statuses),
        orthogonal=found.flat.to(device).reshape(batch),
        iterations=found.iterations.to(device).reshape(batch),
        method="products",
        tol=tol,
        curvature=H,
        margin=None if bool(found.margin.isnan().all()) else found.margin.to(device).reshape(batch),
        gradient=G,
        error=error.to(device).reshape(batch),
    )


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
