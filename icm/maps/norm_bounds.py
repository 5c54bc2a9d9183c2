"""‖G‖₂ from above and from below, cheaply and rigorously: the scale that a map by products needs.

With A = GGᵀ on the smaller side and p = 2^{j−1}, ‖G‖₂ = ‖A^p‖₂^{1/2p} ≤ ‖A^p‖^{1/2p}, for the Frobenius norm as for the
geometric mean of the largest row and column sums. For k equal singular values the Frobenius norm is k^{1/4p} too large:
for k = 1000, 32 times without a product (k^{1/2}) and 5.6, 2.4, 1.5, 1.2 times with one to four.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import DtypeError, InputError
from icm.maps.symmetric import cuda_products

_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_SMALLEST, _LARGEST = 1e-4, 1e4  # lengths of rows whose squares and products stay far inside float32


def bound(G: Float[Tensor, "*b m n"], products: int = 0) -> Float[Tensor, "*b"]:
    """An upper bound of ‖G‖₂ in float32, or float64 for a float64 G; 0 for G = 0.

    `products` = 0: min(‖G‖_F, √(‖G‖₁‖G‖_∞)); j ≥ 1: also from A, A², …, A^{2^{j−1}}, by j products, of which the first
    is of G's size and the others of A's. Sound in floating point whatever order the products sum in: a product of inner
    length n is widened by (n + 4)u ‖·‖_F², u = 2⁻²⁴ or 2⁻⁵³ (N. J. Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd ed., §3.5, and room for underflow). In float32 that makes the bound about n u ‖G‖_F²/2‖G‖₂² larger
    than it need be, 0.8 % for a normal 1024×1024 matrix and 12 % for 4096×4096; pass G.double() where that matters.

    Raises DtypeError for a G that is not a real float tensor of 16 to 64 bits, InputError for fewer than two dimensions
    or products < 0.
    """
    if products < 0:
        raise InputError(f"products={products!r}: how many matrix products the bound may take, 0 or more")
    A, shrink = _normalised(G)
    A = A.mT if A.shape[-2] > A.shape[-1] else A
    unit = torch.finfo(A.dtype).eps / 2
    frobenius, norm = _norms(A, unit)
    norms, scales, errors = [norm], [], []
    plain = A.device.type != "cuda" or torch.compiler.is_compiling()  # TF32 rounds more than the widening allows for
    with nullcontext() if plain else cuda_products("ieee"):
        for _ in range(products):
            scale = power_of_two(-frobenius.where(frobenius > 0, 1.0).log2().round().to(A.dtype))
            B = A * scale[..., None, None]
            scales.append(scale.double())
            errors.append((B.shape[-1] + 4) * unit * (frobenius * scales[-1]).square())
            A = B @ B.mT
            frobenius, norm = _norms(A, unit)
            norms.append(norm)
    # ‖A_j‖₂ ≤ √(‖A_{j+1}‖₂ + error)/scale, from the last to the first
    best = norms.pop()
    while norms:
        best = torch.minimum(norms.pop(), (best + errors.pop()).sqrt() / scales.pop() * (1 + 1e-15))
    best = (best / shrink.double() * (1 + 1e-15)).to(A.dtype)
    return best.nextafter(best.new_full((), torch.inf)).where(best != 0, 0.0)


def lower_bound(G: Float[Tensor, "*b m n"], steps: int = 8, seed: int = 0) -> Float[Tensor, "*b"]:
    """A lower bound of ‖G‖₂: ‖Gx‖/‖x‖ after that many steps x ← GᵀGx from a normal x of this seed, less its rounding.

    In float32, or float64 for a float64 G, like `bound`, which with it encloses ‖G‖₂; the last product is in float64.
    For a G all of whose singular values are equal but one, twice as large, eight steps find it to about (n/16⁸)².

    Raises as `bound`, and InputError for steps < 0.
    """
    if steps < 0:
        raise InputError(f"steps={steps!r}: how many steps of the power iteration, 0 or more")
    X, shrink = _normalised(G)
    generator = torch.Generator(X.device).manual_seed(seed)
    x = torch.randn(X.shape[-1], 1, generator=generator, device=X.device, dtype=X.dtype).expand(*X.shape[:-2], -1, 1)
    for _ in range(steps):
        x = X.mT @ (X @ x)
        size = x.abs().amax((-2, -1), keepdim=True)
        x = x / size.where(size > 0, 1.0)
    X, x = X.double(), x.double()
    length = torch.linalg.vector_norm(x, dim=(-2, -1))
    unit = 2.0**-53
    slack = (X.shape[-1] + 4) * unit * torch.linalg.vector_norm(X, dim=(-2, -1))  # ≥ |error of Xx|/‖x‖
    found = torch.linalg.vector_norm(X @ x, dim=(-2, -1)) / length.where(length > 0, 1.0)
    found = (found * (1 - (sum(X.shape[-2:]) + 16) * unit) - slack * (1 + 1e-9)).clamp(min=0.0)
    found = (found / shrink.double()).to(torch.float64 if G.dtype == torch.float64 else torch.float32)
    return found.nextafter(found.new_zeros(()))


def probe(
    G: Float[Tensor, "*b m n"], v: Float[Tensor, "*b n 1"], steps: int = 1
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b n 1"]]:
    """A number (…), float64, that ‖G‖₂ exceeds but for rounding, and a v that finds a larger one next time.

    The largest of the rows' lengths and ‖GᵀGv‖/‖Gv‖ ≥ ‖Gv‖/‖v‖; the next v is GᵀGv, over its largest entry, with a
    tenth of the longest row mixed in, so that a new direction is found too; so many `steps` of that. For a stream of G
    that drifts, one call each: two products with vectors per step. NaN where G has one.
    """
    X, shrink, lengths = G.detach(), None, None
    if G.dtype == torch.float32 and G.device.type == "cpu" and not torch.compiler.is_compiling():
        # Mostly G is of a size whose fourth power is a number, and no pass is needed to make it so.
        lengths = torch.linalg.vector_norm(X, dim=-1)
        largest = lengths.amax(-1)
        if not bool(((largest > _SMALLEST) & (largest < _LARGEST)).all()):
            lengths = None
    if lengths is None:
        X, shrink = _normalised(G)
        lengths = torch.linalg.vector_norm(X, dim=-1)
    longest, at = lengths.max(-1)
    row = X.gather(-2, at[..., None, None].expand(*X.shape[:-2], 1, X.shape[-1])).mT
    row = 0.1 * row / row.abs().amax((-2, -1), keepdim=True).clamp(min=1e-30)
    for _ in range(steps):
        w = X @ v
        v = X.mT @ w
        along = torch.linalg.vector_norm(v, dim=(-2, -1)) / torch.linalg.vector_norm(w, dim=(-2, -1)).clamp(min=1e-30)
        longest = torch.maximum(longest, along)
        v = v / v.abs().amax((-2, -1), keepdim=True).clamp(min=1e-30) + row
    return longest.double() if shrink is None else longest.double() / shrink.double(), v


def leading(G: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b n 1"]:
    """A v for `probe`, near the direction of the largest singular value, by a few products with G."""
    v = torch.ones_like(G[..., :1, :].mT, dtype=torch.float64 if G.dtype == torch.float64 else torch.float32)
    return probe(G, v, 6)[1]


def power_of_two(exponent: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """2^exponent, exactly, for whole numbers within the normal range (`torch.exp2` may round)."""
    if exponent.dtype == torch.float64:
        return ((exponent.long() + 1023) << 52).view(torch.float64)
    return ((exponent.int() + 127) << 23).view(torch.float32)


def shrinkage(G: Float[Tensor, "*b m n"], wide: torch.dtype) -> Float[Tensor, "*b 1 1"]:
    """The power of two that brings max|G| into [½, 1), in `wide`, float32 or float64; 2^±120 (±1000) at most."""
    peak = torch.maximum(G.amax((-2, -1), keepdim=True), -G.amin((-2, -1), keepdim=True)).to(wide)
    reach = 1000 if wide == torch.float64 else 120
    return power_of_two(-peak.frexp().exponent.clamp(-reach, reach).to(wide))


def _normalised(G: Tensor) -> tuple[Tensor, Tensor]:
    """(G·shrink, shrink) in float32 or float64."""
    if G.dtype not in _DTYPES:
        raise DtypeError(f"G is {G.dtype}; convert it to bfloat16, float16, float32 or float64 first")
    if G.ndim < 2 or not G.numel():
        raise InputError(f"G has shape {tuple(G.shape)}; a matrix has two dimensions and at least one entry")
    wide = torch.float64 if G.dtype == torch.float64 else torch.float32
    shrink = shrinkage(G.detach(), wide)
    return G.detach() * shrink, shrink[..., 0, 0]


def _norms(A: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """(‖A‖_F, min(‖A‖_F, √(‖A‖₁‖A‖_∞))), rounded up, in float64."""
    slack = 1 + (sum(A.shape[-2:]) + 16) * unit
    frobenius = torch.linalg.vector_norm(torch.linalg.vector_norm(A, dim=-1).double(), dim=-1) * slack
    size = A.abs()
    rows, columns = size.sum(-1).amax(-1).double(), size.sum(-2).amax(-1).double()
    return frobenius, torch.minimum(frobenius, (rows * columns).sqrt() * slack)
