"""A map applied exactly, to rounding: U φ(g) Vᵀ from the singular value decomposition or the Gram matrix."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import require_finite
from icm.errors import DtypeError, InputError
from icm.maps.norm_bounds import shrinkage
from icm.maps.scalar import ScalarMap

Method = Literal["auto", "svd", "gram"]

_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def exact(
    phi: ScalarMap,
    G: Float[Tensor, "*b m n"],
    method: Method = "auto",
    scale: Float[Tensor, "*b"] | float | None = None,
) -> Float[Tensor, "*b m n"]:
    """U φ(g) Vᵀ for G = U diag(g) Vᵀ, in G's shape and dtype, as phi.scaling says: "absolute" φ(g), "equivariant"
    (s/top) φ(g·top/s), "invariant" φ(g·top/s), where s is `scale` ≥ ‖G‖₂, or ‖G‖₂ itself.

    Singular values up to (8 + √k) ε ‖G‖₂, k = max(m, n) and ε G's, are taken as 0: of them only noise is known, which a
    φ that jumps at 0 would raise to full size. So the sign of a matrix of rank r is its partial isometry of rank r.

    - "svd": in float32, or float64 for a float64 G. Backward stable: Q belongs to a G changed by a few ε‖G‖₂. For φ
      with slopes up to L that changes Q by a few ε L‖G‖₂; for the sign by a few ε g_max/g_min.
    - "gram": eigenvalues λ and vectors U of XXᵀ on the smaller side, in float64, and Q = U diag(φ(√λ)/√λ) Uᵀ X. What
      rounding the Gram matrix may change, η = 2√k ε₆₄ g_max², is no rounding error for a small g: relatively
      η/2g². So x|φ(√(x² + η))/√(x² + η) − φ(x)/x| is measured at every singular value x of each matrix; matrices
      where it exceeds ε·max φ, in G's ε or for float64 8ε, are done by "svd". For the sign in float32 that is from a
      condition number of 2e4/k^{1/4} on, in float64 always but for nearly orthogonal matrices; for a smooth φ in
      float32 hardly ever.
    - "auto": "svd" for float64; else "gram" on a GPU (by reasoning, not measured), and on a CPU where the long side is
      twice the short one (256×1024 float32 on one Zen 5 core 0.6 of "svd", 256×256 1.6).

    Checks that G is finite, and which matrices "gram" did well, on the host: on a GPU each waits for the device.
    Raises DtypeError for a G that is not a real float tensor of 16 to 64 bits, InputError for one that is not finite,
    fewer than two dimensions or an unknown method.
    """
    if G.dtype not in _DTYPES:
        raise DtypeError(f"G is {G.dtype}; convert it to bfloat16, float16, float32 or float64 first")
    if G.ndim < 2:
        raise InputError(f"G has shape {tuple(G.shape)}; a matrix has two dimensions, a batch of them more")
    if method not in ("auto", "svd", "gram"):
        raise InputError(f"method={method!r}: choose 'auto', 'svd' or 'gram'")
    if not G.numel():
        return torch.zeros_like(G)
    G = G.detach()
    require_finite(G, "G")
    X = G.reshape(-1, *G.shape[-2:])
    X = X.mT if X.shape[-2] > X.shape[-1] else X
    shrink = shrinkage(X, torch.float64 if G.dtype == torch.float64 else torch.float32)
    X = X * shrink
    unit = shrink[..., 0].double()
    given = (
        None if scale is None else torch.as_tensor(scale, device=G.device).double().expand(G.shape[:-2]).reshape(-1, 1)
    )
    eps = torch.finfo(G.dtype).eps
    wide = X.shape[-1] >= 2 * X.shape[-2]
    if method == "auto":
        method = "gram" if G.dtype != torch.float64 and (wide or G.device.type != "cpu") else "svd"
    if method == "svd":
        Q = _svd(phi, X, unit, given)
    else:
        Q, error = _gram(phi, X, unit, given)
        poor = error > (8 * eps if G.dtype == torch.float64 else eps)
        if bool(poor.any()):
            Q[poor] = _svd(phi, X[poor], unit[poor], None if given is None else given[poor])
    return (Q.mT if G.shape[-2] > G.shape[-1] else Q).reshape(G.shape).to(G.dtype)


def _svd(phi: ScalarMap, X: Tensor, unit: Tensor, scale: Tensor | None) -> Tensor:
    U, g, Vh = torch.linalg.svd(X, full_matrices=False)
    sigma = _mapped(phi, g.double(), unit, scale, _cut(X))
    return (U * sigma[..., None, :].to(U.dtype)) @ Vh


def _gram(phi: ScalarMap, X: Tensor, unit: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Q and what rounding the Gram matrix may have changed of it, over max φ."""
    kept, cut, X = X.dtype, _cut(X), X.double()
    square, U = torch.linalg.eigh(X @ X.mT)
    size = max(X.shape[-2:])
    top = square[..., -1:].clamp(min=0.0)
    eta = 2 * size**0.5 * 2.0**-52 * top
    g = square.clamp(min=0.0).sqrt()
    moved = (g.square() + eta).sqrt()
    both = _mapped(phi, torch.cat([g, moved], -1), unit, scale, cut, top.sqrt())
    sigma, other = both.split(g.shape[-1], -1)
    live = moved > 0
    ratio = torch.where(g > 0, sigma / g.where(g > 0, 1.0), 0.0)
    change = g * (ratio - torch.where(live, other / moved.where(live, 1.0), 0.0)).abs()
    largest = sigma.amax(-1)
    error = change.amax(-1) / largest.where(largest > 0, 1.0)
    return ((U * ratio[..., None, :]) @ (U.mT @ X)).to(kept), error


def _mapped(
    phi: ScalarMap, g: Tensor, unit: Tensor, scale: Tensor | None, cut: float, largest: Tensor | None = None
) -> Tensor:
    """φ as `exact` scales it, at singular values g of X = G·unit; 0 below cut·‖X‖₂."""
    largest = g.amax(-1, keepdim=True) if largest is None else largest
    g = g.where(g > cut * largest, 0.0)
    if phi.scaling == "absolute":
        return phi(g / unit)
    s = largest if scale is None else scale * unit
    s = s.where(s > 0, 1.0)
    sigma = phi(g * (phi.top / s))
    return sigma if phi.scaling == "invariant" else sigma * (s / unit / phi.top)


def _cut(X: Tensor) -> float:
    return (8 + max(X.shape[-2:]) ** 0.5) * torch.finfo(X.dtype).eps
