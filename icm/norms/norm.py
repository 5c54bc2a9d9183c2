"""What every norm of matrices answers: its value, its dual, the matrices where the dual is reached, and steepest
descent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import require_finite, require_nonempty, to_tensor
from icm.errors import InputError


@dataclass(frozen=True)
class Norm(ABC):
    """A norm of real matrices W (m outputs × n inputs), each of a batch (*b, m, n) for itself.

        dual(G) = max ⟨G, T⟩ over ‖T‖ ≤ 1,      dualize(G) = a T where it is reached

    and steepest(G, λ) = argmin ⟨G, D⟩ + (λ/2)‖D‖² = −(dual(G)/λ) dualize(G), the step that a gradient G and a sharpness
    λ call for (Bernstein & Newhouse, arXiv 2409.20325, proposition 1). Where several T reach the dual norm, the one of
    least Frobenius norm is given, a multiple of no other; for G = 0 that is 0.

    Values are in the matrices' dtype, float32 for 16-bit floats, in which those are computed; lists and NumPy arrays
    are taken too. Matrices are divided by a power of two before anything is squared, so that their size costs no digit.

    Raises InputError for entries that are not finite, for none, and for fewer than two dimensions, DtypeError for
    matrices that are not real. `check=False` looks at no entry, so that a GPU is not waited for and torch.compile sees
    one graph: a real float tensor (*b, m, n), m, n ≥ 1, is then taken on trust, and what is not finite comes out so.
    """

    invariant: ClassVar[bool] = False
    """Whether ‖UWV‖ = ‖W‖ for all orthogonal U and V: whether the singular values alone decide."""

    def norm(self, W: Float[Tensor, "*b m n"] | Any, *, check: bool = True) -> Float[Tensor, "*b"]:
        """‖W‖."""
        W, size, _ = self._scaled(W, "W", check)
        return self._norm(W) * size

    def dual(self, G: Float[Tensor, "*b m n"] | Any, *, check: bool = True) -> Float[Tensor, "*b"]:
        """max ⟨G, T⟩ over ‖T‖ ≤ 1."""
        G, size, _ = self._scaled(G, "G", check)
        return self._dual(G) * size

    def dualize(self, G: Float[Tensor, "*b m n"] | Any, *, check: bool = True) -> Float[Tensor, "*b m n"]:
        """T with ‖T‖ = 1 and ⟨G, T⟩ = dual(G), in G's dtype; 0 for G = 0."""
        G, _, dtype = self._scaled(G, "G", check)
        return self._dualize(G).to(dtype)

    def steepest(
        self, G: Float[Tensor, "*b m n"] | Any, sharpness: float = 1.0, *, check: bool = True
    ) -> Float[Tensor, "*b m n"]:
        """argmin ⟨G, D⟩ + (λ/2)‖D‖² = −(dual(G)/λ) dualize(G), λ the `sharpness`, in loss per squared length."""
        if not 0 < sharpness < float("inf"):
            raise InputError(f"sharpness={sharpness!r} must be finite and above 0: it divides the step")
        G, size, dtype = self._scaled(G, "G", check)
        dual, T = self._both(G)
        return (T * (-dual / sharpness * size)[..., None, None]).to(dtype)

    def project(
        self, W: Float[Tensor, "*b m n"] | Any, radius: float = 1.0, *, check: bool = True
    ) -> Float[Tensor, "*b m n"]:
        """The matrix nearest to W in the Frobenius norm among those of ‖·‖ ≤ `radius`.

        Raises InputError where no algorithm for it is known here.
        """
        _require_radius(radius)
        W, size, dtype = self._scaled(W, "W", check)
        inside = self._norm(W) * size <= radius
        P = self._project(W, radius / size)
        return (torch.where(inside[..., None, None], W, P) * size[..., None, None]).to(dtype)

    def normalize(
        self, W: Float[Tensor, "*b m n"] | Any, radius: float = 1.0, *, check: bool = True
    ) -> Float[Tensor, "*b m n"]:
        """radius · W/‖W‖, on the norm's sphere; 0 for W = 0."""
        _require_radius(radius)
        W, _, dtype = self._scaled(W, "W", check)
        length = self._norm(W)[..., None, None]
        return (W * (radius / length.where(length > 0, 1.0))).to(dtype)

    # What a norm defines, for real matrices in float32 or float64 whose largest entry is in [1, 2), or 0.

    @abstractmethod
    def _norm(self, W: Tensor) -> Tensor: ...

    @abstractmethod
    def _dual(self, G: Tensor) -> Tensor: ...

    @abstractmethod
    def _dualize(self, G: Tensor) -> Tensor: ...

    def _both(self, G: Tensor) -> tuple[Tensor, Tensor]:
        """(dual, dualize), for those who have much of the work in common."""
        return self._dual(G), self._dualize(G)

    def _project(self, W: Tensor, radius: Tensor) -> Tensor:
        """Projection of matrices outside the ball of `radius` (*b)."""
        raise InputError(f"{self} has no projection here; `normalize` scales onto its sphere instead")

    def _admit(self, W: Tensor, name: str) -> None:  # noqa: B027, most take all
        """Raise InputError for a finite matrix that this norm cannot take."""

    def _scaled(self, W: Any, name: str, check: bool) -> tuple[Tensor, Tensor, torch.dtype]:
        """W/size with the largest entry in [1, 2), size (*b), a power of two, and the dtype of matrices given back."""
        W = to_tensor(W, name) if check else W.detach()
        if W.ndim < 2:
            raise InputError(f"{name} has shape {tuple(W.shape)}; a matrix has two dimensions, a batch of them more")
        require_nonempty(W, name)
        if check:
            require_finite(W, name)
            self._admit(W, name)
        dtype = W.dtype
        W = W.float() if W.itemsize < 4 else W
        size = _power_below(W.abs().amax((-2, -1)))
        return W / size[..., None, None], size, dtype


