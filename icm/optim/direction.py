"""Q for stacks of matrices: exactly, as the polar factor, or by the map last solved for, renewed where it is due."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from icm.curvature import Curvature, Wall
from icm.errors import InputError, SolveError
from icm.maps import orthogonalize
from icm.maps.compiled import Compiled, Demand
from icm.maps.norm_bounds import leading, probe
from icm.maps.planning import plan_spectrum, stacks
from icm.maps.polynomial import Precision, apply, apply_coefficients
from icm.maps.scalar import Curve
from icm.maps.statistics import Spectrum, spectrum
from icm.solvers import solve

F = TypeVar("F")
Units = Literal["relative", "loss"]
Matrices = Sequence[Tensor]  # of one shape, dtype and device

MARGIN = 1.2  # of ‖G‖₂ at the last refresh, relative to ‖G‖_F, up to which a map holds
_WITHIN = 0.9  # of that, for a probe of ‖G‖₂, which falls short of it
_SURELY = 0.97  # of that, for a probe with many steps
_SHRUNK = 0.25 / MARGIN  # of it, below which φ was solved for quite another G
_FINE = 5e-3  # errors asked for below this need the singular values in float64
_NODES = 48  # of a φ that is remembered
_PROBES, _MORE = 3, 12  # steps of a probe of ‖X‖₂, which begins where the last one ended, and where it is close
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


def _untraced(function: F) -> F:
    """Run as it is within torch.compile: solves look at numbers."""
    disabled: Any = torch.compiler.disable(function)
    return disabled


class Memories:
    """What is remembered of one parameter, a list of memories for each part of its layout. No list itself and no
    dataclass: training frameworks take those apart to move what is in them."""

    def __init__(self, parts: list[list[Memory | None]]):
        self.parts = parts

    def __iter__(self) -> Iterator[Memory | None]:
        return (one for part in self.parts for one in part)


def is_polar(H: Curvature) -> bool:
    """Whether Q is a multiple of the polar factor whatever G: a wall alone."""
    return all(isinstance(part, Wall) for part in H.parts)


def polar(X: Matrices, precision: Precision, products: int) -> list[Tensor]:
    """U Vᵀ, roughly, by so many products at most, three for each of 3 to 5 quintics; in bfloat16 where they are."""
    dtype, steps = _kept(precision), min(max(products // 3, 3), 5)
    low = [x if dtype is None else x.to(dtype) for x in X]  # before they are stacked: half the memory to pass through
    count = _stacked(low[0])
    parts = [low[i : i + count] for i in range(0, len(low), count)]
    found: list[Tensor] = []
    for part in parts:
        one = part[0] if len(part) == 1 else torch.stack(part)
        Q = orthogonalize(one, precision, steps=steps)
        found += [Q] if len(part) == 1 else Q.unbind()
    return found


@_untraced
def exact(X: Matrices, H: Curvature, units: Units) -> list[Tensor]:
    """The solved Q, float64; 0 for X = 0. Raises SolveError where there is none or tol is missed."""
    G = torch.stack([x.double() for x in X])
    if units == "relative":
        G = G / _positive(G.abs().amax((-2, -1), keepdim=True))
        G = G / _positive(torch.linalg.svdvals(G).sum(-1)[:, None, None])
    solution = solve(G, H)
    if not bool(torch.isfinite(solution.value).all()):
        raise SolveError(_unbounded(H), solution)
    return list(solution.Q.unbind())


@_untraced
def by_maps(
    X: Matrices, wish: Wish, memories: Sequence[Memory | None]
) -> tuple[list[Tensor], Float[Tensor, " b"], list[Memory]]:
    """Q by products, in bfloat16 where they are, ‖Q‖_F, and what is to be remembered of each matrix.

    Solved anew: without a memory, after `refresh` steps, for another H, and on a CPU where a probe of ‖X‖₂ or the
    length of Q shows that the map does not fit X. On an accelerator, where looking would stall the queue, X is scaled
    into the map's domain instead. Raises SolveError where the program has no answer.
    """
    sizes, looks = frobenius(X), X[0].device.type == "cpu"
    if looks and not bool(torch.isfinite(sizes).all()):
        raise InputError("a gradient or momentum has NaN or infinite entries: nonfinite='skip' leaves such steps out")
    known: list[Memory | None] = [None if one is None or one.due(wish) else one for one in memories]
    if looks:
        known = [one and _fitting(x, size, one, wish) for x, size, one in zip(X, sizes, known, strict=True)]
    new = [i for i, one in enumerate(known) if one is None]
    found = _merged(known, new, _solved(X, sizes, wish, memories, new))
    Q = _applied(X, sizes, found, wish) if looks else _at_once(torch.stack(list(X)), sizes, found, wish)
    lengths = frobenius(Q)
    if looks:
        wrong = _wrong(lengths, found)
        if again := [i for i in wrong if i not in new]:
            found = _merged(found, again, _solved(X, sizes, wish, [None] * len(found), again))
            for i in again:
                Q[i] = _applied([X[i]], [sizes[i]], [found[i]], wish)[0]
                lengths[i] = frobenius([Q[i]])[0]
            wrong = _wrong(lengths, found)
        for i in wrong:  # a map that does not even fit the matrix it was made for
            Q[i] = exact([X[i]], wish.H, wish.units)[0].to(Q[i].dtype)
            lengths[i] = frobenius([Q[i]])[0]
    return Q, lengths, [replace(one, age=one.age + 1) for one in found]


def _wrong(lengths: Float[Tensor, " b"], memories: Sequence[Memory]) -> list[int]:
    """Which are longer than their map can make them, or not finite."""
    return [
        i
        for i, (length, one) in enumerate(zip(lengths.tolist(), memories, strict=True))
        if not length <= _LONGER * one.length  # so written for NaN
    ]


def frobenius(X: Matrices) -> Float[Tensor, " b"]:
    """‖X‖_F, float64, whatever X's size."""
    if X[0].device.type != "cpu" or torch.compiler.is_compiling():
        return torch.stack([torch.linalg.vector_norm(x, dtype=torch.float64) for x in X])
    sizes = torch.stack([torch.linalg.vector_norm(x if x.itemsize > 2 else x.float()) for x in X]).double()
    if bool(((sizes > 1e-15) & (sizes < 1e15)).all()):
        return sizes
    return torch.stack([torch.linalg.vector_norm(x.double()) for x in X])


