"""Q for stacks of matrices: exactly, as the polar factor, or by the map last solved for, renewed where it is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from icm.curvature import Curvature, Wall
from icm.errors import SolveError
from icm.maps import orthogonalize
from icm.maps.compiled import Compiled, Demand
from icm.maps.norm_bounds import leading, probe
from icm.maps.planning import plan_spectrum, stacks
from icm.maps.polynomial import Precision, apply, apply_coefficients
from icm.maps.scalar import Curve
from icm.maps.statistics import Spectrum, spectrum
from icm.solvers import solve

Units = Literal["relative", "loss"]

MARGIN = 1.2  # of ‖G‖₂ at the last refresh, relative to ‖G‖_F, up to which a map holds
_WITHIN = 0.9  # of that, for a probe of ‖G‖₂, which falls short of it
_SHRUNK = 0.25 / MARGIN  # of it, below which φ in units of the loss was solved for another G
_FINE = 5e-3  # errors asked for below this need the singular values in float64
_NODES = 48  # of a φ that is remembered
_LONGER = 1.5  # times ‖Q‖_F at the refresh: more is no answer


@dataclass(frozen=True)
class Wish:
    """What is wanted of a solve: H in `units`, an error within tol by at most `products` products in `precision`,
    solved anew after `refresh` steps."""

    H: Curvature
    units: Units
    tol: float
    products: int
    precision: Precision
    refresh: int


@dataclass(frozen=True, eq=False)
class Memory:
    """Of one matrix, what its last solve left: H, the map (None: Q = 0), ‖G‖_F then in the units of the solve, ‖Q‖_F,
    the steps since, and on a CPU a direction (n, 1) near that of the largest singular value."""

    H: Curvature
    map: Compiled | None
    size: float
    length: float
    age: int = 0
    probe: Tensor | None = None

    def due(self, wish: Wish) -> bool:
        """Whether it is to be solved anew, whatever the gradient."""
        return self.age >= wish.refresh or self.H != wish.H

    def scale(self, size: Tensor, units: Units) -> Tensor:
        """What the map takes for ‖G‖₂ for a G with ‖G‖_F = size (), float64."""
        domain = 1.0 if self.map is None else self.map.domain
        return size * (domain / self.size) if units == "relative" and self.size > 0 else torch.full_like(size, domain)


def is_polar(H: Curvature) -> bool:
    """Whether Q is a multiple of the polar factor whatever G: a wall alone."""
    return all(isinstance(part, Wall) for part in H.parts)


def polar(X: Float[Tensor, "b m n"], precision: Precision) -> Float[Tensor, "b m n"]:
    """U Vᵀ, roughly, by products; in bfloat16 where they are."""
    return orthogonalize(X, precision, dtype=_kept(precision))


def exact(X: Float[Tensor, "b m n"], H: Curvature, units: Units) -> Float[Tensor, "b m n"]:
    """The solved Q, float64; 0 for X = 0. Raises SolveError where there is none or tol is missed."""
    X = X.double()
    if units == "relative":
        X = X / _positive(X.abs().amax((-2, -1), keepdim=True))
        X = X / _positive(torch.linalg.svdvals(X).sum(-1)[:, None, None])
    solution = solve(X, H)
    if not bool(torch.isfinite(solution.value).all()):
        raise SolveError(_unbounded(H), solution)
    return solution.Q


def by_maps(
    X: Float[Tensor, "b m n"], wish: Wish, memories: Sequence[Memory | None]
) -> tuple[Float[Tensor, "b m n"], list[Memory]]:
    """Q by products, and what is to be remembered of each matrix.

    Solved anew: without a memory, after `refresh` steps, for another H, and on a CPU where a probe of ‖X‖₂ or the
    length of Q shows that the map does not fit X. On an accelerator, where looking would stall the queue, X is scaled
    into the map's domain instead. Raises SolveError where the program has no answer.
    """
    sizes, looks = frobenius(X), X.device.type == "cpu"
    known: list[Memory | None] = [None if one is None or one.due(wish) else one for one in memories]
    kept = [i for i, one in enumerate(known) if one]
    if kept and looks:
        for i, one in zip(kept, _fitting(X[kept], sizes[kept], [one for one in known if one], wish), strict=True):
            known[i] = one
    new = [i for i, one in enumerate(known) if one is None]
    fresh = _solved(X[new], sizes[new], wish, [memories[i] for i in new]) if new else []
    found = _merged(known, new, fresh)
    Q = _applied(X, sizes, found, wish)
    if looks:
        lengths = torch.linalg.vector_norm(Q, dim=(-2, -1), dtype=torch.float32).double()
        most = lengths.new_tensor([_LONGER * one.length for one in found])
        again = [i for i in (~(lengths <= most)).nonzero()[:, 0].tolist() if i in kept and i not in new]
        if again:
            found = _merged(found, again, _solved(X[again], sizes[again], wish, [None] * len(again)))
            Q[again] = _applied(X[again], sizes[again], [found[i] for i in again], wish)
    return Q, [replace(one, age=one.age + 1) for one in found]


def frobenius(X: Float[Tensor, "b m n"]) -> Float[Tensor, " b"]:
    """‖X‖_F, float64, whatever X's size."""
    if X.device.type != "cpu" or X.dtype == torch.float64:
        return torch.linalg.vector_norm(X, dim=(-2, -1), dtype=torch.float64)
    sizes = torch.linalg.vector_norm(X, dim=(-2, -1), dtype=torch.float32).double()
    if bool(((sizes > 1e-15) & (sizes < 1e15)).all()):
        return sizes
    return torch.linalg.vector_norm(X.double(), dim=(-2, -1))


