"""A composition applied to the singular values of matrices, by products alone.

A factor X ← X q(XᵀX) of degree 2q + 1 takes 2, 3, 4, 4, 6, 7, … products for degrees 3, 5, 7, 9, 11, 13, …: the Gram
matrix, q − 1 more of its size (degree 9: (c₄B + c₃A + c₂I)B + c₁A + c₀I with B = A²), and the one with X. Two routes:

- direct: each factor on X;
- gram: a stretch of factors on R = XXᵀ alone, with W = Π q_t(R_t) and R ← q_t(R) R q_t(R), then X ← W X, so that
  only two products per stretch are of X's size. Stretches end before rounding errors in R show (`icm.maps.routes`).

Errors ‖Q − U p(g) Vᵀ‖₂/‖p(g)‖_max, U, g, V and p in float64, 256×1024, ‖G‖_F as scale; "tensor" is the direct route of
`apply_coefficients`; spectra: normal entries, conditions 1e2 and 1e3 (geometric), 1/i. Muon's five quintics have
p'(0) = 485, Polar Express's first five 1.0e3, and rounding G alone makes p'(0)·u of any g below that; "gram" is
(2, 2, 1), `icm.maps.routes` has the others:

                          Muon                              Polar Express
                          normal   1e2      1e3      1/i      normal   1e2      1e3      1/i
    fp64 direct           1.9e-14  4.7e-14  6.6e-14  1.2e-13  2.2e-14  6.0e-14  1.3e-13  1.0e-13
    fp64 gram             1.9e-14  4.4e-14  6.3e-14  1.2e-13  2.4e-14  7.2e-14  1.3e-13  1.0e-13
    fp32 direct           3.3e-06  2.7e-06  3.3e-06  2.7e-06  7.2e-06  4.2e-06  7.4e-06  3.2e-06
    fp32 gram             4.8e-06  5.6e-06  7.4e-06  5.2e-06  4.7e-06  1.4e-05  2.1e-05  7.1e-06
    fp32 tensor           3.7e-06  7.2e-06  9.7e-06  6.4e-06  4.2e-06  8.2e-06  1.7e-05  4.9e-06
    fp16 direct           3.0e-03  7.8e-03  1.0e-02  6.6e-03  1.9e-03  9.6e-03  1.8e-02  5.5e-03
    fp16 gram             3.0e-03  6.5e-03  8.1e-03  6.1e-03  4.3e-03  1.2e-02  2.0e-02  9.2e-03
    bf16 direct           2.1e-02  6.1e-02  7.8e-02  5.4e-02  1.5e-02  7.4e-02  1.4e-01  4.3e-02
    bf16 gram             2.4e-02  5.1e-02  6.5e-02  4.8e-02  4.4e-02  9.5e-02  1.4e-01  1.3e-01
    bf16 tensor           3.5e-02  6.1e-02  7.9e-02  5.5e-02  3.7e-02  7.7e-02  1.5e-01  7.0e-02
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import DtypeError, InputError
from icm.maps.composition import Composition
from icm.maps.norm_bounds import shrinkage
from icm.maps.routes import Name, Route, choose
from icm.maps.symmetric import Products, cuda_products

Precision = Literal["bf16", "fp16", "tf32", "fp32", "fp64"]
Factor = Sequence[Any]  # (c_0, …, c_q), as numbers or as tensors of shape (1,)

_DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "tf32": torch.float32,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
_LIFT = 8.0  # float16 keeps 8X, so that entries of X and XXᵀ, about 1/√(mn) and 1/(m√n), are normal numbers


def apply(
    composition: Composition,
    G: Float[Tensor, "*b m n"],
    scale: Float[Tensor, "..."] | float | None = None,
    precision: Precision | None = None,
    route: Name | Route = "auto",
) -> Float[Tensor, "*b m n"]:
    """U p(g/s) Vᵀ for G = U diag(g) Vᵀ, in G's shape and dtype; 0 for G = 0.

    `scale`: s ≥ ‖G‖₂, one for all matrices or of shape (*b) (`icm.maps.bound` has some); None for ‖G‖_F. G may be of
    any size that its dtype holds, subnormal entries aside. `precision`: what products are computed and stored in;
    None for G's own. "fp16" without a GPU is float32 rounded to float16 wherever a GPU would store it, as fast as
    float32; "tf32" is float32 outside CUDA, and within torch.compile follows torch.backends. `route`: "auto" by
    shape, dtype and device, or "direct", "gram" or an `icm.maps.routes.Route`.

    Nothing here waits for a GPU, and shapes are static: torch.compile(fullgraph=True) and CUDA graphs take it. Each
    composition is compiled anew, though; `apply_coefficients` takes coefficients that change. Entries that are not
    finite make their matrix NaN. Not differentiable: G is detached.

    Raises DtypeError for a G that is not a real float tensor of 16 to 64 bits, InputError for fewer than two
    dimensions, an unknown precision or route, or a scale that does not fit.
    """
    lift = _lift(G, precision)
    return _applied(_simplified(composition.factors, lift), lift, G, scale, precision, route)


def apply_coefficients(
    coefficients: Float[Tensor, "T q"],
    G: Float[Tensor, "*b m n"],
    scale: Float[Tensor, "..."] | float | None = None,
    precision: Precision | None = None,
    route: Name | Route = "auto",
) -> Float[Tensor, "*b m n"]:
    """`apply` for factors given as rows (c_0, …, c_q) of a tensor on G's device, zeros at the end for lower degrees.

    New numbers in it cause no compilation and no wait. q(R) is evaluated by Horner's rule with the coefficients on
    the diagonal, as the library's products take α and β as numbers only: one more pass over R per factor (fused by
    torch.compile) and up to 2.5 times the rounding error of `apply` in bfloat16. "gram" cannot see the growth of R's
    rounding errors and takes factors in pairs, right for Π c_0² ≤ 80 within a pair but for its last.

    Raises as `apply`, and InputError for fewer than two columns.
    """
    if coefficients.ndim != 2 or coefficients.shape[0] < 1 or coefficients.shape[1] < 2:
        raise InputError(f"coefficients of shape {tuple(coefficients.shape)}: give (T, q + 1) with T ≥ 1 and q ≥ 1")
    lift = _lift(G, precision)
    wide = coefficients.to(torch.float64 if _kind(G, precision) == torch.float64 else torch.float32)
    count, terms = coefficients.shape
    last = [1.0] * (count - 1) + [1 / lift]
    factors = [[wide[t, i : i + 1] * last[t] for i in range(terms)] for t in range(count)]
    return _applied(factors, lift, G, scale, precision, route)


def _applied(
    factors: Sequence[Factor],
    lift: float,
    G: Tensor,
    scale: Tensor | float | None,
    precision: Precision | None,
    route: Name | Route,
) -> Tensor:
    kind, device = _kind(G, precision), G.device.type
    if G.numel() == 0:
        return torch.zeros_like(G)
    m, n = sorted(G.shape[-2:])
    traced = torch.compiler.is_compiling()
    linear = len(factors[0]) == 1
    growths = [] if linear else [c[0] if isinstance(c[0], float) else None for c in factors]
    plan = choose(route, (m, n), growths, kind, device, traced)
    multiply = Products(plan.panels, half=kind == torch.float16 and device == "cpu")
    sizes = _sizes(scale, G, kind)
    tall = G.shape[-2] > G.shape[-1]

    def mapped(X: Tensor, size: Tensor | None) -> Tensor:
        X = _normalised(X.mT if tall else X, size, kind, lift, traced)
        X = X * factors[0][0] if linear else _iterated(multiply.stored(X), factors, plan.segments, multiply, lift**-2)
        return X.mT if tall else X

    G = G.detach()
    with _cuda_precision(precision, device, traced):
        if G.ndim == 2:
            return mapped(G, None if sizes is None else sizes[0]).to(G.dtype).contiguous()
        stack = G.reshape(-1, *G.shape[-2:])
        chunk = plan.chunk or len(stack)
        if chunk >= len(stack):
            return mapped(stack, sizes).to(G.dtype).contiguous().view(G.shape)
        out = torch.empty_like(stack, memory_format=torch.contiguous_format)
        for start in range(0, len(stack), chunk):
            part = start if chunk == 1 else slice(start, start + chunk)
            out[part] = mapped(stack[part], None if sizes is None else sizes[part])
    return out.view(G.shape)


def _iterated(X: Tensor, factors: Sequence[Factor], segments: Sequence[int], multiply: Products, unit: float) -> Tensor:
    """The factors in turn; here and below R = XXᵀ is kept 1/unit times larger than what the polynomials take."""
    start = 0
    for length in segments:
        X = _stretch(X, factors[start : start + length], multiply, unit)
        start += length
    return X


def _stretch(X: Tensor, factors: Sequence[Factor], multiply: Products, unit: float) -> Tensor:
    """Π q_t(R_t) X, R_{t+1} = q_t(R_t)² R_t from R_1 = XXᵀ; a single factor acts on X itself."""
    R = multiply.symmetric(X, X.mT)
    first = factors[0]
    if len(factors) == 1 and len(first) == 2 and not isinstance(first[0], Tensor):
        return multiply(R, X, X, beta=first[0], alpha=first[1] * unit)
    S, c = _above(R, first, multiply, unit)
    if len(factors) == 1:
        return multiply(S, X, X, beta=c) if c else multiply(S, X)
    W = S.clone()
    W.diagonal(dim1=-2, dim2=-1).add_(c)
    W = multiply.stored(W)
    for factor in factors[1:]:
        for _ in range(2):
            R = multiply.symmetric(S, R, R, beta=c) if c else multiply.symmetric(S, R)
        S, c = _above(R, factor, multiply, unit)
        W = multiply.symmetric(S, W, W, beta=c) if c else multiply.symmetric(S, W)
    return multiply(W, X)


def _above(R: Tensor, c: Factor, multiply: Products, unit: float) -> tuple[Tensor, float]:
    """(S, c) with q(R) = S + cI: (Σ_{i ≥ 1} c_i R^i, c_0), so that no c_0 is rounded into a diagonal, or (q(R), 0)."""
    if isinstance(c[0], Tensor):
        return _horner(R, c, multiply, unit), 0.0
    if len(c) == 2:
        return multiply.stored(_scaled(R, c[1] * unit)), c[0]
    if len(c) == 5:
        B = multiply.symmetric(R, R)
        first, alpha = _sum(B, c[4] * unit**4, R, c[3] * unit**3)
        rest, beta = _sum(B, c[2] * unit**2, R, c[1] * unit)
        # (c₄B + c₃R + c₂I)B + c₁R, as α(B + (c₃/c₄)R)B + β(B + (c₁/c₂)R) or with the other ratios
        return multiply.symmetric(multiply.stored(first), B, multiply.stored(rest), beta=beta, alpha=alpha), c[0]
    S = multiply.symmetric(R, R, R, beta=c[-2] * unit, alpha=c[-1] * unit**2)
    for x in c[-3:0:-1]:
        S = multiply.symmetric(S, R, R, beta=x * unit, alpha=unit)
    return S, c[0]


def _sum(A: Tensor, a: float, B: Tensor, b: float) -> tuple[Tensor, float]:
    """(C, γ) with γC = aA + bB, in one pass, γ the larger of a and b."""
    if abs(a) >= abs(b):
        return (_added(A, B, b / a) if b else A), a
    return _added(B, A, a / b), b


def _added(A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """A + αB, rounded once: elementwise operations on a CPU would round α itself to 16 bits."""
    if A.itemsize == 2 and A.device.type == "cpu":
        return torch.add(A.float(), B.float(), alpha=alpha).to(A.dtype)
    return torch.add(A, B, alpha=alpha)


def _scaled(A: Tensor, alpha: float) -> Tensor:
    """αA, rounded once, as `_added`."""
    if A.itemsize == 2 and A.device.type == "cpu":
        return (A.float() * alpha).to(A.dtype)
    return A * alpha


def _horner(R: Tensor, c: Sequence[Tensor], multiply: Products, unit: float) -> Tensor:
    """Σ c_i R^i for tensors c_i of shape (1,), in their precision but for the products."""
    Q = R * (c[-1] * unit)
    for i in range(len(c) - 2, -1, -1):
        Q.diagonal(dim1=-2, dim2=-1).add_(c[i])
        Q = multiply.stored(Q.to(R.dtype))
        if i:
            Q = multiply.symmetric(Q, R) if unit == 1 else multiply.symmetric(Q, R, R, beta=0.0, alpha=unit)
    return Q


def _normalised(X: Tensor, size: Tensor | None, kind: torch.dtype, lift: float, traced: bool) -> Tensor:
    """X · lift/size in dtype `kind` (float16 on the CPU: float32), whatever X's size; 0 where X or the size is 0."""
    cpu = X.device.type == "cpu"
    kind = torch.float32 if kind == torch.float16 and cpu else kind
    wide = torch.float64 if torch.float64 in (X.dtype, kind) else torch.float32
    if cpu and not traced:  # nothing waits for a CPU: look first, and mostly spare two passes
        limit = 1e140 if wide == torch.float64 else 1e14
        if X.ndim == 2:
            norm = float(torch.linalg.vector_norm(X, dtype=wide) if size is None else size)
            if 1 / limit < norm < limit:
                return (X.to(wide) * (lift / norm)).to(kind)
        norm = torch.linalg.vector_norm(X, dim=(-2, -1), keepdim=True, dtype=wide) if size is None else size
        if bool(((norm > 1 / limit) & (norm < limit)).all()):
            return torch.mul(X, lift / norm, out=torch.empty_like(X, dtype=kind))
    shrink = shrinkage(X, wide)
    X = X * shrink
    norm = torch.linalg.vector_norm(X, dim=(-2, -1), keepdim=True) if size is None else size * shrink
    return (X * (lift / norm.where(norm > 0, torch.inf))).to(kind)


