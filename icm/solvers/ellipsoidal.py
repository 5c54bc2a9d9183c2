"""Solutions of whitened programs brought back: Q = Q̃ S for inputs with a second moment, and what the way back costs.

S C Sᵀ = I + Δ with ‖Δ‖₂ ≤ δ (see `icm.program.ellipsoidal`), the computed G̃ is E away from G Sᵀ, and Q is rounded to
G's dtype. So F is evaluated at the Q that is returned, through the singular values of Q R, and with F̃, Q̃ for G̃

    F(Q) − F* ≤ (F(Q) − F̃(Q̃)) + (F̃(Q̃) − F̃*) + (F̃* − F*),

where the first is computed, the second is the gap of Q̃, and the last two errors are those of the computed first,
⟨∂f, rounding of QR⟩ + ½δ ⟨∂f, σ⟩ and the jumps of kinks, and F̃* − F* ≤ ‖E‖_F ρ + ½δ ‖g‖₂ ρ, ρ ≥ ‖Q̃*‖_F: stretching
all lengths by 1 + ½δ does to F* at most what shrinking G by that does.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from icm.program import Program
from icm.program.ellipsoidal import Ellipsoid
from icm.program.isotropic import onto_wall
from icm.solvers.boundedness import decide
from icm.solvers.certificate import inwards, norm, reach
from icm.solvers.solution import Solution, Status
from icm.sphere import expect

_EPS = torch.finfo(torch.float64).eps
_PRODUCT = 2 * _EPS  # ‖fl(AB) − AB‖_F/(‖A‖_F‖B‖_F) in float64; measured: at most 0.4 eps, inner size 2 to 1024
_ROUNDS = 8  # of shortening a Q that rounding has put beyond a wall


def from_whitened(program: Program, found: Solution, tol: float) -> Solution:
    """The Solution of a program with an input moment from that of `program.whitened()`; differentiable where `found`
    is. sigma and g stay those of Q C^{1/2} and G C^{−1/2}; tol bounds the gap as everywhere, or `error` of products."""
    ellipsoid, G, dtype = program.ellipsoid, program.G, program.G.dtype
    assert ellipsoid is not None
    lost = found.gap.isinf() & found.Q.isnan().flatten(-2).any(-1)
    exact = found.Q.detach().masked_fill(lost[..., None, None], 0.0)
    factor = _onto_floats(program, ellipsoid.restore(exact), lost)
    Q = (ellipsoid.restore(found.Q) * factor[..., None, None]).to(dtype)
    plain = Q.detach().masked_fill(lost[..., None, None], 0.0)
    largest = torch.finfo(dtype).max
    size = plain.abs().amax((-2, -1)).double()
    over = ~lost & (size > 0) & ~((size <= largest) & (size >= 1 / largest))
    over |= ~lost & (size == 0) & (exact.abs().amax((-2, -1)) > 0)
    plain, gone = plain.masked_fill(over[..., None, None], 0.0), lost | over
    gain = (plain.double() * G.double()).sum((-2, -1))
    error, value, gap = found.error, found.value.detach(), found.gap
    if error is None:
        value, gap = _at(program, found, plain, gain, gone)
    else:
        off = torch.linalg.matrix_norm(ellipsoid.lengths(plain) - exact.double())
        error = error + (off / norm(exact.double().flatten(-2))).where(~gone & (gain != 0), 0.0)
        error = error.masked_fill(over, math.inf)
        gap = gap + (found.gain.detach() - gain).abs().where(~gone, 0.0)
    gain = torch.where(lost, found.gain.detach(), gain).masked_fill(over, math.nan)
    value = torch.where(lost, found.value.detach(), value).masked_fill(over, math.nan)
    gap = torch.where(lost, found.gap, gap).masked_fill(over, math.inf)
    direction = None if found.direction is None else ellipsoid.restore(found.direction)
    if direction is not None:
        length = torch.linalg.matrix_norm(direction)[..., None, None]
        direction = (direction / length.where(length > 0, 1.0)).to(dtype)
    return replace(
        found,
        Q=Q.masked_fill(over[..., None, None], math.nan),
        sigma=(found.sigma.double() * factor[..., None]).masked_fill(over[..., None], math.nan).to(dtype),
        gain=_moved(found.gain, gain),
        value=_moved(found.value, value),
        gap=gap,
        statuses=_statuses(found, gain, gap, error, over, tol),
        direction=direction,
        tol=tol,
        gradient=G,
        error=error,
        input_moment=ellipsoid.C,
    )


def _moved(x: Tensor, to: Tensor) -> Tensor:
    """The numbers of `to`, with the derivatives of x."""
    return to if not x.requires_grad else x + (to - x.detach())


def _onto_floats(program: Program, Q: Tensor, lost: Tensor) -> Tensor:
    """Factors (…) for Q, float64, so that rounding the product to G's dtype takes nothing beyond a wall or kink."""
    ellipsoid, H, dtype = program.ellipsoid, program.H, program.G.dtype
    assert ellipsoid is not None
    factor = inwards(torch.ones_like(Q[..., 0, 0]), dtype, H)
    if math.isinf(H.wall):
        return factor
    # In float64 what passes the wall as isotropic answers do is left there, see `onto_wall`.
    limit = H.wall * (1 + (64 + max(Q.shape[-2:])) * _EPS) if dtype == torch.float64 else H.wall
    for _ in range(_ROUNDS):
        rounded = (Q * factor[..., None, None]).to(dtype)
        longest = torch.linalg.matrix_norm(ellipsoid.lengths(rounded), 2)
        over = (longest > limit) & ~lost
        if not bool(over.any()):
            break
        factor = torch.where(over, factor * (H.wall / longest) * (1 - torch.finfo(dtype).eps / 4), factor)
    return factor