@dataclass(frozen=True)
class Rescaled(Norm):
    """c ‖·‖ for another norm and a c > 0 that the shape (m, n) decides."""

    @property
    @abstractmethod
    def inner(self) -> Norm:
        """‖·‖."""

    @abstractmethod
    def factor(self, m: int, n: int) -> float:
        """c."""

    def _norm(self, W: Tensor) -> Tensor:
        return self.inner._norm(W) * self.factor(*W.shape[-2:])

    def _dual(self, G: Tensor) -> Tensor:
        return self.inner._dual(G) / self.factor(*G.shape[-2:])

    def _dualize(self, G: Tensor) -> Tensor:
        return self.inner._dualize(G) / self.factor(*G.shape[-2:])

    def _both(self, G: Tensor) -> tuple[Tensor, Tensor]:
        c = self.factor(*G.shape[-2:])
        dual, T = self.inner._both(G)
        return dual / c, T / c

    def _project(self, W: Tensor, radius: Tensor) -> Tensor:
        return self.inner._project(W, radius / self.factor(*W.shape[-2:]))


def _power_below(x: Tensor) -> Tensor:
    """The largest power of two up to x ≥ 0, within the normal range; 1 for 0."""
    # The exponent's bits: torch.compile cannot build frexp for float64.
    if x.dtype == torch.float32:
        power = (x.view(torch.int32) & (0xFF << 23)).view(torch.float32).clamp(2.0**-126, 2.0**126)
    else:
        power = (x.view(torch.int64) & (0x7FF << 52)).view(torch.float64).clamp(2.0**-1022, 2.0**1022)
    return torch.where(x > 0, power, 1.0)


def _require_radius(radius: float) -> None:
    if not 0 < radius < float("inf"):
        raise InputError(f"radius={radius!r} must be finite and above 0: it is that of the ball")