def _sizes(scale: Tensor | float | None, G: Tensor, kind: torch.dtype) -> Tensor | None:
    """`scale` as (matrices, 1, 1), in float32 or float64."""
    if scale is None:
        return None
    wide = torch.float64 if torch.float64 in (G.dtype, kind) else torch.float32
    batch = G.shape[:-2]
    if not isinstance(scale, Tensor):
        return torch.full((batch.numel(), 1, 1), float(scale), dtype=wide, device=G.device)
    if scale.ndim > len(batch) or any(a not in (1, b) for a, b in zip(scale.shape[::-1], batch[::-1], strict=False)):
        raise InputError(f"scale of shape {tuple(scale.shape)} for matrices {tuple(batch)}: one number, or one each")
    return scale.detach().to(wide).expand(batch).reshape(-1, 1, 1)


def _simplified(factors: Sequence[Sequence[float]], lift: float) -> list[Sequence[float]]:
    """The same composition without factors of degree 1 (unless that is all), over `lift`."""
    found: list[Sequence[float]] = []
    inside = 1.0
    for factor in factors:
        c = [x * inside ** (2 * i + 1) for i, x in enumerate(factor)]
        while len(c) > 1 and c[-1] == 0:
            c.pop()
        inside = c[0] if len(c) == 1 else 1.0
        if len(c) > 1:
            found.append(c)
    if not found:
        return [[inside / lift]]
    found[-1] = [x * inside / lift for x in found[-1]]
    return found


def _lift(G: Tensor, precision: Precision | None) -> float:
    return _LIFT if _kind(G, precision) == torch.float16 else 1.0


def _kind(G: Tensor, precision: Precision | None) -> torch.dtype:
    if G.dtype not in _DTYPES.values():
        raise DtypeError(f"G is {G.dtype}; convert it to bfloat16, float16, float32 or float64 first")
    if G.ndim < 2:
        raise InputError(f"G has shape {tuple(G.shape)}; a matrix has two dimensions, a batch of them more")
    if precision is None:
        return G.dtype
    if precision not in _DTYPES:
        raise InputError(f"precision={precision!r}: choose one of {', '.join(_DTYPES)}, or None for G's own")
    return _DTYPES[precision]


def _cuda_precision(precision: Precision | None, device: str, traced: bool) -> AbstractContextManager[None]:
    """float32 products on CUDA as "tf32" or "fp32" ask for, put back at the end."""
    if traced or device != "cuda" or precision not in ("tf32", "fp32"):
        return nullcontext()
    return cuda_products("tf32" if precision == "tf32" else "ieee")
