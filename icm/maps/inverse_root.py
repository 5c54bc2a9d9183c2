"""C^{−1/2} of a symmetric positive definite C: from its eigenvalues, or by matrix products alone.

The products are a coupled iteration. For an odd composition p_T∘…∘p_1 near 1 on [√l, 1], p_t(x) = x q_t(x²), and a C
with eigenvalues in [l, 1],

    Y₀ = C, Z₀ = I,      Y ← Y q_t(ZY),   Z ← q_t(ZY) Z      lead to      Y → C^{1/2}, Z → C^{−1/2},

for ZY has eigenvalues x², where x starts at the roots of C's and goes through p_1, …, p_t. With the best quintics
(`icm.maps.greedy`) T is 4 at cond C = 1e2, 6 at 1e4 and 8 at 1e6, with four products to a step. In this coupled form
rounding stays where it is (Higham, Functions of Matrices, 2008, section 6.4), so long as Y and Z are left as they come:
made symmetric at every step, as Z is at the end, they diverged from cond C = 1e4 on in float32.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import require_finite, require_nonempty, to_tensor
from icm.errors import InputError
from icm.maps.composition import Composition
from icm.maps.greedy import best_polar, steps_needed
from icm.maps.symmetric import cuda_products

Method = Literal["auto", "eigh", "products"]
Precision = Literal["fp32", "fp64"]

_MARGIN = 0.01  # beyond 1 that the factors stand, for rounding
_FINEST = 2e-15  # error of a composition that float64 coefficients still reach
_LEAST = {torch.float32: 5e-7, torch.float64: 1e-10}  # eigenvalues that are aimed at, of the largest
_RESIDUAL = 0.5  # ‖Z C Z − I‖_F below which C was positive definite; singular or indefinite, it is at least 1


def inverse_root(
    C: Float[Tensor, "*b n n"] | Any,
    *,
    ridge: float = 0.0,
    method: Method = "auto",
    precision: Precision | None = None,
) -> Float[Tensor, "*b n n"]:
    """(C + ridge·mean·I)^{−1/2} for C (…, n, n) symmetric, mean = tr C/n; each matrix of a stack, such as the blocks of
    a block-diagonal moment, has its own mean. float64 for a float64 C, else float32.

    - "eigh": V diag(λ^{−1/2}) Vᵀ from an eigendecomposition.
    - "products": the coupled iteration above, from l = ridge·mean over a bound on ‖C‖₂; without a ridge from the least
      that the precision can hold, which costs a few steps more.
    - "auto": "products" on a GPU for float32 with ridge ≥ 1e−5, and "eigh" for what it cannot do; else "eigh".

    precision: what it is computed in; None means "fp64", but "fp32" for "products" of a C that is not float64. "fp32"
    is never TF32.

    Z is as near as ‖Z C Z − I‖₂ ≈ ε·cond(C + ridge·mean·I), which rounding the entries of C costs already. Measured on
    a float64 C without a ridge, n = 512, condition 1e2, 1e4, 1e6, 1e8: "eigh" in fp64 4e−14, 2e−12, 8e−11, 5e−9;
    "products" in fp64 2e−12, 4e−12, 5e−11, 4e−9, and in fp32 3e−5, 2e−4, 2e−2 and none, where "eigh" in fp32 has 2e−5,
    4e−3 and none. An answer in float32 is rounded to it: 3e−7, 1e−6, 1e−5, 9e−5 at best. On one CPU core "products" in
    fp32 take twice the time of "eigh" in fp64.

    The ridge is relative, so that c·C gives c^{−1/2} of what C does for every c > 0. For the same reason C = 0 has no
    answer at any ridge, and raises.

    Raises DtypeError for a C that is not real, InputError for one that is not square, symmetric or finite, for a C with
    C + ridge·mean·I not positive definite (to the precision; the message has the smallest eigenvalue), a negative
    or infinite ridge, an unknown method or precision. Checks wait for the device.
    """
    if method not in ("auto", "eigh", "products"):
        raise InputError(f"method={method!r}: choose 'auto', 'eigh' or 'products'")
    if precision not in (None, "fp32", "fp64"):
        raise InputError(f"precision={precision!r}: choose 'fp32' or 'fp64', or None")
    if not (0 <= ridge < math.inf):
        raise InputError(f"ridge={ridge!r}: a share of the mean eigenvalue, at least 0 and finite")
    A, exponent, kept = _scaled(C)
    mean = A.diagonal(dim1=-2, dim2=-1).mean(-1)
    if not bool((mean > 0).all()):
        i = int((mean <= 0).reshape(-1).nonzero()[0])
        raise InputError(
            f"C{_where(mean, i)} has a mean eigenvalue of {float(mean.reshape(-1)[i]):.3g} over its largest entry: an "
            "inverse root exists for no ridge, which is relative to that mean; where nothing is known of C, take I"
        )
    shifted = A + ridge * torch.diag_embed(mean[..., None].expand(*mean.shape, A.shape[-1]))
    narrow = precision == "fp32" or (precision is None and kept != torch.float64)
    Z = None
    if method == "products" or (method == "auto" and A.is_cuda and narrow and ridge >= 1e-5):
        Z = _by_products(shifted, mean * ridge, torch.float32 if narrow else torch.float64)
    if Z is None:
        dtype = torch.float32 if precision == "fp32" else torch.float64
        Z = _by_eigenvalues(shifted.to(dtype), ridge, None if method != "products" else "fp32" if narrow else "fp64")
    return torch.ldexp(Z.double(), -exponent[..., None, None] // 2).to(kept)


def _scaled(C: Any) -> tuple[Tensor, Tensor, torch.dtype]:
    """C·2^{−e} (…, n, n) float64, entries up to 2, its halves made equal; the even e (…); the dtype of the answer."""
    C = to_tensor(C, "C")
    if C.ndim < 2 or C.shape[-1] != C.shape[-2]:
        raise InputError(f"C has shape {tuple(C.shape)}; an inverse root is of a square matrix, or a stack (…, n, n)")
    require_nonempty(C, "C")
    require_finite(C, "C")
    eps, kept = torch.finfo(C.dtype).eps, C.dtype if C.dtype == torch.float64 else torch.float32
    C = C.double()
    exponent = torch.frexp(C.abs().amax((-2, -1)))[1].clamp(-1000, 1000)
    exponent = exponent - exponent % 2
    A = torch.ldexp(C, -exponent[..., None, None])
    apart = (A - A.mT).abs().amax((-2, -1))
    if bool((apart > 128 * math.sqrt(C.shape[-1]) * eps).any()):
        i = int(apart.argmax())
        raise InputError(
            f"C{_where(apart, i)} is not symmetric: it differs from its transpose by "
            f"{float(apart.reshape(-1)[i]):.3g} over its largest entry; pass (C + C.mT)/2 if that is meant"
        )
    return 0.5 * (A + A.mT), exponent, kept


def _by_eigenvalues(A: Tensor, ridge: float, tried: Precision | None) -> Tensor:
    """V diag(λ^{−1/2}) Vᵀ; where products were tried and failed, the error that says why."""
    values, V = torch.linalg.eigh(A)
    least, largest = values[..., 0], values[..., -1]
    floor = A.shape[-1] * torch.finfo(torch.float32 if tried == "fp32" else A.dtype).eps
    poor = least <= floor * largest
    if bool(poor.any()) or tried is not None:
        ratio = least / largest
        i = int(ratio.argmin())
        share, why = float(ratio.reshape(-1)[i]), f", with the ridge of {ridge:g}" if ridge else ""
        raise InputError(
            f"C{_where(ratio, i)} is not positive definite to {tried or 'rounding'}{why}: its smallest eigenvalue is "
            f"{share:.3g} of its largest; take a larger ridge, such as {max(1e-4, 10 * ridge):.0e}"
            + (", or method='eigh'" if tried else "")
        )
    return (V * values.rsqrt()[..., None, :]) @ V.mT


def _by_products(A: Tensor, least: Tensor, dtype: torch.dtype) -> Tensor | None:
    """C^{−1/2} of A (…, n, n) with eigenvalues of `least` (…) or more, or None where it does not come out."""
    top = torch.minimum(torch.linalg.matrix_norm(A), A.abs().sum(-1).amax(-1))[..., None, None]
    A = (A / top).to(dtype)
    lower = float((least / top[..., 0, 0]).min())
    eps = torch.finfo(dtype).eps
    # A power of two, so that few compositions serve every C; half of it, for rounding may bring eigenvalues below.
    lower = 2.0 ** math.floor(math.log2(min(0.5, max(0.5 * lower, _LEAST[dtype]))))
    with cuda_products("ieee") if A.is_cuda else contextlib.nullcontext():
        Z = _iterated(A, _composition(lower, max(eps, _FINEST)))
        residual = torch.linalg.matrix_norm(Z @ A @ Z - torch.eye(A.shape[-1], dtype=dtype, device=A.device))
    return Z.double() / top.sqrt() if bool((residual <= _RESIDUAL).all()) else None


def _iterated(A: Tensor, composition: Composition) -> Tensor:
    """Z_T for A (…, n, n)."""
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    Y, Z = A, identity
    for t, (a, b, c) in enumerate(composition.factors):
        M = Z @ Y if t else A
        q = a * identity + b * M + c * (M @ M)
        Y = Y @ q
        Z = q @ Z if t else q
    return 0.5 * (Z + Z.mT)


@functools.lru_cache(maxsize=64)
def _composition(lower: float, eps: float) -> Composition:
    """Quintics that bring the roots of eigenvalues in [lower, 1] to 1 within rounding."""
    low = math.sqrt(lower)
    return best_polar(low, (5,) * steps_needed(low, eps, 5, monotone=False), monotone=False, margin=_MARGIN)


def _where(values: Tensor, i: int) -> str:
    """Which matrix of a stack the flat index i means."""
    if not values.ndim:
        return ""
    place = [int(x) for x in torch.unravel_index(torch.tensor(i), values.shape)]
    return f" at [{', '.join(map(str, place))}]"
