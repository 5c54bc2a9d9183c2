"""Cotangents of a solution pulled back to G and to the numbers of H, by the implicit function theorem.

With Q* = U diag(σ*) Vᵀ, ∇f(σ*) = g and J = ∂σ*/∂g = (∇²f)⁻¹, a cotangent Q̄ of Q* becomes, with M = Uᵀ Q̄ V,

    Ḡ = U [S ∘ ½(M + Mᵀ) + T ∘ ½(M − Mᵀ), with diagonal J diag(M)] Vᵀ
        + (1 − UUᵀ) Q̄ V diag(σ/g) Vᵀ + U diag(σ/g) Uᵀ Q̄ (1 − VVᵀ)
    θ̄ = −⟨J diag(M), ∂_θ ∇f⟩,       S_ij = (σ_i − σ_j)/(g_i − g_j),   T_ij = (σ_i + σ_j)/(g_i + g_j)

f is convex and g_i = σ_i R(σ_i²), so S, T and σ/g have finite limits where singular values meet or vanish. A singular
value held at a wall or kink does not move with g: J = 0 there, and its equals have S = 0. Values move by the envelope
theorem, ∂F*/∂G = −Q*. Cases without a derivative are listed in `Solution`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icm.curvature import Curvature, Kink, Wall
from icm.curvature.parameter import parameters
from icm.solvers.sensitivity import LEVEL, Curving, curving, sensitivity
from icm.sphere import Expectation, expect

_BLOCK = 1 << 22  # entries of the k × k matrices of one block of batch elements
_SINGULAR = 1e-13  # of the largest eigenvalue of ∇²f: below it σ* is not determined in that direction


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known of σ* beside its value: H with its Parameters and without; `held` (B, k), singular values that do
    not move with g; `corner` (B,), the radius of the kink or wall that may stop some, NaN where none does, and `left`
    (B,), the slope of H before it; `pressure` (B, k), what a wall holds back; `lost` (B,), no answer; `linear` (B,),
    G = 0 where Q* is a multiple of G to first order."""

    given: Curvature
    H: Curvature
    dim: int
    held: Tensor
    corner: Tensor
    left: Tensor
    pressure: Tensor
    lost: Tensor
    linear: Tensor

    def __getitem__(self, rows: slice) -> Answer:
        tensors = {name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


def pull_back(
    answer: Answer, g: Tensor, sigma: Tensor, U: Tensor, Vh: Tensor, cotangents: tuple[Tensor | None, ...], matrix: bool
) -> list[Tensor | None]:
    """Ḡ (B, m, n), None unless `matrix`, and the θ̄, from cotangents of Q, sigma, g, gain and value."""
    batch, k = sigma.shape
    shapes = ((U.shape[-2], Vh.shape[-1]), (k,), (k,), (), ())
    bars = [None if t is None else t.double().reshape(batch, *s) for t, s in zip(cotangents, shapes, strict=True)]
    numbers = [(part, name) for part, name, _ in parameters(answer.given)]
    dG, dtheta, block = [], sigma.new_zeros(len(numbers)), max(1, _BLOCK // k**2)
    for start in range(0, batch, block):
        rows = slice(start, start + block)
        pull = Pullback.of(answer[rows], g[rows], sigma[rows], U[rows], Vh[rows], [_of(t, rows) for t in bars])
        if matrix:
            dG.append(pull.to_matrix())
        for i, (part, name) in enumerate(numbers):
            dtheta[i] += pull.to_number(part, name)
    return [torch.cat(dG) if dG else None, *dtheta.unbind()]


def _of(t: Tensor | None, rows: slice) -> Tensor | None:
    return None if t is None else t[rows]


@dataclass(frozen=True, eq=False)
class Pullback:
    """Cotangents on their way back, for the batch elements of `answer`: bar_Q (B, m, n) and M = Uᵀ bar_Q V (B, k, k),
    None where Q was not used; bar_sigma (B, k), the cotangent of σ* from all outputs but the value, and solved = J of
    it, None where only the value was used; bar_g (B, k), and bar_value (B,)."""

    answer: Answer
    g: Tensor
    sigma: Tensor
    U: Tensor
    Vh: Tensor
    e: Expectation
    curves: Curving | None
    held: Tensor
    bar_Q: Tensor | None
    M: Tensor | None
    bar_sigma: Tensor
    solved: Tensor
    bar_g: Tensor
    bar_value: Tensor

    @classmethod
    def of(cls, answer: Answer, g: Tensor, sigma: Tensor, U: Tensor, Vh: Tensor, bars: list[Tensor | None]) -> Pullback:
        bar_Q, bar_sigma, bar_g, bar_gain, bar_value = bars
        zero = torch.zeros_like(sigma)
        bar_value = zero[:, 0] if bar_value is None else bar_value
        bar_gain = zero[:, 0] if bar_gain is None else bar_gain
        M = None if bar_Q is None else U.mT @ bar_Q @ Vh.mT
        bar_sigma = (zero if bar_sigma is None else bar_sigma) + bar_gain[:, None] * g
        bar_sigma = bar_sigma if M is None else bar_sigma + M.diagonal(dim1=-2, dim2=-1)
        # What is asked of an answer that does not exist is not a number; what is not asked of it is zero.
        asked = (bar_sigma != 0).any(-1) | (bar_value != 0)
        asked = asked if bar_Q is None else asked | (bar_Q != 0).flatten(1).any(-1)
        bar_value = bar_value.masked_fill(answer.lost & asked, math.nan)
        bar_g = (zero if bar_g is None else bar_g) + (bar_gain - bar_value)[:, None] * sigma
        bar_g = bar_g.masked_fill((answer.lost & asked)[:, None], math.nan)
        e = _expectation(answer, sigma)
        held = answer.held | ((e.x == 0) & ~((e.weight > 0) & e.weight.isfinite()))
        curves, solved = None, zero
        if bool((bar_sigma != 0).any()) or bar_Q is not None:
            curves = curving(e)
            solved = _solve(curves.hessian, bar_sigma.masked_fill(held, 0.0), held) / curves.unit[:, None]
        return cls(answer, g, sigma, U, Vh, e, curves, held, bar_Q, M, bar_sigma, solved, bar_g, bar_value)

    def to_matrix(self) -> Tensor:
        """Ḡ (B, m, n)."""
        U, Vh = self.U, self.Vh
        inner = torch.diag_embed(self.bar_g + self.solved)
        if self.bar_Q is None or self.M is None or self.curves is None:
            return U @ inner @ Vh
        S, T = self._quotients(self.curves)
        ratio = T.diagonal(dim1=-2, dim2=-1)  # σ/g
        off = 0.5 * (S * (self.M + self.M.mT) + T * (self.M - self.M.mT))
        inner = inner + off - torch.diag_embed(off.diagonal(dim1=-2, dim2=-1))
        left, right = U @ inner, torch.zeros_like(Vh)
        if U.shape[-2] > Vh.shape[-2]:
            left = left + (self.bar_Q @ Vh.mT - U @ self.M) * ratio[:, None, :]
        if Vh.shape[-1] > U.shape[-1]:
            right = (U.mT @ self.bar_Q - self.M @ Vh) * ratio[:, :, None]
            return left @ Vh + U @ right
        return left @ Vh

    def to_number(self, part: Curvature, name: str) -> Tensor:
        """θ̄, of the whole batch together, for the number `name` of the summand `part`."""
        value, slopes = sensitivity(part, name, self.sigma, self.answer.dim)
        total = self.bar_value * value - (self.solved * slopes).sum(-1)
        if name == "radius" and isinstance(part, (Kink, Wall)):
            total = total + self._at_corner(part.radius)
        return total.sum()

    def _at_corner(self, radius: float) -> Tensor:
        """What moves with the radius of the kink or wall that stops singular values."""
        answer = self.answer
        stopped = ((answer.corner == radius)[:, None] & answer.held & (self.sigma > 0)).to(self.sigma)
        total = (self.bar_sigma * stopped).sum(-1)
        if self.curves is not None:
            pushed = (self.curves.hessian @ stopped[:, :, None])[:, :, 0] * self.curves.unit[:, None]
            total = total - (self.solved * pushed).sum(-1)
        wall = radius == answer.H.wall
        forces = (answer.pressure * stopped).sum(-1) if wall else self.g.sum(-1) - answer.left
        return total - torch.where(stopped.any(-1), self.bar_value * forces, 0.0)

    def _quotients(self, curves: Curving) -> tuple[Tensor, Tensor]:
        """S and T (B, k, k); 0 where there is no derivative."""
        sigma, free = self.sigma, ~self.held
        g = torch.where(free, self.e.slopes, self.g)
        limit = 1 / (curves.unit[:, None, None] * curves.rise)
        limit = limit.where(curves.rise > 0, 0.0)
        both, none = free[:, :, None] & free[:, None, :], self.held[:, :, None] & self.held[:, None, :]
        rise, run = (t[:, :, None] - t[:, None, :] for t in (sigma, g))
        S = (rise / run).where(rise * run.sign() > 0, 0.0)
        S = torch.where(both, limit, torch.where(none, S, torch.minimum(S, limit)))
        rise, run = (t[:, :, None] + t[:, None, :] for t in (sigma, g))
        T = torch.where(run > 0, rise / run, limit.where(both, 0.0))
        return S, T


def _expectation(answer: Answer, sigma: Tensor) -> Expectation:
    """f at σ*; at G = 0 its quadratic part, w = H''(0)/2n."""
    e = expect(answer.H, sigma, answer.dim, LEVEL, estimate=False)
    if not bool(answer.linear.any()):
        return e
    weight = torch.full_like(sigma, float(answer.H.second(0.0)) / (2 * answer.dim))
    rows = answer.linear[:, None]
    size = torch.where(answer.linear, 1.0, e.size)
    return replace(
        e,
        size=size,
        x=e.x.masked_fill(rows, 0.0),
        weight=torch.where(rows, weight, e.weight),
        bend=e.bend.masked_fill(rows, 0.0),
    )


def _solve(hessian: Tensor, right: Tensor, held: Tensor) -> Tensor:
    """hessian⁻¹ right (B, k) on the coordinates that are not held; the least solution where it is singular."""
    free = (~held).to(hessian)
    A = hessian * (free[:, :, None] * free[:, None, :]) + torch.diag_embed(1 - free)
    scale = A.diagonal(dim1=-2, dim2=-1)
    scale = scale.where(scale > 0, 1.0).rsqrt()
    A = A * (scale[:, :, None] * scale[:, None, :])
    factor, info = torch.linalg.cholesky_ex(A)
    x = torch.cholesky_solve((right * scale)[:, :, None], factor)[:, :, 0]
    failed = (info != 0).nonzero()[:, 0]
    if len(failed):
        values, vectors = torch.linalg.eigh(A[failed])
        inverse = torch.where(values > _SINGULAR * values[:, -1:], 1 / values, 0.0)
        part = vectors.mT @ (right * scale)[failed, :, None]
        x[failed] = (vectors @ (inverse[:, :, None] * part))[:, :, 0]
    return x * scale
