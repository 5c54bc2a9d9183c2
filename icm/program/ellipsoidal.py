"""Inputs of any second moment: ζ = C^{1/2} ζ₀, ζ₀ uniform on the unit sphere, and how the program becomes isotropic.

With S C Sᵀ = I, G̃ = G Sᵀ and Q = Q̃ S, and R = C Sᵀ = S⁻¹, the two parts of F are

    ⟨G, Q⟩ = ⟨G̃, Q̃⟩,      ‖Qζ‖ = ‖Q̃ O ζ₀‖ in law, O = S C^{1/2} orthogonal,

so that Q* = Q̃* S for the Q̃* of G̃. C^{−1/2} is one such S and every other is an orthogonal matrix times it, which
changes neither Q* nor the singular values of G̃ and Q̃. In floats S C Sᵀ = I + Δ; with ‖Δ‖₂ ≤ δ the singular values
of Q C^{1/2} are those of Q̃ to a factor √(1 ± δ). Rounding of C's decomposition alone makes δ of the order of ε·cond C.
One step S ← (I − ½Δ) S, with Δ from products of twice the precision, leaves ε·√(cond C), which is what rounding the
entries of S costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import require_finite, to_tensor
from icm.curvature.parameter import refuse_tangent
from icm.errors import InputError

_EPS = torch.finfo(torch.float64).eps
_REFINEMENTS = 2  # the second only matters for condition numbers beyond 1e12


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """A second moment C (…, n, n) of trace n, with S, R = C Sᵀ (…, n, n) and δ (…) ≥ ‖S C Sᵀ − I‖₂; all float64.

    `longest` (…) = ‖R‖₂ and `shortest` (…) = 1/‖S‖₂ are the roots of the largest and smallest eigenvalue of C.
    """

    C: Float[Tensor, "*b n n"]
    S: Float[Tensor, "*b n n"]
    R: Float[Tensor, "*b n n"]
    delta: Float[Tensor, "*b"]
    longest: Float[Tensor, "*b"]
    shortest: Float[Tensor, "*b"]

    @classmethod
    def of(cls, C: Any, G: Tensor) -> Ellipsoid:
        """The ellipsoid of a second moment C (…, n, n), of any scale, for G (…, m, n) with whose batch it broadcasts.

        Raises InputError for a C of another shape, not finite, not symmetric, not positive definite or requiring grad.
        """
        if isinstance(C, Ellipsoid):
            return C
        C = normalised(C, G)
        w, V = torch.linalg.eigh(C)
        least, largest, n = w[..., 0], w[..., -1], C.shape[-1]
        if bool((least <= 4 * n * _EPS * largest).any()):
            i = int((least / largest).argmin())
            low, high = float(least.reshape(-1)[i]), float(largest.reshape(-1)[i])
            kind = "indefinite" if low < -4 * n * _EPS * high else "singular to rounding"
            raise InputError(
                f"input_moment is {kind}: its smallest eigenvalue is {low / high:.3g} of its largest, and inputs that "
                "do not vary in some direction leave Q unbounded there; add a ridge, e.g. C + 1e-6 * (trace(C)/n) * I"
            )
        S = V.mT / w.sqrt()[..., :, None]
        R, delta = _remainder(C, S)
        for _ in range(_REFINEMENTS):
            size = torch.linalg.matrix_norm(delta)
            if bool((size <= n * _EPS * (largest / least).sqrt()).all()):
                break
            S = S - 0.5 * (delta @ S)
            R, delta = _remainder(C, S)
        # Beside what is left of Δ: the rounding of R itself; measured at a hundredth of this.
        bound = torch.linalg.matrix_norm(delta) + _EPS * (largest / least).sqrt()
        return cls(C, S, R, bound, largest.sqrt(), least.sqrt())

    def whiten(self, G: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m n"]:
        """G̃ = G Sᵀ, float64."""
        return G.double() @ self.S.mT

    def lengths(self, Q: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m n"]:
        """Q̃ = Q R, float64: ‖Qζ‖ and ‖Q̃ζ₀‖ have one law."""
        return Q.double() @ self.R

    def restore(self, Q: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m n"]:
        """Q = Q̃ S, float64."""
        return Q.double() @ self.S

    def strain(self, Q: Tensor, lengths: Tensor) -> Float[Tensor, "*batch"]:
        """‖Q‖_F ‖R‖₂/‖QR‖₂ (…), at most √(k·cond C): by how much relative rounding of Q's entries grows in QR."""
        size = torch.linalg.matrix_norm(lengths, 2)
        return torch.linalg.matrix_norm(Q.double()) * self.longest / size.where(size > 0, 1.0)


