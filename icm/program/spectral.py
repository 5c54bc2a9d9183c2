"""The spectral reduction: minimise f(σ) − ⟨g, σ⟩ over σ ≥ 0, with f(σ) = E h(Σ σ_i² ζ_i²), h(s) = H(√s).

Some optimum of the matrix program is Q* = U diag(σ*) Vᵀ for G = U diag(g) Vᵀ (Su, arXiv 2511.00674, Prop. 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from icm.curvature import Curvature
from icm.sphere import expect

_BLOCK = 1 << 17  # elements of U scaled at a time


@dataclass(frozen=True, eq=False)
class SpectralProgram:
    """g (…, k) descending, dim = n, H; U (…, m, k) and Vh (…, k, n) lead back to matrices, and from them, for inputs
    with a second moment, `back` (…, n, n) to updates. All float64."""

    g: Float[Tensor, "*batch k"]
    dim: int
    H: Curvature
    U: Float[Tensor, "*batch m k"]
    Vh: Float[Tensor, "*batch k n"]
    back: Float[Tensor, "*b n n"] | None = None

    def objective(self, sigma: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
        """f(σ) − ⟨g, σ⟩ for sigma (…, k) ≥ 0."""
        return expect(self.H, sigma, self.dim).value - (self.g * sigma).sum(-1)

    def gradient(self, sigma: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        """∇f(σ) − g."""
        return expect(self.H, sigma, self.dim).slopes - self.g

    def lift(self, sigma: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch m n"]:
        """U diag(σ) Vᵀ, times `back` where there is one, float64."""
        if self.back is not None:
            return replace(self, back=None).lift(sigma) @ self.back
        if self.U.ndim == 2:
            return (self.U * sigma) @ self.Vh
        # In blocks, so that the scaled factors stay in cache and their memory is used again.
        U, Vh, sigma = self.U.flatten(0, -3), self.Vh.flatten(0, -3), sigma.flatten(0, -2)
        Q = U.new_empty(len(U), U.shape[-2], Vh.shape[-1])
        rows = max(1, _BLOCK // U[0].numel())
        for i in range(0, len(U), rows):
            block = slice(i, i + rows)
            torch.bmm(U[block] * sigma[block, None, :], Vh[block], out=Q[block])
        return Q.reshape(*self.U.shape[:-1], Vh.shape[-1])
