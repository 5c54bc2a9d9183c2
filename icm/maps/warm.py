"""σ* on a spectrum from the φ of a neighbour: what a refresh needs, without the search for a place to begin."""

from __future__ import annotations

import torch
from torch import Tensor

from icm.curvature import Curvature
from icm.maps.scalar import ScalarMap
from icm.solvers.certificate import reach, spectral_gap
from icm.solvers.general import Start, solve_general
from icm.solvers.solution import Status
from icm.solvers.spectrum import SpectralSolution, solve_spectrum
from icm.sphere import expect, uses_rule

_INNER = 0.01  # of tol for the iteration; it converges quadratically
_STEPS = 8  # beyond which the neighbour was none


def solve_near(
    g: Tensor, dim: int, H: Curvature, tol: float, outputs: int, largest: float, near: list[ScalarMap | None]
) -> SpectralSolution:
    """`solve_spectrum` for g (B, k), begun at near[i](g_i). An answer stands by its gap alone, whatever was skipped to
    find it; where one misses tol, or a neighbour is missing or a multiple of the sign, all are solved anew."""
    starts = [None if phi is None or phi.jumps else phi(row) for phi, row in zip(near, g, strict=True)]
    begun = [start for start in starts if start is not None and bool((start > 0).any())]
    if len(begun) == len(g) and not uses_rule(H):
        found = _newton(g, dim, H, tol, outputs, torch.stack(begun).clamp(max=H.wall))
        if found is not None:
            return found
    return solve_spectrum(g, dim, H, method="auto", tol=tol, max_iterations=100, outputs=outputs, largest=largest)


def _newton(g: Tensor, dim: int, H: Curvature, tol: float, outputs: int, start: Tensor) -> SpectralSolution | None:
    """Newton's method from `start` (B, k), or None where some gap misses tol."""
    rho = reach(g, dim, H)
    if not bool(torch.isfinite(rho).all()):
        return None  # H grows linearly at last: whether the program is bounded has to be decided first
    none = torch.full_like(rho, torch.nan)
    sigma, low, count = solve_general(
        g, dim, H, Start(start, torch.zeros_like(start), none), rho, _INNER * tol, _STEPS, level=0
    )
    e = expect(H, sigma, dim, level=1, low=low)
    gain = (g * sigma).sum(-1)
    gap = spectral_gap(g, sigma, e, rho, outputs, dim, H)
    if not bool((gap <= tol * gain).all()):
        return None
    status = [Status.OPTIMAL] * len(g)
    return SpectralSolution(sigma, e.value - gain, gap, status, count, "newton", None, None, None)
