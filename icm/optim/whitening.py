"""Roots of input moments, kept between refreshes: G̃ = G Sᵀ makes the inputs isotropic, Q = Q̃ S goes back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.maps.polynomial import Precision


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
    eye = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device).expand_as(C)
    return torch.linalg.solve_triangular(L, eye, upper=False)


def whiten(X: Float[Tensor, "m n"], S: Float[Tensor, "b w w"], precision: Precision) -> Float[Tensor, "m n"]:
    """X Sᵀ, S block-diagonal, by products in `precision`, in X's dtype."""
    return _times(X, S.mT, precision)


def colour(Q: Float[Tensor, "m n"], S: Float[Tensor, "b w w"], precision: Precision) -> Float[Tensor, "m n"]:
    """Q S, S block-diagonal, by products in `precision`, in Q's dtype."""
    return _times(Q, S, precision)


def _times(X: Tensor, A: Tensor, precision: Precision) -> Tensor:
    kind = torch.bfloat16 if precision == "bf16" else torch.promote_types(X.dtype, A.dtype)
    X, A, dtype = X.to(kind), A.to(kind), X.dtype
    if len(A) == 1:
        return (X @ A[0]).to(dtype)
    return torch.cat([x @ a for x, a in zip(X.chunk(len(A), -1), A, strict=True)], -1).to(dtype)
