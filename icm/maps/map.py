"""A spectral map that needs matrix products only, with the certificate of how near it is to φ."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import to_tensor
from icm.errors import InputError
from icm.maps import cache as disk
from icm.maps.certificate import Certificate, certify
from icm.maps.composition import Composition, products
from icm.maps.norm_bounds import leading, probe
from icm.maps.polynomial import Precision, apply
from icm.maps.routes import Name, Route
from icm.maps.scalar import ScalarMap

_BEYOND = 1e-6  # of the top, by which ‖G‖₂ may exceed it: rounding


@dataclass(frozen=True, eq=False)
class PolynomialMap:
    """map(G) = U p(g/s) Vᵀ ≈ U φ(g·top/s) Vᵀ, p the `composition`, which takes x in [0, 1] to φ(top x).

    What s is follows φ's scaling: the top, for "absolute"; a bound of ‖G‖₂, the Frobenius norm, for "invariant" and
    "equivariant", which multiplies the result by s/top. `lower`: from where on p is to meet φ, relative to the top.
    `precision`: that of the products where a call names none (None: G's own).
    """

    composition: Composition
    phi: ScalarMap
    lower: float
    precision: Precision | None = None

    @cached_property
    def certificate(self) -> Certificate:
        """How near p is to φ on [lower, 1] and below, and whether it increases: proved when first asked for."""
        return certify(self.composition, _unit(self.phi), self.lower)

    def __call__(
        self,
        G: Float[Tensor, "*batch m n"],
        precision: Precision | None = None,
        route: Name | Route = "auto",
        check: bool | None = None,
    ) -> Float[Tensor, "*batch m n"]:
        """U p(g/s) Vᵀ for each matrix, in G's shape, dtype and device; 0 for G = 0.

        `precision` and `route` as in `icm.maps.apply`. `check`: whether a φ that is absolute looks for a ‖G‖₂ beyond
        its top, by a few products with vectors; None: on the CPU, and not while compiling.

        Raises InputError for such a G, where p means nothing, and for what is not a matrix.
        """
        if not isinstance(G, Tensor) or G.ndim < 2:
            raise InputError(f"G is {_kind(G)}: give a tensor (…, m, n)")
        precision = precision or self.precision
        phi = self.phi
        if phi.scaling == "invariant":
            return apply(self.composition, G, None, precision, route)
        if phi.scaling == "absolute":
            if check is None:
                check = G.device.type == "cpu" and not torch.compiler.is_compiling()
            if check and G.numel():
                self._refuse_beyond(G)
            top = torch.full(G.shape[:-2], phi.top, dtype=_wide(G.dtype), device=G.device)
            return apply(self.composition, G, top, precision, route)
        size = frobenius(G)
        Q = apply(self.composition, G, size.where(size > 0, 1.0), precision, route)
        return (Q.to(size.dtype) * (size / phi.top)[..., None, None]).to(G.dtype)

    def scalar(self, x: Any) -> Float[Tensor, "*shape"]:
        """p in φ's units: what stands for φ(x), |x| ≤ top; float64."""
        return self.composition(to_tensor(x, "x").double() / self.phi.top)

    def with_precision(self, precision: Precision | None) -> PolynomialMap:
        """The same map, its products in another precision."""
        return replace(self, precision=precision)

    @property
    def products(self) -> int:
        """Matrix products that one application takes, factor by factor: 2, 3, 4, 4 for degrees 3, 5, 7, 9."""
        return products(self.composition.degrees)

    def table(self) -> str:
        """Degrees, products, coefficients and certificate, as text."""
        lines = [str(self)]
        for t, factor in enumerate(self.composition.factors):
            lines.append(f"  p_{t + 1:<2} degree {2 * len(factor) - 1}  " + "  ".join(f"{c:+.9g}" for c in factor))
        return "\n".join([*lines, str(self.certificate)])

    def __str__(self) -> str:
        degrees = "·".join(map(str, self.composition.degrees))
        return f"PolynomialMap({self.phi!r}, lower={self.lower:.6g}, degrees {degrees}, {self.products} products)"

    __repr__ = __str__

    def to_json(self) -> str:
        """The composition with what it was made for, as text that loses no bit; φ itself is not in it."""
        content = {
            "top": float(self.phi.top).hex(),
            "scaling": self.phi.scaling,
            "name": self.phi.name,
            "lower": float(self.lower).hex(),
            "precision": self.precision,
            "composition": disk.encode(self.composition, "map"),
        }
        return json.dumps(content, indent=1)

    @classmethod
    def from_json(cls, text: str, phi: ScalarMap) -> PolynomialMap:
        """The map that `to_json` wrote, to be certified anew against φ.

        Raises InputError for text that is damaged or no map, and for a φ of another top or scaling.
        """
        try:
            content = json.loads(text)
            composition = disk.decode(content["composition"], "map")
            top, lower = float.fromhex(content["top"]), float.fromhex(content["lower"])
            scaling, precision = content["scaling"], content["precision"]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"the text is no map, or a damaged one ({error}); write it again with to_json()"
            ) from error
        if top != phi.top or scaling != phi.scaling:
            raise InputError(f"the text holds a map with top={top:.9g}, {scaling}; φ is {phi!r}: fit one for it")
        return cls(composition, phi, lower, precision)

    def _refuse_beyond(self, G: Tensor) -> None:
        """Raise InputError where ‖G‖₂ is certainly beyond the top: by its rows, its columns and a few products."""
        top = self.phi.top
        allowed = 1 + _BEYOND + (torch.finfo(G.dtype).eps if G.itemsize < 4 else 0.0)
        found = probe(G.detach(), leading(G.detach()))[0]
        if found.numel() and bool((found > top * allowed).any()):
            raise InputError(
                f"‖G‖₂ ≥ {float(found.max()):.9g}, but {self.phi.name} is given up to top={top:.9g} only, and p means "
                "nothing beyond: fit a φ with a larger top, or scale G down"
            )


def frobenius(G: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch"]:
    """‖G‖_F, a hair more, which bounds ‖G‖₂ from above: without overflow or underflow, in float32 at least."""
    X = G.to(_wide(G.dtype))
    largest = X.abs().amax((-2, -1), keepdim=True)
    scaled = X / largest.where(largest > 0, 1.0)
    return largest[..., 0, 0] * scaled.square().sum((-2, -1)).sqrt() * (1 + 4 * torch.finfo(X.dtype).eps)


def _unit(phi: ScalarMap) -> ScalarMap:
    """φ(top x) on [0, 1]."""
    if phi.top == 1:
        return phi
    return ScalarMap(lambda x: phi(phi.top * x), 1.0, phi.scaling, phi.name)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.itemsize >= 4 else torch.float32


def _kind(G: Any) -> str:
    return f"of shape {tuple(G.shape)}" if isinstance(G, Tensor) else f"a {type(G).__name__}"
