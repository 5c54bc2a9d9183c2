"""Bounds on F(Q) − F*: from convexity, evaluated at the returned point, with the evaluation's own errors in them.

For σ ≥ 0 and any bound ρ ≥ ‖σ*‖₂ on the minimiser, convexity of f gives

    F(σ) − F* ≤ ⟨∇f(σ) − g, σ − σ*⟩ ≤ ⟨∇f(σ) − g, σ⟩ + ρ ‖(g − ∇f(σ))₊‖₂,

and for a Q that shares no singular vectors with G: F(Q) − F* ≤ ⟨∇F(Q), Q⟩ + ρ ‖∇F(Q)‖_F. Since
E H(‖Qζ‖) ≥ H(E‖Qζ‖) ≥ H(κ_n ‖Q‖_F), the largest t with H(κ_n t) ≤ ‖g‖₂ t is such a ρ. At a kink ∇f stands for any
subgradient. Under a wall r̃, σ* ≤ r̃ bounds the middle term by r̃ Σ (g − ∇f)₊ − ⟨g − ∇f, σ⟩ as well, and ‖Q*‖₂ ≤ r̃ the
other by ⟨∇F(Q), Q⟩ + r̃ ‖∇F(Q)‖_*, in the nuclear norm; ∇ is then that of the finite part of H.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from icm.curvature import Curvature
from icm.program.isotropic import onto_wall
from icm.solvers.flat import decide_flat
from icm.sphere import Expectation, expect
from icm.sphere.powers import gamma_ratio

_LEAST_GAIN = 1e-290
_EPS = torch.finfo(torch.float64).eps
_BESIDE = 0.1  # relative distance from a kink within which a flat neighbour is looked at
_INWARDS = 0.75  # of eps(dtype); measured on a million Q with equal singular values: rounding adds up to 0.55 eps


def decomposition_error(m: int, n: int) -> float:
    """A bound on ‖G − U diag(g) Vᵀ‖_F/‖G‖_F, and on ‖UᵀU − I‖_F, for factors computed in float64. Measured: up to
    48 eps and 0.7 n eps, over sizes from 2 to 2048 and condition numbers to 1e12."""
    return (64 + max(m, n)) * _EPS


def corner_slack(m: int, n: int) -> float:
    """A bound on E|‖Qζ‖ − ‖Q̃ζ‖|/‖Q‖₂, Q̃ the computed U diag(σ) Vᵀ; measured: below a fifth of it, n = 1 to 256."""
    return (16 + math.sqrt(max(m, n))) * _EPS


def mean_length(dim: int) -> float:
    """κ_n = E|ζ₁| = Γ(n/2)/(√π Γ((n+1)/2)): E‖Qζ‖ ≥ κ_n ‖Q‖_F, with equality at rank one."""
    return gamma_ratio(dim / 2, 0.5) / math.sqrt(math.pi)


def norm(x: Tensor) -> Tensor:
    """‖x‖₂ over the last dimension, free of overflow and underflow in the squares."""
    size = x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    return size[..., 0] * (x / size).norm(dim=-1)


def reach(g: Tensor, dim: int, H: Curvature, dual: Tensor | None = None) -> Tensor:
    """ρ (B,) ≥ ‖σ*‖₂ for g (B, k). `dual` is an upper bound of max ⟨g, v⟩/E‖diag(v)ζ‖, sharper than ‖g‖₂/κ_n."""
    kappa = mean_length(dim)
    longest = norm(g) / kappa if dual is None else dual
    return H.radius_at_chord(longest) / kappa


def spectral_gap(
    g: Float[Tensor, "b k"],
    sigma: Float[Tensor, "b k"],
    e: Expectation,
    rho: Float[Tensor, " b"],
    m: int,
    n: int,
    H: Curvature,
) -> Float[Tensor, " b"]:
    """The bound at Q = U diag(σ) Vᵀ (m × n) for σ (B, k), where e = expect(H, σ, n) or has a subgradient for slopes."""
    residual = g - e.slopes
    size, length = norm(g), e.size * e.x.norm(dim=-1)
    up = residual.clamp(min=0)
    core = rho * norm(up) - (residual * sigma).sum(-1)
    if math.isfinite(H.wall):
        box = (up * (H.wall - sigma) + (up - residual) * sigma).sum(-1)
        core, rho = torch.minimum(core, box), rho.clamp(max=H.wall * math.sqrt(g.shape[1]))
    evaluation = (e.error + 4 * _EPS) * (e.value + (g * sigma).sum(-1) + rho * norm(e.slopes))
    # Q solves the program of U diag(g) Vᵀ, a matrix this far from G: F moves by ⟨error, Q − Q*⟩. Rounding in Q itself
    # moves F by ⟨∇F, rounding⟩, and by its square, which at 1e−28 or so is left out.
    decomposition = decomposition_error(m, n) * (size * (length + rho) + norm(residual) * length)
    # At a kink within reach that is not of second order: F moves by the jump times the mean of |‖Qζ‖ − ‖Q̃ζ‖|.
    slack = corner_slack(m, n)
    corners = torch.zeros_like(size)
    for radius, jump in H.kinks:
        corners = corners + torch.where(e.size * (1 + slack) >= radius, jump * e.size * slack, 0.0)
    gap = core.clamp(min=0) + evaluation + decomposition + corners
    return gap.where(~gap.isnan(), torch.inf)


def matrix_gap(
    G: Float[Tensor, "b m n"],
    Q: Float[Tensor, "b m n"],
    dim: int,
    H: Curvature,
    dual: Float[Tensor, " b"] | None = None,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """(value, gap) of F at any Q (B, m, n), float64 like G: the gradient is evaluated exactly at that Q. `dual` is as
    in `reach`. Both are ∞ for a Q beyond a wall; one beyond it by rounding counts as on it, see `onto_wall`."""
    m, n = Q.shape[-2:]
    U, sigma, Vh = torch.linalg.svd(Q, full_matrices=False)
    sigma, factor = onto_wall(sigma, H, m, n, Q.dtype)
    Q = factor[:, None, None] * Q
    e = expect(H, sigma, dim, level=1)
    linear, size = (Q * G).sum((-2, -1)), norm(G.flatten(1))
    value, relative = e.value - linear, e.error + decomposition_error(m, n)
    rho = reach(size[:, None], dim, H, dual)
    gap = _bound(G, Q, (U * e.slopes[:, None, :]) @ Vh, rho, H, relative)
    if H.kinks and m >= n:
        rows, radius, polar, slopes = _beside(G, U @ Vh, sigma, H)
        # F(Q) − F* = (F(Q) − F(flat)) + (F(flat) − F*)
        flat = radius[:, None, None] * polar
        there = H(radius) - (flat * G[rows]).sum((-2, -1))
        bound = value[rows] - there + _bound(G[rows], flat, slopes, rho[rows], H, relative[rows])
        gap[rows] = torch.minimum(gap[rows], bound.clamp(min=0))
    # The gradient is exact at the matrix of the computed singular values. From there to Q, F moves by the jump of H'
    # times the mean of |‖Qζ‖ − ‖Q̃ζ‖| ≤ ‖Q − Q̃‖_F/√n, for every kink that ‖Qζ‖ may pass.
    jumps = sum((jump * (e.size * (1 + decomposition_error(m, n)) >= c) for c, jump in H.kinks), torch.zeros_like(size))
    gap = gap + relative * (e.value + linear.abs()) + decomposition_error(m, n) * jumps * e.size
    return value, gap.where(~gap.isnan(), torch.inf)


def _bound(G: Tensor, Q: Tensor, slopes: Tensor, rho: Tensor, H: Curvature, relative: Tensor) -> Tensor:
    """max ⟨∇F, Q − Q*⟩ (B,) for the ∇F = slopes − G that a subgradient of E H at Q leaves, with its rounding."""
    gradient = slopes - G
    along = (gradient * Q).sum((-2, -1))
    error = relative * (norm(slopes.flatten(1)) + norm(G.flatten(1)))
    bound = (along + rho * norm(gradient.flatten(1))).clamp(min=0) + rho * error
    if math.isfinite(H.wall):
        # A nuclear norm is off by √k times the Frobenius norm of the error at most.
        box = (along + H.wall * torch.linalg.matrix_norm(gradient, "nuc")).clamp(min=0)
        bound = torch.minimum(bound, box + H.wall * math.sqrt(min(G.shape[-2:])) * error)
    return bound + norm(Q.flatten(1)) * error


def _beside(G: Tensor, polar: Tensor, sigma: Tensor, H: Curvature) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows of Q with all n singular values near a kink c and polar·M, M = sym(polarᵀ G), for a subgradient of E H
    at c·polar; c, polar and polar·M there, which is G where Q is aligned with it.

    With M = V diag(q) Vᵀ it is one where E[ξ ζ_i²] = q_i for some ξ between the slopes of H at c, see `flat`.
    """
    radii = sigma.new_tensor([c for c, _ in H.kinks])
    away, kink = (sigma[:, :, None] / radii - 1).abs().amax(1).min(-1)
    rows = (away <= _BESIDE).nonzero()[:, 0]
    radius, polar = radii[kink[rows]], polar[rows]
    M = polar.mT @ G[rows]
    q, V = torch.linalg.eigh(0.5 * (M + M.mT))
    q, V = q.flip(-1), V.flip(-1)
    flat = decide_flat(q, q.shape[-1], H, G.shape[-2], (q > 0).all(-1).nonzero()[:, 0])
    held = flat.held & (flat.sigma[:, 0] == radius)  # and not at another kink, or the wall
    slopes = polar @ (V * flat.slopes[:, None, :]) @ V.mT
    return rows[held], radius[held], polar[held], slopes[held]