def _fitting(X: Tensor, sizes: Tensor, memories: Sequence[Memory], wish: Wish) -> list[Memory | None]:
    """The memories, None for those whose map is not for this X."""
    at = torch.stack([leading(x) if one.probe is None else one.probe for x, one in zip(X, memories, strict=True)])
    longest, at = probe(X, at)
    scales = torch.stack([one.scale(size, wish.units) for size, one in zip(sizes, memories, strict=True)])
    share = longest / scales
    fits = share <= _WITHIN  # and not where NaN
    if wish.units == "loss":
        fits &= share >= _SHRUNK
    pairs = zip(memories, sizes.tolist(), strict=True)
    fits |= torch.tensor([one.map is None and (one.size > 0 or size == 0) for one, size in pairs])  # Q stays 0
    return [replace(one, probe=v) if fit else None for one, v, fit in zip(memories, at, fits.tolist(), strict=True)]


def _solved(X: Tensor, sizes: Tensor, wish: Wish, before: Sequence[Memory | None]) -> list[Memory]:
    """Solved anew, from the maps that were there."""
    m, n = X.shape[-2:]
    known = spectrum(X, dtype=torch.float64 if wish.tol < _FINE else torch.float32)
    unit = _positive(known.g.sum(-1)) if wish.units == "relative" else torch.ones_like(known.top)
    known = Spectrum(known.g / unit[:, None], known.top / unit, known.slack, known.other / unit[:, None], known.tau)
    demand = Demand(wish.tol, (wish.precision,), MARGIN, wish.products, aspect=max(m, n) / min(m, n))
    starts = [one.map if one else None for one in before]
    made = plan_spectrum(known, m, n, wish.H, demand, starts)
    if not bool(torch.isfinite(made.answers.sigma).all()):
        raise SolveError(_unbounded(wish.H))
    rows = zip(made.compiled, (sizes.cpu() / unit).tolist(), made.length.tolist(), strict=True)
    return [Memory(wish.H, None if map is None else _lean(map), size, length) for map, size, length in rows]


def _lean(map: Compiled) -> Compiled:
    """The map with a φ of fewer nodes: all that the next solve begins from."""
    phi = map.phi
    return (
        replace(map, phi=replace(phi, function=phi.function.thinned(_NODES)))
        if isinstance(phi.function, Curve)
        else map
    )


def _applied(X: Tensor, sizes: Tensor, memories: Sequence[Memory], wish: Wish) -> Tensor:
    """The maps on X, on a CPU one by one, elsewhere all of the same degrees at once."""
    dtype = _kept(wish.precision) or X.dtype
    Q = torch.zeros_like(X, dtype=dtype)
    scales = [one.scale(size, wish.units) for size, one in zip(sizes, memories, strict=True)]
    if X.device.type == "cpu":
        for i, (one, scale) in enumerate(zip(memories, scales, strict=True)):
            if one.map is not None:
                composition = one.map.composition.rescaled(outside=one.map.length)
                Q[i] = apply(composition, X[i], scale, wish.precision, one.map.route, dtype)
        return Q
    reach = torch.stack(scales)
    inside = (_WITHIN * reach / probe(X, leading(X))[0]).clamp(max=1.0)
    for rows, coefficients, _, precision, route in stacks([one.map for one in memories], X.device):
        scale = reach[rows] / inside[rows]
        Q[rows] = apply_coefficients(coefficients, X[rows], scale, precision, route, dtype)
    return Q


def _merged(old: Sequence[Memory | None], rows: Sequence[int], new: Sequence[Memory]) -> list[Memory]:
    by_row = dict(zip(rows, new, strict=True))
    return [one for i, had in enumerate(old) if (one := by_row.get(i, had)) is not None]


def _kept(precision: Precision) -> torch.dtype | None:
    return torch.bfloat16 if precision == "bf16" else None


def _positive(x: Tensor) -> Tensor:
    return x.where(x > 0, 1.0)


def _unbounded(H: Curvature) -> str:
    return (
        f"the program has no answer for some matrix under H = {H}, which grows too slowly for its gradient: add "
        "curvature to H, such as + 0.1*r^2, or a wall"
    )
