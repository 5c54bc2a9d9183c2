"""The certificate of a matrix that shares no singular vectors with the gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball
from icm.solvers.certificate import reach
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.curvatures import smooth
from icm.theory.instances import Instances, draw

_LARGER = 1e-12  # by which ρ is enlarged against its own rounding; any larger ρ is one too


def frames(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Singular vectors, turned from those of the diagonal G by anything from 1e−6 to all the way, and by how much and
    in what direction the singular values leave the optimum's."""
    size, k = len(made), made.k
    turn = torch.from_numpy(10 ** rng.uniform(-6, 2, (size, 1, 1)))
    found = {}
    for name, rows in (("U", made.m), ("V", made.n)):
        start = torch.eye(rows, k, dtype=torch.float64) + turn * torch.from_numpy(rng.standard_normal((size, rows, k)))
        Q, R = torch.linalg.qr(start)
        found[name] = Q * R.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    away = 10 ** rng.uniform(-6, 0.5, (size, 1)) * rng.standard_normal((size, k))
    return {**found, "away": torch.from_numpy(away)}


def product(A: Ball | Tensor, B: Ball | Tensor) -> Ball:
    """A B for matrices (B, i, j) and (B, j, l)."""
    A, B = Ball.of(A), Ball.of(B)
    return (A[..., :, :, None] * B[..., None, :, :]).sum(-2)


def unorthonormal(U: Tensor) -> Ball:
    """‖UᵀU − I‖_F (B,), a bound on the Frobenius distance of U from its polar factor: |s − 1| ≤ |s² − 1| for every
    singular value s of U."""
    off = product(U.mT, U) - torch.eye(U.shape[-1], dtype=U.dtype)
    return frobenius(off)


def frobenius(A: Ball) -> Ball:
    """‖A‖_F (B,), for A of moderate size."""
    return (A * A).sum().sum().sqrt()


def margin(case: Case) -> Ball:
    """The bound less what it bounds, over the bound's largest terms, at Q = Û diag(σ) V̂ᵀ, where Û and V̂ are the
    orthonormal factors nearest to the drawn U and V. ⟨Q, G⟩ is in both sides and cancels."""
    U, V = case["U"], case["V"]
    away, best = case["away"], case.solution.sigma.nan_to_num(0.0)
    sigma = (best * (1 + away)).abs()
    slopes, value = case.slopes(sigma), case.mean(sigma)
    size = slopes.middle.abs().amax(-1) + case.G.abs().amax((-1, -2))
    size = size.where(size > 0, 1.0)
    scaled = slopes / size[:, None]
    turned = Ball(scaled.middle[:, None, :], scaled.radius[:, None, :], scaled.rigour) * U
    difference = frobenius(product(turned, V.mT) - Ball.of(case.G) / size[:, None, None])
    u, v = unorthonormal(U), unorthonormal(V)
    moved = (u + v + u * v) * scaled.amax()
    gradient = Ball(difference.middle, difference.radius + moved.upper, difference.rigour) * size
    rho = reach(case.spectrum(case.G).upper, case.n, case.H) * (1 + _LARGER)
    along = (slopes * sigma).sum()
    total = along.middle + value.middle + (gradient.middle * rho).nan_to_num(0.0)
    return (along + gradient * rho - value + case.optimum) / total.where(total > 0, 1.0)


certificate_matrix = Claim(
    name="certificate-matrix",
    statement="F(Q) − F* ≤ ⟨∇F(Q), Q⟩ + ρ‖∇F(Q)‖_F for every Q = U diag(σ) Vᵀ, aligned with G or not, where "
    "∇F(Q) = U diag(∇f(σ)) Vᵀ − G.",
    latex=r"F(Q) - F^* \le \langle\nabla F(Q), Q\rangle + \rho\,\|\nabla F(Q)\|_F,\quad "
    r"\nabla F(Q) = U\operatorname{diag}(\nabla f(\sigma))V^\top - G",
    source="docs/theory.md, section 9",
    hypotheses={"solved": lambda case: case.solved, "G ≠ 0": lambda case: case.drawn[:, 0] > 0},
    margin=margin,
    draw=draw(smooth, extra=frames),
    proof="certificate-matrix",
)

CLAIMS = (certificate_matrix,)
