"""A composition applied to the singular values of matrices, by products alone.

A factor X ← X q(XᵀX) of degree 2q + 1 takes 2, 3, 4, 4, 6, 7, … products for degrees 3, 5, 7, 9, 11, 13, …: the Gram
matrix, q − 1 more of its size (degree 9: (c₄B + c₃A + c₂I)B + c₁A + c₀I with B = A²), and the one with X. Two routes:

- direct: each factor on X;
- gram: a stretch of factors on R = XXᵀ alone, with W = Π q_t(R_t) and R ← q_t(R) R q_t(R), then X ← W X, so that
  only two products per stretch are of X's size. Stretches end before rounding errors in R show (`icm.maps.routes`).

Errors ‖Q − U p(g) Vᵀ‖₂/‖p(g)‖_max, U, g, V and p in float64, 256×1024, ‖G‖_F as scale; "tensor" is the direct route of
`apply_coefficients` where it does not look; spectra: normal entries, conditions 1e2 and 1e3 (geometric), 1/i. Muon's
five quintics have p'(0) = 485, Polar Express's first five 1.0e3, and rounding G alone makes p'(0)·u of any g below
that; "gram" is (2, 2, 1), `icm.maps.routes` has the others:

                          Muon                              Polar Express
                          normal   1e2      1e3      1/i      normal   1e2      1e3      1/i
    fp64 direct           1.9e-14  4.7e-14  6.6e-14  1.2e-13  2.2e-14  6.0e-14  1.3e-13  1.0e-13
    fp64 gram             1.9e-14  4.4e-14  6.3e-14  1.2e-13  2.4e-14  7.2e-14  1.3e-13  1.0e-13
    fp32 direct           3.3e-06  2.7e-06  3.3e-06  2.7e-06  7.2e-06  4.2e-06  7.4e-06  3.2e-06
    fp32 gram             4.8e-06  5.6e-06  7.4e-06  5.2e-06  4.7e-06  1.4e-05  2.1e-05  7.1e-06
    fp32 tensor           4.2e-06  2.9e-06  5.6e-06  4.1e-06  1.1e-05  6.9e-06  1.9e-05  3.7e-05
    fp16 direct           3.0e-03  7.8e-03  1.0e-02  6.6e-03  1.9e-03  9.6e-03  1.8e-02  5.5e-03
    fp16 gram             3.0e-03  6.5e-03  8.1e-03  6.1e-03  4.3e-03  1.2e-02  2.0e-02  9.2e-03
    bf16 direct           2.1e-02  6.1e-02  7.8e-02  5.4e-02  1.5e-02  7.4e-02  1.4e-01  4.3e-02
    bf16 gram             2.4e-02  5.1e-02  6.5e-02  4.8e-02  4.4e-02  9.5e-02  1.4e-01  1.3e-01
    bf16 tensor           5.1e-02  6.3e-02  7.8e-02  5.9e-02  3.8e-02  7.6e-02  1.5e-01  4.9e-02
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
from icm.maps.iteration import Factor, carried, deferred, growths, iterated, settled
from icm.maps.norm_bounds import shrinkage
from icm.maps.routes import Name, Route, choose
from icm.maps.symmetric import Products, cuda_products

Precision = Literal["bf16", "fp16", "tf32", "fp32", "fp64"]
Scale = Float[Tensor, "..."] | float | Literal["gram"] | None

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
    scale: Scale = None,
    precision: Precision | None = None,
    route: Name | Route = "auto",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*b m n"]:
    """U p(g/s) Vᵀ for G = U diag(g) Vᵀ, in G's shape, in `dtype` (None: G's); 0 for G = 0.

    `scale`: s ≥ ‖G‖₂, one for all matrices or of shape (*b) (`icm.maps.bound` has some); None for ‖G‖_F; "gram" for
    ‖GGᵀ‖_F^{1/2}, at most ‖G‖_F and 2 to 5 times less where many singular values are alike, which the first product
    tells. G may be of any size that its dtype holds, subnormal entries aside. `precision`: what products are computed
    and stored in; None for G's own. "fp16" without a GPU is float32 rounded to float16 wherever a GPU would store it,
    as fast as float32; "tf32" is float32 outside CUDA, and within torch.compile follows torch.backends. `route`: "auto"
    by shape, dtype and device, or "direct", "gram" or an `icm.maps.routes.Route`.

    Nothing here waits for a GPU, and shapes are static: torch.compile(fullgraph=True) and CUDA graphs take it. Each
    composition is compiled anew, though; `apply_coefficients` takes coefficients that change. Entries that are not
    finite make their matrix NaN. Not differentiable: G is detached.

    Raises DtypeError for a G that is not a real float tensor of 16 to 64 bits, InputError for fewer than two
    dimensions, an unknown precision or route, or a scale that does not fit.
    """
    lift = _lift(G, precision)
    return _applied([_simplified(composition.factors, lift)], lift, G, scale, precision, route, dtype)


def apply_either(
    short: Composition,
    long: Composition,
    gain: float,
    G: Float[Tensor, "*b m n"],
    precision: Precision | None = None,
    route: Name | Route = "auto",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*b m n"]:
    """`apply` at scale "gram": of `short` where ‖G‖_F ≥ gain · ‖GGᵀ‖_F^{1/2}, of `long` elsewhere.

    Which it is, the first product tells, and is looked at: of the matrices that share it, the least gain decides.
    Raises as `apply`.
    """
    lift = _lift(G, precision)
    both = [_simplified(p.factors, lift) for p in (short, long)]
    return _applied(both, lift, G, "gram", precision, route, dtype, gain)


def apply_coefficients(
    coefficients: Float[Tensor, "*c T q"],
    G: Float[Tensor, "*b m n"],
    scale: Scale = None,
    precision: Precision | None = None,
    route: Name | Route = "auto",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*b m n"]:
    """`apply` for factors given as rows (c_0 ≠ 0, …, c_q) of a tensor on G's device, zeros at the end for lower
    degrees: one composition for all matrices, (T, q + 1), or one each, (*b, T, q + 1).

    New numbers in it cause no compilation and no wait, and a stack whose matrices each have their own is still one
    product per step: X/Π c_0 is iterated, as X̂ + S X̂ with S = Σ_{i ≥ 1} (c_i/c_0) (Π c_0)^{2i} R̂^i, so that the numbers
    α and β that the library's products take are 1 for all. That is q more passes over R per factor, fused by
    torch.compile. "gram" cannot see the growth of R's rounding errors and takes factors in pairs, right for Π c_0² ≤ 80
    within a pair but for its last. On a CPU, where reading a number waits for nothing, this is `apply`, one by one.

    Raises as `apply`, and InputError for coefficients of another shape.
    """
    batch = G.shape[:-2]
    if coefficients.ndim < 2 or coefficients.shape[-2] < 1 or coefficients.shape[-1] < 2:
        raise InputError(f"coefficients of shape {tuple(coefficients.shape)}: give (…, T, q + 1) with T ≥ 1 and q ≥ 1")
    if coefficients.ndim > 2 and coefficients.shape[:-2] != batch:
        raise InputError(
            f"coefficients of shape {tuple(coefficients.shape)} for matrices {tuple(batch)}: one (T, q + 1) for all, "
            "or one for each"
        )
    lift, kind = _lift(G, precision), _kind(G, precision)
    if G.device.type == "cpu" and not torch.compiler.is_compiling():
        if coefficients.ndim == 2:
            return apply(_composition(coefficients), G, scale, precision, route, dtype)
        numbers = coefficients.reshape(-1, *coefficients.shape[-2:])
        sizes = scale if scale is None or isinstance(scale, str) else _sizes(scale, G, kind)
        Q = torch.empty_like(G, dtype=dtype, memory_format=torch.contiguous_format).view(-1, *G.shape[-2:])
        for i, X in enumerate(G.reshape(Q.shape)):
            size = sizes[i, 0, 0] if isinstance(sizes, Tensor) else sizes
            Q[i] = apply(_composition(numbers[i]), X, size, precision, route, dtype)
        return Q.view(G.shape)
    wide = coefficients.to(torch.float64 if kind == torch.float64 else torch.float32)
    wide = wide.reshape(-1, *wide.shape[-2:]) if coefficients.ndim > 2 else wide
    short = kind == torch.float16 and not isinstance(route, Route)  # X/Π c_0 would leave its range
    factors = deferred(wide, kept=short)
    factors[-1] = [factors[-1][0] / lift]
    return _applied([factors], lift, G, scale, precision, "direct" if short else route, dtype)


def _composition(rows: Tensor) -> Composition:
    return Composition(tuple(tuple(row) for row in rows.tolist()))


def _applied(
    candidates: Sequence[Sequence[Factor]],
    lift: float,
    G: Tensor,
    scale: Scale,
    precision: Precision | None,
    route: Name | Route,
    dtype: torch.dtype | None,
    gain: float = 0.0,
) -> Tensor:
    """The last of the candidates, or the first where ‖G‖_F is at least `gain` times the scale "gram"."""
    kind, device, dtype = _kind(G, precision), G.device.type, dtype or G.dtype
    if G.numel() == 0:
        return torch.zeros_like(G, dtype=dtype)
    m, n = sorted(G.shape[-2:])
    traced = torch.compiler.is_compiling()
    plans = [choose(route, (m, n), growths(factors), kind, device, traced) for factors in candidates]
    plan = plans[-1]
    multiply = Products(plan.panels, half=kind == torch.float16 and device == "cpu")
    sizes = _sizes(None if scale == "gram" else scale, G, kind)
    tall, unit = G.shape[-2] > G.shape[-1], lift**-2
    plain = kind == torch.bfloat16 and device == "cpu" and not traced and scale != "gram"
    whole = settled(candidates[-1]) if plain and max(plan.segments, default=0) == 1 else None

    def mapped(X: Tensor, size: Tensor | None) -> Tensor:
        X = X.mT if tall else X
        if whole is not None:
            X = carried(_normalised(X, size, kind, lift * whole, traced), candidates[-1], whole, multiply)
            return X.mT if tall else X
        if scale != "gram":
            X = multiply.stored(_normalised(X, size, kind, lift, traced))
            X = iterated(X, candidates[-1], plan.segments, multiply, unit)
            return X.mT if tall else X
        X, R, share = _gram_scaled(X, kind, lift, multiply, traced)
        chosen = 0 if gain and bool((share <= gain**-2).all()) else -1
        X = iterated(X, candidates[chosen], plans[chosen].segments, multiply, unit, R)
        return X.mT if tall else X

    G = G.detach()
    with _cuda_precision(precision, device, traced):
        if G.ndim == 2:
            return mapped(G, None if sizes is None else sizes[0]).to(dtype).contiguous()
        stack = G.reshape(-1, *G.shape[-2:])
        chunk = 1 if tall and plan.chunk and not isinstance(route, Route) else plan.chunk or len(stack)
        if chunk >= len(stack):
            return mapped(stack, sizes).to(dtype).contiguous().view(G.shape)
        out = torch.empty_like(stack, dtype=dtype, memory_format=torch.contiguous_format)
        for start in range(0, len(stack), chunk):
            part = start if chunk == 1 else slice(start, start + chunk)
            out[part] = mapped(stack[part], None if sizes is None else sizes[part])
    return out.view(G.shape)


def _gram_scaled(
    X: Tensor, kind: torch.dtype, lift: float, multiply: Products, traced: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(X', R, share): X' = X · lift/s for s = ‖XXᵀ‖_F^{1/2}, to rounding, R = X'X'ᵀ, share = (s/‖X‖_F)²."""
    if X.device.type == "cpu" and not traced and kind != torch.float16:
        # Mostly X is of a size that needs no pass before its norm is known. The scale goes into X and R, not into the
        # coefficients: the library underneath prepares a product anew, as long as one takes, for every new α and β.
        for Y in (X.to(kind), None):
            Y = (X * shrinkage(X, kind if kind.itemsize > 2 else torch.float32)).to(kind) if Y is None else Y
            R = multiply.symmetric(Y, Y.mT)
            sizes = _norms(R)
            if bool(((sizes > 1e-18) & (sizes < 1e18)).all()):
                share = sizes / R.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=torch.float32)
                inside = sizes.rsqrt()[..., None, None].to(kind)
                square = inside.double().square().to(torch.promote_types(kind, torch.float32))
                return Y * inside, torch.mul(R, square, out=torch.empty_like(R)), share
    X = multiply.stored(_normalised(X, None, kind, lift, traced))
    R = multiply.symmetric(X, X.mT)
    share = torch.linalg.matrix_norm(R if R.itemsize > 2 else R.float()) / lift**2
    scale = share.where(share > 0, 1.0)[..., None, None]
    X, R = (multiply.stored((A / b).to(A.dtype)) for A, b in ((X, scale.sqrt()), (R, scale)))
    return X, R, share


def _norms(R: Tensor) -> Tensor:
    """‖R‖_F of a matrix or of each in a stack, on a CPU, where norms over the last dimensions are slow."""
    parts = [R] if R.ndim == 2 else list(R)
    norms = [torch.linalg.vector_norm(part if part.itemsize > 2 else part.float()) for part in parts]
    return norms[0] if R.ndim == 2 else torch.stack(norms)


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


def _sizes(scale: Any, G: Tensor, kind: torch.dtype) -> Tensor | None:
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
