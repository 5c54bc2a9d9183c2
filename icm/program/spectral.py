"""The spectral reduction: minimise f(σ) − ⟨g, σ⟩ over σ ≥ 0, with f(σ) = E h(Σ σ_i² ζ_i²), h(s) = H(√s).

Some optimum of the matrix program is Q* = U diag(σ*) Vᵀ for G = U diag(g) Vᵀ (Su, arXiv 2511.00674, Prop. 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from icm.curvature import Curvature
from icm.sphere import expect


@dataclass(frozen=True, eq=False)
class SpectralProgram:
    """g (…, k) descending, float64, dim = n, H; U (…, m, k) and Vh (…, k, n) lead back to matrices."""

    g: Tensor
    dim: int
    H: Curvature
    U: Tensor
    Vh: Tensor

    def objective(self, sigma: Tensor) -> Float[Tensor, "*batch"]:
        """f(σ) − ⟨g, σ⟩ for sigma (…, k) ≥ 0."""
        return expect(self.H, sigma, self.dim).value - (self.g * sigma).sum(-1)

    def gradient(self, sigma: Tensor) -> Float[Tensor, "*batch k"]:
        """∇f(σ) − g."""
        return expect(self.H, sigma, self.dim).slopes - self.g

    def lift(self, sigma: Tensor) -> Float[Tensor, "*batch m n"]:
        """U diag(σ) Vᵀ, in the precision of the singular value decomposition."""
        return (self.U * sigma.to(self.U.dtype)[..., None, :]) @ self.Vh
