"""σ* on a spectrum from the φ of a neighbour: what a refresh needs, without the search for a place to begin.

At σ = φ(g) Newton's step δ says how far φ is from an answer; its error is of second order. Singular values drift by a
few percent between refreshes, so one or two steps are enough where a solve from nothing takes ten.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature
from icm.maps.scalar import ScalarMap
from icm.solvers.newton import Domain, Local, newton_step
from icm.sphere import expect, uses_rule

_STEPS = 4  # beyond which the neighbour was none
_SHARE = 0.1  # of tol that the last step may be
_FALL = 0.5  # by which each step is shorter than the one before it
_ACCURACY = 1e-4  # of tol that the expectations may be off by
_DAMPING = 0.03  # of ‖g − ∇f‖/‖σ‖, added to the diagonal for H that is linear on all of the law


@dataclass(frozen=True, eq=False)
class Near:
    """sigma (B, k); moved (B,) = ‖δ‖/‖σ‖ of the last step, which bounds what is missing; other (B, k), σ* of the other
    spectrum to first order; found (B,), False where the neighbour was none and the rest is without meaning."""

    sigma: Tensor
    moved: Tensor
    other: Tensor
    found: Tensor


def solve_near(g: Tensor, other: Tensor, dim: int, H: Curvature, tol: float, near: list[ScalarMap | None]) -> Near:
    """σ* for g (B, k), and for `other` spectra next to them, from near[i](g_i), to a relative error of tol/10 or so.

    Not found: without a neighbour, from a multiple of the sign (whether it still is one has to be decided), for H that
    needs the general rule or grows linearly at last, and where steps do not fall by half.
    """
    batch = len(g)
    result = Near(torch.zeros_like(g), torch.full_like(g[:, 0], torch.inf), torch.zeros_like(g), g[:, 0] < 0)
    if uses_rule(H) or H.recession_slope < torch.inf:
        return result
    starts = torch.stack(
        [torch.zeros_like(g[i]) if phi is None or phi.jumps else phi(g[i]) for i, phi in enumerate(near)]
    )
    rows = (starts > 0).any(-1).nonzero()[:, 0]
    sigma, last = starts[rows].clamp(max=H.wall), torch.full((batch,), torch.inf, dtype=g.dtype)[rows]
    for _ in range(_STEPS):
        if not len(rows):
            break
        wanted = g[rows]
        here = _local(H, sigma, wanted, dim, _ACCURACY * tol)
        top = torch.full_like(last, H.wall)
        domain = Domain(torch.full_like(last, torch.inf), top if H.wall < torch.inf else None)
        free = domain.free(wanted - here.gradient, sigma)
        step = newton_step(here, wanted - here.gradient, free)
        new = domain.add(sigma, torch.zeros_like(sigma), step)[0]
        moved = (new - sigma).norm(dim=-1) / sigma.norm(dim=-1)
        done = moved <= _SHARE * tol
        if bool(done.any()):
            respond = newton_step(here, other[rows] - wanted, free)
            beside = domain.add(new, torch.zeros_like(new), respond)[0]
            for field, value in ((result.sigma, new), (result.moved, moved), (result.other, beside)):
                field[rows[done]] = value[done]
            result.found[rows[done]] = True
        going = ~done & (moved < _FALL * last)  # NaN goes nowhere
        rows, sigma, last = rows[going], new[going], moved[going]
    return result


def _local(H: Curvature, sigma: Tensor, g: Tensor, dim: int, accuracy: float) -> Local:
    """E H(‖Qζ‖) near σ (B, k), up to second order."""
    e = expect(H, sigma, dim, estimate=False, accuracy=accuracy)
    diagonal = e.stiffness
    if H.hinges:
        diagonal = diagonal + _DAMPING * ((g - e.slopes).norm(dim=-1) / sigma.norm(dim=-1))[:, None]
    zero = torch.zeros_like(e.size)
    return Local(e.value, e.slopes, diagonal, 4 / e.size, e.x, e.x.square(), e.weight, e.bend, zero)