def _fitting(X: Tensor, size: Tensor, memory: Memory, wish: Wish) -> Memory | None:
    """The memory with a new probe, None where its map is not for this X."""
    if float(size) == 0:
        return memory  # whose map makes 0 of it
    if memory.map is None:
        return memory if memory.size > 0 else None  # Q stays 0
    longest, v = probe(X, leading(X) if memory.probe is None else memory.probe, _PROBES)
    reach = float(memory.scale(size, wish.units))
    share = float(longest) / reach
    if _WITHIN < share <= _SURELY:
        longest, v = probe(X, v, _MORE)
        share = float(longest) / reach
    fits = _SHRUNK <= share <= _SURELY  # and not where NaN
    return replace(memory, probe=v) if fits else None


def _solved(
    X: Matrices, sizes: Tensor, wish: Wish, before: Sequence[Memory | None], rows: Sequence[int]
) -> list[Memory]:
    """Those rows solved anew, from the maps that were there."""
    if not rows:
        return []
    G, at, old = torch.stack([X[i] for i in rows]), list(rows), [before[i] for i in rows]
    m, n = G.shape[-2:]
    known = spectrum(G, dtype=torch.float64 if wish.tol < _FINE else torch.float32)
    unit = _positive(known.g.sum(-1)) if wish.units == "relative" else torch.ones_like(known.top)
    known = Spectrum(known.g / unit[:, None], known.top / unit, known.slack, known.other / unit[:, None], known.tau)
    demand = Demand(wish.tol, (wish.precision,), MARGIN, wish.products, aspect=max(m, n) / min(m, n))
    starts = [one.map if one else None for one in old]
    made = plan_spectrum(known, m, n, wish.H, demand, starts)
    if not bool(torch.isfinite(made.answers.sigma).all()):
        raise SolveError(_unbounded(wish.H))
    found = zip(made.compiled, (sizes[at].cpu() / unit).tolist(), made.length.tolist(), strict=True)
    # What was 0 is solved at the next step again: nothing is known of it. What was not due is, when it would have been:
    # many are solved together for less.
    ages = [0 if one is None or one.due(wish) else one.age for one in old]
    ages = [age if size > 0 else wish.refresh for age, size in zip(ages, sizes[at].tolist(), strict=True)]
    probes = [one.probe if one else None for one in old]
    return [
        Memory(wish.H, None if map is None else _lean(map), size, length, age, v)
        for (map, size, length), age, v in zip(found, ages, probes, strict=True)
    ]


def _lean(map: Compiled) -> Compiled:
    """The map with a φ of fewer nodes: all that the next solve begins from."""
    phi = map.phi
    if not isinstance(phi.function, Curve):
        return map
    return replace(map, phi=replace(phi, function=phi.function.thinned(_NODES)))


def _applied(X: Matrices, sizes: Sequence[Tensor] | Tensor, memories: Sequence[Memory], wish: Wish) -> list[Tensor]:
    """The maps on X, one by one."""
    dtype, Q = _kept(wish.precision), []
    for x, size, one in zip(X, sizes, memories, strict=True):
        if one.map is None:
            Q.append(torch.zeros_like(x, dtype=dtype))
            continue
        composition, scale = one.map.composition.rescaled(outside=one.map.length), one.scale(size, wish.units)
        Q.append(apply(composition, x, scale, wish.precision, one.map.route, dtype))
    return Q


def _at_once(X: Tensor, sizes: Tensor, memories: Sequence[Memory], wish: Wish) -> list[Tensor]:
    """The maps on a stack X (b, m, n), scaled into their domains, all those of the same degrees at once."""
    dtype = _kept(wish.precision) or X.dtype
    Q = torch.zeros_like(X, dtype=dtype)
    reach = torch.stack([one.scale(size, wish.units) for size, one in zip(sizes, memories, strict=True)])
    inside = (_WITHIN * reach / probe(X, leading(X))[0]).clamp(max=1.0)
    for rows, coefficients, _, precision, route in stacks([one.map for one in memories], X.device):
        scale = reach[rows] / inside[rows]
        Q[rows] = apply_coefficients(coefficients, X[rows], scale, precision, route, dtype)
    return list(Q.unbind())


def _stacked(X: Tensor) -> int:
    """How many matrices like this go into one product: on a CPU as `icm.maps.routes` has measured."""
    if X.device.type != "cpu":
        return 2**30
    return min(8, max(1, 2**19 // X.numel())) if X.shape[0] <= X.shape[1] and X.numel() <= 2**17 else 1


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
