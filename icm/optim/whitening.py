"""Roots of input moments, kept between refreshes: G̃ = G Sᵀ makes the inputs isotropic, Q = Q̃ S goes back.

G lies along the large eigenvectors of C, where S is small, so that rounding either to bfloat16 loses √(cond C) times
2⁻⁹ of G Sᵀ. Both are split instead, G = G₁ + G₂ and S = S₁ + S₂, each piece in bfloat16, and products summed in
float32 lose √(cond C) · 2⁻¹⁷. Rounding S alone is milder: whatever S₁ is, a step with S₁ is the one for inputs with
moment (S₁ᵀS₁)⁻¹, and ‖S₂ C^{1/2}‖_F/√n, which tells how far that is from C, is known when S is made. Where it is small,
S₁ is all that is kept, and G₁S₁ᵀ + G₂S₁ᵀ all that is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.maps.polynomial import Precision

Root = Float[Tensor, "pieces b w w"]  # they add up to S, lower triangular blocks of a block-diagonal matrix

_LEAF = 128  # inputs up to which a triangular matrix is inverted at once
_STRIP = 2**14  # entries that a CPU splits at a time: larger ones take new memory for what is between
_LOST = 1 / 64  # ‖S₂ C^{1/2}‖_F/√n up to which S₂ is left out: a tenth of what five quintics are from a polar factor


def root(C: Float[Tensor, "b w w"], precision: Precision = "fp64") -> Root:
    """S with S C Sᵀ = I for each diagonal block of C: the inverse of a Cholesky factor, for products in `precision`.

    In C's dtype, one piece; for "bf16" in bfloat16, S₁ alone or with S₂, as above. Any S will do: others are an
    orthogonal matrix times this one, which changes no singular value of G Sᵀ and nothing of Q̃ S. Raises InputError for
    a C that is not positive definite in its precision.
    """
    L, info = torch.linalg.cholesky_ex(C)
    if bool((info != 0).any()):
        raise InputError(
            "an input moment is not positive definite in its precision: raise the ridge of icm.measure.InputMoments"
        )
    S = _inverse(L)
    if precision != "bf16":
        return S[None]
    high = S.bfloat16()
    rest = S - high
    # Errors of rounding are independent, so that only C's diagonal counts: within 5 % of the truth.
    lost = (rest.square() * C.diagonal(dim1=-2, dim2=-1)[:, None, :]).sum((-2, -1)) / C.shape[-1]
    return high[None] if bool((lost <= _LOST**2).all()) else torch.stack([high, rest.bfloat16()])


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


def whiten(X: Sequence[Float[Tensor, "m n"]], roots: Sequence[Root | None]) -> list[Float[Tensor, "m n"]]:
    """X Sᵀ for each, X itself where there is no root: in bfloat16 where the root is, else in float32 at least."""
    out: list[Tensor] = []
    for S, those in _alike(X, roots):
        if S is None:
            out += those
        elif S.dtype == torch.bfloat16:
            out += _product(_split(those), S.mT, upper=True).split(those[0].shape[0])
        else:
            wide = torch.promote_types(torch.promote_types(those[0].dtype, S.dtype), torch.float32)
            out += _product(_rows(those).to(wide)[None], S.mT.to(wide), upper=True).split(those[0].shape[0])
    return out


def colour(
    Q: Sequence[Float[Tensor, "m n"]], roots: Sequence[Root | None], precision: Precision
) -> list[Float[Tensor, "m n"]]:
    """Q S for each, by products in `precision`; in bfloat16 where they are."""
    out: list[Tensor] = []
    for S, those in _alike(Q, roots):
        if S is None:
            out += those
            continue
        kind = torch.bfloat16 if precision == "bf16" else torch.promote_types(those[0].dtype, S.dtype)
        S = S[:1] if precision == "bf16" or len(S) == 1 else S.to(kind).sum(0, keepdim=True)
        out += _product(_rows(those).to(kind)[None], S.to(kind), upper=False).split(those[0].shape[0])
    return out


def _alike(X: Sequence[Tensor], roots: Sequence[Root | None]) -> Iterator[tuple[Root | None, list[Tensor]]]:
    """Matrices in a row that share a root, such as query, key and value: one product serves them all."""
    start = 0
    for stop in range(1, len(X) + 1):
        if stop == len(X) or roots[stop] is not roots[start]:
            yield roots[start], list(X[start:stop])
            start = stop


def _rows(X: Sequence[Tensor]) -> Tensor:
    return X[0] if len(X) == 1 else torch.cat(list(X))


def _split(X: Sequence[Float[Tensor, "m n"]]) -> Float[Tensor, "2 M n"]:
    """Pieces in bfloat16 whose sum is within 2⁻¹⁷ of the rows of all X."""
    m, n = X[0].shape
    pieces = torch.empty(2, len(X) * m, n, dtype=torch.bfloat16, device=X[0].device)
    strip = max(1, _STRIP // n) if X[0].device.type == "cpu" else m
    for x, *both in zip(X, *(piece.split(m) for piece in pieces), strict=True):
        for rows, high, rest in zip(x.split(strip), *(piece.split(strip) for piece in both), strict=True):
            high.copy_(rows)
            rest.copy_(rows - high)
    return pieces


def _product(X: Float[Tensor, "p M n"], A: Root, upper: bool) -> Float[Tensor, "M n"]:
    """Σ X_i A_j over i + j < max(p, q), A block-diagonal and its blocks triangular: the sum of the X_i with the sum of
    the A_j, but for what is smaller than its own rounding. Small terms first: their sum is rounded, the whole once."""
    terms = [(i, j) for i in range(len(X)) for j in range(len(A)) if i + j < max(len(X), len(A))]
    width, columns = A.shape[-1], []
    for b in range(A.shape[1]):
        for start, stop in _panels(width, X.device.type):
            rows = slice(0, stop) if upper else slice(start, width)
            found: Tensor | None = None
            for i, j in reversed(terms):
                x, a = X[i, :, b * width : (b + 1) * width][:, rows], A[j, b, rows, start:stop]
                found = x @ a if found is None else torch.addmm(found, x, a)
            assert found is not None
            columns.append(found)
    return columns[0] if len(columns) == 1 else torch.cat(columns, -1)


def _panels(n: int, device: str) -> Iterator[tuple[int, int]]:
    """Columns of a triangular matrix that are multiplied at a time, without the zeros above or below them. On a Zen 5
    core in bfloat16, relative to one product: 256 in 2 0.8, 1024 in 4 0.71, 2048 in 8 0.6; smaller ones are slower."""
    count = max(1, n // (256 if n >= 512 else 128)) if device == "cpu" else 1  # by reasoning, not measured, elsewhere
    for i in range(count):
        yield n * i // count, n * (i + 1) // count