def _at(program: Program, found: Solution, Q: Tensor, gain: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
    """(value, gap) of F at Q (…, m, n); 0 and ∞ where there is none."""
    ellipsoid, H, n = program.ellipsoid, program.H, program.dim
    assert ellipsoid is not None
    X = ellipsoid.lengths(Q)
    strain = ellipsoid.strain(Q, X)
    sigma, shrink = onto_wall(torch.linalg.svdvals(X), H, Q.shape[-2], n, Q.dtype, strain)
    e = expect(H, sigma.reshape(-1, sigma.shape[-1]), n, level=1)
    mean, relative, slopes = e.value.reshape(gain.shape), e.error.reshape(gain.shape), e.slopes.reshape(sigma.shape)
    value = mean - shrink * gain
    before = found.value.detach().where(~gone, 0.0)
    g = found.g.detach()
    rho = _rho(program, g)
    off = _PRODUCT * torch.linalg.matrix_norm(Q.double()) * torch.linalg.matrix_norm(ellipsoid.R)
    half = 0.5 * ellipsoid.delta * (1 + ellipsoid.delta)
    length = torch.linalg.vector_norm(sigma, dim=-1)
    here = norm(slopes) * off + half * (slopes * sigma).sum(-1) + relative * mean + 4 * _EPS * (mean + gain.abs())
    for radius, jump in H.kinks:
        stretch = (off + half * length) / math.sqrt(n)
        here = here + torch.where(sigma.amax(-1) + off + half * length >= radius, jump * stretch, 0.0)
    there = rho * (_whitening_error(ellipsoid, program.G) + half * norm(g))
    gap = 2 * found.gap + (value - before).clamp(min=0) + here + there.where(gain != 0, 0.0)
    zero = (Q == 0).flatten(-2).all(-1)  # which the whitened program has answered
    gap = gap.where(~zero | gone, found.gap)
    return value, gap.where(~gap.isnan(), math.inf)


def _whitening_error(ellipsoid: Ellipsoid, G: Tensor) -> Tensor:
    """A bound on ‖fl(G Sᵀ) − G Sᵀ‖_F (…)."""
    return _PRODUCT * norm(G.double().flatten(-2)) * torch.linalg.matrix_norm(ellipsoid.S)


def _rho(program: Program, g: Tensor) -> Tensor:
    """ρ (…) ≥ ‖Q̃*‖_F."""
    H, k = program.H, g.shape[-1]
    rows = g.reshape(-1, k)
    upper = decide(rows, program.dim, H).upper
    rho = reach(rows, program.dim, H, upper)
    return rho.clamp(max=H.wall * math.sqrt(k)).reshape(g.shape[:-1])


def _statuses(
    found: Solution, gain: Tensor, gap: Tensor, error: Tensor | None, over: Tensor, tol: float
) -> tuple[Status, ...]:
    """The Status of every element by its new gap or error; what is no question of accuracy stays."""
    good = gap <= tol * gain if error is None else error <= tol
    rows = zip(found.statuses, *(t.reshape(-1).tolist() for t in (good, gain > 0, over)), strict=True)
    statuses = []
    for status, fine, live, lost in rows:
        if lost:
            status = Status.OVERFLOW
        elif live and status in (Status.OPTIMAL, Status.STALLED):
            status = Status.OPTIMAL if fine else Status.STALLED
        statuses.append(status)
    return tuple(statuses)