def normalised(C: Any, G: Tensor) -> Float[Tensor, "*b n n"]:
    """C (…, n, n) times n/tr C, float64, on G's device, its two halves made equal.

    Raises InputError as `Ellipsoid.of`, but for a C that is not positive definite with a positive trace.
    """
    if isinstance(C, Tensor):
        refuse_tangent(C, "input_moment")
        if C.requires_grad:
            raise InputError(
                "input_moment requires grad, and solves are differentiable in G and the numbers of H but not in the "
                "second moment: pass C.detach()"
            )
    C = to_tensor(C, "input_moment")
    n = G.shape[-1]
    if C.ndim < 2 or C.shape[-2:] != (n, n):
        raise InputError(
            f"input_moment has shape {tuple(C.shape)}; G {tuple(G.shape)} has {n} inputs, so their second moment is "
            f"({n}, {n}), or a batch of such"
        )
    batch = G.shape[:-2]
    if len(C.shape) > len(G.shape) or any(a not in (1, b) for a, b in zip(C.shape[-3::-1], batch[::-1], strict=False)):
        raise InputError(
            f"input_moment has the batch shape {tuple(C.shape[:-2])}, which does not broadcast to that of G, "
            f"{tuple(batch)}: give one matrix for all, or expand G"
        )
    require_finite(C, "input_moment")
    eps = torch.finfo(C.dtype).eps
    C = C.to(G.device, torch.float64)
    # A power of two costs no digit and keeps every scale within range.
    exponent = torch.frexp(C.abs().amax((-2, -1)))[1].clamp(-1000, 1000)
    C = torch.ldexp(C, -exponent[..., None, None])
    apart = (C - C.mT).abs().amax((-2, -1))
    if bool((apart > 64 * math.sqrt(n) * eps).any()):
        raise InputError(
            f"input_moment is not symmetric: C and its transpose differ by {float(apart.amax()):.3g} of the largest "
            "entry; a second moment is XᵀX/N, or pass (C + C.mT)/2 if that is meant"
        )
    C = 0.5 * (C + C.mT)
    trace = C.diagonal(dim1=-2, dim2=-1).sum(-1)
    if not bool((trace > 0).all()):
        raise InputError(
            f"input_moment has the trace {float(trace.amin()):.3g} times its largest entry's power of two, and a "
            "positive definite matrix has one above 0: leave it out for inputs of which nothing is known"
        )
    # What has been normalised before stays as it is, to the last digit.
    scale, kept = n / trace, torch.ldexp(torch.ones_like(trace), exponent)
    return C * torch.where((scale / kept - 1).abs() <= n * _EPS, kept, scale)[..., None, None]


def _remainder(C: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """R = C Sᵀ and Δ = S C Sᵀ − I, with cancellation in Δ computed to twice the precision."""
    high, low = _product(S, C)
    top, rest = _product(high, S.mT)
    identity = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
    delta = (top - identity) + (rest + low @ S.mT)
    return (high + low).mT, 0.5 * (delta + delta.mT)


def _product(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """A B (…, p, q) for A (…, p, n) and B (…, n, q) as a sum high + low, to about 2^{−80} of ‖row‖·‖column‖.

    A and B are cut into slices whose products are exact in float64. Source: Ozaki, Ogita, Oishi & Rump, Error-free
    transformations of matrix multiplication, Numer. Algorithms 59 (2012).
    """
    bits = (52 - math.ceil(math.log2(A.shape[-1] + 1))) // 2
    first, second, third = _slices(A, -1, bits)
    one, two, three = _slices(B, -2, bits)
    high, low = first @ one, torch.zeros_like(first @ one)
    for part in (first @ two, second @ one, second @ two):
        total = high + part
        back = total - high
        low = low + ((high - (total - back)) + (part - back))
        high = total
    return high, low + (third @ B + (first + second) @ three)


def _slices(A: Tensor, axis: int, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """A as three sums, the first two with at most `bits` bits below the largest entry along `axis`."""
    exponent = torch.frexp(A.abs().amax(axis, keepdim=True))[1]
    ones = torch.ones_like(A.amax(axis, keepdim=True))
    cut = torch.ldexp(1.5 * ones, exponent + 52 - bits)
    first = (A + cut) - cut
    cut = torch.ldexp(1.5 * ones, exponent + 52 - 2 * bits)
    second = ((A - first) + cut) - cut
    return first, second, (A - first) - second