def inwards(Q: Tensor, dtype: torch.dtype, H: Curvature) -> Tensor:
    """Q, or its singular values, float64, as they are to be rounded to `dtype`: shortened by ¾ eps(dtype) where H has a
    kink or a wall, so that rounding takes no ‖Qζ‖ from the kink to where it costs the jump, or beyond the wall."""
    if dtype == torch.float64 or not (H.kinks or math.isfinite(H.wall)):
        return Q
    return Q * (1 - _INWARDS * torch.finfo(dtype).eps)


def rounded(
    G: Float[Tensor, "b m n"], Q: Float[Tensor, "b m n"], dtype: torch.dtype, H: Curvature, value: Tensor, gap: Tensor
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"], Float[Tensor, " b"]]:
    """(gain, value, gap) of F at Q (B, m, n), float64, rounded `inwards` to `dtype`, from value and gap at Q itself.

    F(Q̃) − F* = (F(Q̃) − F(Q)) + (F(Q) − F*): rounding costs its effect on F, of second order, and not ρ times its
    effect on ∇F. The gap counts twice, for it holds the error of evaluating either value.
    """
    if dtype != torch.float64:
        Q = inwards(Q, dtype, H).to(dtype).double()
        before, (m, n) = value, Q.shape[-2:]
        sigma, factor = onto_wall(torch.linalg.svdvals(Q), H, m, n, Q.dtype)
        value = expect(H, sigma, n, level=1).value - factor * (Q * G).sum((-2, -1))
        gap = 2 * gap + (value - before).clamp(min=0)
    return (Q * G).sum((-2, -1)), value, gap.where(~gap.isnan(), torch.inf)


def in_range(gain: Tensor, longest: Tensor, largest: float) -> Tensor:
    """Whether an answer (B,) with ⟨G, Q⟩ = gain and size `longest` fits a number type with the maximum `largest`, and
    its gap float64: below 1e−290 a gap underflows and would seem to vanish."""
    return torch.isfinite(gain) & (gain >= _LEAST_GAIN) & (longest >= 1 / largest) & (longest <= largest)
