"""The norm that a curvature stands for: inf {t > 0 : E H(‖Wζ‖/t) ≤ 1}."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from icm.curvature import Curvature, Power, Wall, as_curvature
from icm.curvature.parameter import plain
from icm.errors import CurvatureError, InputError
from icm.norms.luxemburg import Luxemburg
from icm.norms.norm import Norm
from icm.solvers.certificate import decomposition_error

_WIDEST = 1e100  # of H's own length and its inverse: squares of radii have to stay within float64


@dataclass(frozen=True)
class FromCurvature(Norm):
    """The Luxemburg norm N(W) = inf {t > 0 : E H(‖Wζ‖/t) ≤ 1}, ζ uniform on the unit sphere of R^n, n inputs.

    H is a curvature or its text. The unit ball of N is {W : E H(‖Wζ‖) ≤ 1}; N is unitarily invariant, though not under
    transposition, n being the dimension of ζ.

    - H = r^p: N = (E‖Wζ‖^p)^{1/p}. It rises with p, from the Frobenius norm over √n at p = 2 towards the spectral norm.
      The solved update of the model, argmin −⟨G, Q⟩ + E‖Qζ‖^p, is (N†/p)^{1/(p−1)} dualize(G), N† = dual(G).
    - H = wall(r̃): N = ‖W‖₂/r̃, exactly, and dualize(G) = r̃ UVᵀ.
    - A sum with a wall: the larger of the two norms.

    For other H the solved update is not steepest descent in this norm or in any one norm. It maximises ⟨G, Q⟩ over
    {E H(‖Qζ‖) ≤ c} with c = E H(‖Q*ζ‖), which depends on G and on its scale; N is the ball c = 1. For powers alone
    all these balls are multiples of one.

    dual and dualize solve max ⟨g, v⟩ over N(diag v) ≤ 1 on G's singular values, in closed form for r² and walls, and
    `bounds` encloses the dual norm by weak duality. Everything is computed in float64 (for r² without a decomposition),
    on the host's word: `check=False` saves the checks of G, but the solver waits for the device.

    Raises CurvatureError for an H that is 0 everywhere, reaches 1 nowhere, or only at a radius outside 1e±100.
    """

    H: Curvature | str
    unit: float = field(init=False, repr=False, compare=False)
    """The radius with H(unit) = 1, or the wall before it: N of a multiple c·UVᵀ, n singular values c, is c/unit."""

    invariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        H = plain(as_curvature(self.H))
        unit = H.length_scale
        if isinstance(H, Power) and H.scale > 0:
            unit = H.scale ** (-1 / H.exponent)
        if not 1 / _WIDEST <= unit <= _WIDEST:
            where = "nowhere" if math.isinf(unit) else f"only at r = {unit:g}"
            raise CurvatureError(
                f"H = {H} reaches 1 {where}, and the norm's unit ball is E H(‖Wζ‖) ≤ 1; give an H that rises, scaled "
                f"such that H(r) = 1 for an r in [{1 / _WIDEST:g}, {_WIDEST:g}], e.g. 'r^3' or 'wall(1)'",
                radius=None if math.isinf(unit) else unit,
            )
        object.__setattr__(self, "H", H)
        object.__setattr__(self, "unit", unit)

    def bounds(self, G: Float[Tensor, "*b m n"] | Any) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
        """(lower, upper), float64: lower ≤ N†(G) ≤ upper, up to what rounds in the decomposition of G, which is added.

        lower = ⟨G, T⟩ for a T of norm 1. For any T and μ ≥ 0, with f(Q) = E H(‖Qζ‖) and its gradient at T,

            N†(G) = max ⟨G, Q⟩ over f(Q) ≤ 1  ≤  μ (1 − f(T) + ⟨∇f(T), T⟩) + max ⟨G − μ∇f(T), Q⟩ over f(Q) ≤ 1,

        by the convexity of f; the last term, which vanishes for the maximiser, is bounded by ‖Q‖_F ≤ unit/κ_n, κ_n =
        E|ζ₁|, and ‖Q‖₂ ≤ wall. Errors of evaluation are added too. Measured relative widths: 3e−13 for n up to 256
        and 1.3e−12 at 1024, of which the decomposition has most; for high powers p·1e−14 more. Raises as `dual`.
        """
        G, size, _ = self._scaled(G, "G", True)
        m, n = G.shape[-2:]
        G = G.double()
        g = torch.linalg.svdvals(G).reshape(-1, min(m, n))
        v, held = self._law(n).maximise(g, _support(g, G.dtype, m, n))
        lower, upper = (g * v).sum(-1), self._law(n).upper(g, v, held)
        slack = decomposition_error(m, n) * self.unit / self._law(n).kappa * g.norm(dim=-1)
        scale, batch = size.double(), G.shape[:-2]
        return (lower - slack).clamp(min=0).reshape(batch) * scale, (upper + slack).reshape(batch) * scale

    def steepest(
        self, G: Float[Tensor, "*b m n"] | Any, sharpness: float = 1.0, *, check: bool = True
    ) -> Float[Tensor, "*b m n"]:
        """As `Norm.steepest`, by one solve."""
        if not 0 < sharpness < float("inf"):
            raise InputError(f"sharpness={sharpness!r} must be finite and above 0: it divides the step")
        G, size, dtype = self._scaled(G, "G", check)
        dual, T = self._solve(G)
        return (T * (-dual / sharpness * size)[..., None, None]).to(dtype)

    def _law(self, dim: int) -> Luxemburg:
        assert isinstance(self.H, Curvature)
        return Luxemburg(self.H, dim, self.unit)

    def _norm(self, W: Tensor) -> Tensor:
        n, X = W.shape[-1], W.double()
        # The Frobenius norm is all that r² asks for: one number in place of the singular values.
        sigma = X.flatten(-2).norm(dim=-1, keepdim=True) if self._round else torch.linalg.svdvals(X)
        return self._law(n).length(sigma.reshape(-1, sigma.shape[-1])).reshape(W.shape[:-2]).to(W.dtype)

    def _dual(self, G: Tensor) -> Tensor:
        (m, n), X = G.shape[-2:], G.double()
        g = X.flatten(-2).norm(dim=-1, keepdim=True) if self._round else torch.linalg.svdvals(X)
        g = g.reshape(-1, g.shape[-1])
        v, _ = self._law(n).maximise(g, _support(g, G.dtype, m, n))
        return (g * v).sum(-1).reshape(G.shape[:-2]).to(G.dtype)

    def _dualize(self, G: Tensor) -> Tensor:
        return self._solve(G)[1]

    def _solve(self, G: Tensor) -> tuple[Tensor, Tensor]:
        """(N†(G), T), in G's dtype."""
        (m, n), X = G.shape[-2:], G.double()
        if self._round:
            g = X.flatten(-2).norm(dim=-1)
            v = self._law(n).maximise(g.reshape(-1, 1), g.reshape(-1, 1) > 0)[0].reshape(g.shape)
            T = X * (v / g.where(g > 0, 1.0))[..., None, None]
            return (g * v).to(G.dtype), T.to(G.dtype)
        U, g, Vh = torch.linalg.svd(X, full_matrices=False)
        flat = g.reshape(-1, g.shape[-1])
        v = self._law(n).maximise(flat, _support(flat, G.dtype, m, n))[0].reshape(g.shape)
        return (g * v).sum(-1).to(G.dtype), ((U * v[..., None, :]) @ Vh).to(G.dtype)

    def _project(self, W: Tensor, radius: Tensor) -> Tensor:
        if self._round:
            return W * (radius / self._norm(W).where(self._norm(W) > 0, 1.0))[..., None, None]
        if not isinstance(self.H, Wall):
            return super()._project(W, radius)
        U, sigma, Vh = torch.linalg.svd(W.double(), full_matrices=False)
        top = (self.H.radius * radius.double())[..., None]
        return ((U * torch.minimum(sigma, top)[..., None, :]) @ Vh).to(W.dtype)

    @property
    def _round(self) -> bool:
        """Whether H = c r²: the Frobenius norm, times √(c/n)."""
        return isinstance(self.H, Power) and self.H.exponent == 2

    def __str__(self) -> str:
        return f"luxemburg({self.H})"


def _support(g: Tensor, dtype: torch.dtype, m: int, n: int) -> Tensor:
    """Which singular values (B, k) are more than what rounds in a decomposition in `dtype`."""
    return g > (8 + max(m, n) ** 0.5) * torch.finfo(dtype).eps * g.amax(-1, keepdim=True)
