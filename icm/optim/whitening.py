"""Roots of input moments, kept between refreshes: G̃ = G Sᵀ makes the inputs isotropic, Q = Q̃ S goes back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.maps.polynomial import Precision

_LEAF = 128  # inputs up to which a triangular matrix is inverted at once


def root(C: Float[Tensor, "b w w"]) -> Float[Tensor, "b w w"]:
    """S with S C Sᵀ = I for each diagonal block of C, in float32 at least: the inverse of a Cholesky factor.

    Any S will do: others are an orthogonal matrix times this one, which changes no singular value of G Sᵀ and nothing
    of Q̃ S. Raises InputError for a C that is not positive definite in its precision.
    """
    L, info = torch.linalg.cholesky_ex(C)
    if bool((info != 0).any()):
        raise InputError(
            "an input moment is not positive definite in its precision: raise the ridge of icm.measure.InputMoments"
        )
    return _inverse(L)


def _inverse(L: Float[Tensor, "b w w"]) -> Float[Tensor, "b w w"]:
    """L⁻¹ of lower triangular matrices, by halves: [[A, 0], [B, D]]⁻¹ = [[A⁻¹, 0], [−D⁻¹ B A⁻¹, D⁻¹]]."""
    n = L.shape[-1]
    if n <= _LEAF:
        return torch.linalg.solve_triangular(L, torch.eye(n, dtype=L.dtype, device=L.device).expand_as(L), upper=False)
    half, out = n // 2, torch.zeros_like(L)
    A, D = _inverse(L[:, :half, :half]), _inverse(L[:, half:, half:])
    out[:, :half, :half], out[:, half:, half:] = A, D
    out[:, half:, :half] = -D @ (L[:, half:, :half] @ A)
    return out


def whiten(X: Float[Tensor, "m n"], S: Float[Tensor, "b w w"]) -> Float[Tensor, "m n"]:
    """X Sᵀ, S block-diagonal, in float32 at least: X lies along the large eigenvectors of C, where S is small, and in
    16 bits the product would lose √(cond C) times their rounding."""
    wide = torch.promote_types(torch.promote_types(X.dtype, S.dtype), torch.float32)
    return _times(X.to(wide), S.mT.to(wide))


def colour(Q: Float[Tensor, "m n"], S: Float[Tensor, "b w w"], precision: Precision) -> Float[Tensor, "m n"]:
    """Q S, S block-diagonal, by products in `precision`; in bfloat16 where they are."""
    kind = torch.bfloat16 if precision == "bf16" else torch.promote_types(Q.dtype, S.dtype)
    return _times(Q.to(kind), S.to(kind))


def _times(X: Tensor, A: Tensor) -> Tensor:
    if len(A) == 1:
        return X @ A[0]
    return torch.cat([x @ a for x, a in zip(X.chunk(len(A), -1), A, strict=True)], -1)
