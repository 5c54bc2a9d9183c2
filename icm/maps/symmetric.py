"""Products of matrices, and of commuting symmetric ones by block rows: what every route is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Products:
    """α A B + β C for two matrices or two stacks of them, in A's dtype.

    `panels`: a product known to be symmetric is computed as that many block rows, each up to the diagonal and then
    mirrored, which takes (p + 1)/2p of the work and makes the off-diagonal blocks symmetric to the last bit; 1 computes
    all of it. `half`:
    arithmetic in float32 with each result rounded to float16 as it is stored, which is what a device with fast float16
    products does, for those without.
    """

    panels: int = 1
    half: bool = False

    def __call__(
        self,
        A: Float[Tensor, "*b m k"],
        B: Float[Tensor, "*b k n"],
        C: Float[Tensor, "*b m n"] | None = None,
        beta: float = 1.0,
        alpha: float = 1.0,
    ) -> Float[Tensor, "*b m n"]:
        """α A B + β C in one call of the library underneath, so that no elementwise pass is left; A B without C."""
        if C is None:
            product = torch.mm(A, B) if A.ndim == 2 else torch.bmm(A, B)
        elif A.ndim == 2:
            product = torch.addmm(C, A, B, beta=beta, alpha=alpha)
        else:
            product = torch.baddbmm(C, A, B, beta=beta, alpha=alpha)
        return product.half().float() if self.half else product

    def symmetric(
        self,
        A: Float[Tensor, "*b m k"],
        B: Float[Tensor, "*b k m"],
        C: Float[Tensor, "*b m m"] | None = None,
        beta: float = 1.0,
        alpha: float = 1.0,
    ) -> Float[Tensor, "*b m m"]:
        """The same where it is symmetric: B = Aᵀ, or A, B and C symmetric and commuting."""
        m = A.shape[-2]
        if self.panels < 2 or m < 2 * self.panels:
            return self(A, B, C, beta, alpha)
        out = A.new_empty(*A.shape[:-1], m)
        height = -(-m // self.panels)
        for start in range(0, m, height):
            stop = min(start + height, m)
            row = None if C is None else C[..., start:stop, :stop]
            out[..., start:stop, :stop] = self(A[..., start:stop, :], B[..., :stop], row, beta, alpha)
            out[..., :start, start:stop] = out[..., start:stop, :start].mT
        return out

    def stored(self, x: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """x as the working precision keeps it."""
        return x.half().float() if self.half else x


def weighted_sum(A: Tensor, a: float, B: Tensor, b: float) -> tuple[Tensor, float]:
    """(C, γ) with γC = aA + bB, in one pass, γ the larger of a and b."""
    if abs(a) >= abs(b):
        return (_added(A, B, b / a) if b else A), a
    return _added(B, A, a / b), b


def _added(A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """A + αB, rounded once: elementwise operations on a CPU would round α itself to 16 bits."""
    if A.itemsize == 2 and A.device.type == "cpu":
        return torch.add(A.float(), B.float(), alpha=alpha).to(A.dtype)
    return torch.add(A, B, alpha=alpha)


def scaled(A: Tensor, alpha: float) -> Tensor:
    """αA, rounded once, as sums are."""
    if A.itemsize == 2 and A.device.type == "cpu":
        return (A.float() * alpha).to(A.dtype)
    return A * alpha


@contextmanager
def cuda_products(precision: str) -> Iterator[None]:
    """float32 products on CUDA in "ieee" or "tf32" arithmetic, whatever the user chose, which is put back."""
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    backend.fp32_precision = precision
    try:
        yield
    finally:
        backend.fp32_precision = before
