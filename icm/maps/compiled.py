"""φ of a solution as a composition, good enough for the singular values at hand and no more expensive than that."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from icm.errors import InputError
from icm.maps.composition import Composition, products
from icm.maps.error import Error, fit_error, rounding_error
from icm.maps.gauss_newton import refine
from icm.maps.greedy import best_polar
from icm.maps.polynomial import Precision, apply
from icm.maps.routes import ASPECT, Name
from icm.maps.scalar import ScalarMap
from icm.maps.statistics import Spectrum, representatives

# Degrees of the factors, tried in this order; 2, 3 and 4 products for degrees 3, 5 and 9.
LADDER: tuple[tuple[int, ...], ...] = (
    *(
        (3,),
        (5,),
        (9,),
        (3, 5),
        (5, 5),
        (3, 9),
        (9, 9),
        (5,) * 3,
        (5, 9, 9),
        (5,) * 4,
        (9,) * 3,
        (5,) * 5,
        (5, 9, 9, 9),
    ),
    *((5,) * 6, (9,) * 5, (5,) * 8, (9,) * 6, (5,) * 10, (9,) * 8, (5,) * 12, (9,) * 10),
)
FLAT_LADDER = tuple((5,) * count for count in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15))  # quintics lift most per product
COST = {"bf16": 1.0, "fp16": 1.0, "tf32": 2.0, "fp32": 4.0, "fp64": 8.0}  # of a product; about so on CPUs and GPUs

_QUANTILES = 96  # of the spectrum, where p is to meet φ
_OUTSIDE, _OUTSIDE_WEIGHT = 16, 0.03  # places, and their weight, that keep p sane between and beyond them
_UNKNOWN, _UNKNOWN_WEIGHT = 64, 0.3  # the same where the singular values themselves are not known
_ROUNDS = 40  # of the fit, at most
_LOOSE, _PASSES = 1e-3, 3  # errors asked for below the first take that many passes
_LOWERS = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-4, 1e-5)  # lower ends of polar maps to begin from

_ROOM = 1.05  # of ‖G‖₂ that a kept map's domain leaves at least, and beyond that of a new one at most
_AS_GOOD = 1.1  # of the error that the best of all had, where another search is not worth it
_COARSE = ("bf16", "fp16", "tf32")
_GRAM = 4.0  # by which iterating on Gram matrices may round more than the direct iteration; measured up to 3

_polar = functools.lru_cache(maxsize=512)(best_polar)


@dataclass(frozen=True, eq=False)
class Compiled:
    """Q ≈ length · U p(g/domain) Vᵀ for a G with singular values near those it was compiled for, ‖G‖₂ ≤ domain."""

    composition: Composition
    phi: ScalarMap
    domain: float
    length: float
    precision: Precision
    error: Error
    route: Name = "auto"

    def __call__(self, G: Tensor) -> Tensor:
        """U φ(g) Vᵀ for G (…, m, n), by products in the working precision, in G's dtype."""
        scale = torch.full(G.shape[:-2], self.domain, dtype=torch.float64, device=G.device)
        return self.length * apply(self.composition, G, scale=scale, precision=self.precision, route=self.route)

    def sigma(self, g: Tensor) -> Tensor:
        """What it makes of singular values g, float64, but for rounding."""
        return self.length * self.composition(g / self.domain)


@dataclass(frozen=True)
class Demand:
    """What a compiled map is to be: an `Error` within tol, in one of `precisions`, which run from the cheapest to the
    finest, by at most so many products (None: no bound), for ‖G‖₂ up to `margin` ≥ 1 times what it is; the matrices it
    is for have entries rounded by `output` and sides in the ratio `aspect` ≥ 1."""

    tol: float
    precisions: tuple[Precision, ...]
    margin: float = 1.0
    most: int | None = None
    output: float = 0.0
    aspect: float = 1.0

    @property
    def ladder(self) -> tuple[tuple[int, ...], ...]:
        return self._within(LADDER)

    @property
    def flat_ladder(self) -> tuple[tuple[int, ...], ...]:
        return self._within(FLAT_LADDER)

    def _within(self, ladder: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        # In 16 bits factors of degree 9 round badly: coefficients of both signs.
        fine = any(precision not in _COARSE for precision in self.precisions)
        within = tuple(d for d in ladder if fine or max(d) <= 5)
        within = tuple(d for d in within if self.most is None or products(d) <= self.most)
        if not within:
            raise InputError(f"most={self.most!r} products: the shortest map takes {products(ladder[0])}")
        return within


def compile_map(
    phi: ScalarMap,
    spectrum: Spectrum,
    demand: Demand,
    start: Compiled | None = None,
    flat: bool = False,
    unsure: float = 0.0,
) -> Compiled:
    """The cheapest composition whose `Error` on one spectrum is as demanded, or the best of those tried.

    Cost is products times `COST`. `start` is a neighbour to begin from, kept where it is good enough; `flat` says that
    φ is a multiple of the sign; `unsure` is the share of the spectrum in the error.
    """
    tol, precisions = demand.tol, demand.precisions
    top, length = float(spectrum.top), float(phi(phi.top))
    domain, wanted = top * demand.margin, phi(spectrum.g) / length

    def judged(candidates: Iterable[Composition], domain: float = domain) -> list[Compiled]:
        return _judged(candidates, phi, spectrum, demand, domain, unsure, length, wanted)

    ladder = demand.flat_ladder if flat else demand.ladder
    found: list[Compiled] = []
    if start is not None and start.composition.degrees in ladder and top * _ROOM <= start.domain <= domain * _ROOM:
        # What it does to G as it is, where φ has hardly moved.
        kept = judged([start.composition.rescaled(outside=start.length / length)], start.domain)
        if good := _good(kept, tol, start.precision):
            return good
    places = (*_places(phi, spectrum, domain, length), 1 if tol >= _LOOSE else _PASSES)
    if start is not None and start.composition.degrees in ladder:
        near = [start.composition] if flat else [start.composition, _fitted(start.composition, *places)]
        found = judged(near)
        if good := _good(found, tol, start.precision):
            return good
        best = min(found, key=lambda one: one.error.total)
        if tol < start.error.total and best.error.total <= _AS_GOOD * start.error.total:
            return best  # tol was out of reach then, and is now
    # The smallest singular value, to a digit, so that polar maps are found among those already made.
    smallest = float(f"{min(max(float(spectrum.g[-1]) / domain, 1e-5), 0.5):.0e}")
    if start is not None and start.composition.degrees in ladder:
        ladder = ladder[max(ladder.index(start.composition.degrees) - 1, 0) :]  # what is shorter was too short
    for degrees in ladder:
        good = _good(found, tol)
        if good and _cost(good) <= products(degrees) * COST[precisions[0]]:
            return good
        found += judged(
            (_polar(lower, degrees, False) for lower in _LOWERS)
            if flat
            else [_fitted(p, *places) for p in [*_starts(degrees, smallest), *_lengthened(found, degrees)]]
        )
    if good := _good(found, tol):
        return good
    best = min(found, key=lambda one: one.error.total)
    return replace(best, error=replace(best.error, fit=fit_error(best.composition, phi, domain, spectrum)))


def _judged(
    candidates: Iterable[Composition],
    phi: ScalarMap,
    spectrum: Spectrum,
    demand: Demand,
    domain: float,
    unsure: float,
    length: float,
    wanted: Tensor,
) -> list[Compiled]:
    """The nearest of the candidates to φ, `wanted` on the spectrum, in every precision allowed. Its share `fit` is a
    bound unless it is above tol: then what p misses on the spectrum as it is known will do."""
    x = spectrum.g / domain
    missed, p = min(((_miss(p(x), wanted), p) for p in candidates), key=lambda one: one[0])
    fit = missed / float(wanted.norm())
    fit = fit if fit > demand.tol else fit_error(p, phi, domain, spectrum)
    found = []
    for precision in demand.precisions:
        if precision in _COARSE and max(p.degrees) > 5:
            continue  # large coefficients of both signs: their rounding exceeds what is expected many times over
        share = rounding_error(p, domain, spectrum, precision, demand.aspect)
        route: Name = "direct"
        if demand.aspect >= ASPECT and fit + unsure + _GRAM * share + demand.output <= demand.tol:
            route, share = "auto", _GRAM * share
        found.append(Compiled(p, phi, domain, length, precision, Error(fit, unsure, share + demand.output), route))
    return found


def _good(found: Sequence[Compiled], tol: float, precision: Precision | None = None) -> Compiled | None:
    """The cheapest that is within tol, if one in this precision is."""
    good = [one for one in found if one.error.total <= tol]
    if precision is not None and not any(one.precision == precision for one in good):
        return None
    return min(good, key=_cost, default=None)


def precisions_for(dtype: torch.dtype, device: torch.device) -> tuple[Precision, ...]:
    """Working precisions for a G of `dtype`, from the cheapest: 16 bits where the device multiplies them fast."""
    cuda = device.type == "cuda"
    low: tuple[Precision, ...] = (
        ("fp16", "bf16") if dtype == torch.float16 and cuda else ("bf16", "fp16") if cuda else ("bf16",)
    )
    high: tuple[Precision, ...] = ("tf32", "fp32") if cuda else ("fp32",)
    return (*low, *high, "fp64") if dtype == torch.float64 else (*low, *high)


def unit_roundoff(dtype: torch.dtype) -> float:
    """What rounding entries to `dtype` changes at most, relative: eps/2, and 0 for float64."""
    return 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps / 2


def _cost(map: Compiled) -> float:
    return products(map.composition.degrees) * COST[map.precision]


def _miss(found: Tensor, wanted: Tensor) -> float:
    """‖p(x) − φ(x)‖, ∞ where p overflows."""
    miss = float((found - wanted).norm())
    return miss if math.isfinite(miss) else math.inf


def _places(
    phi: ScalarMap, spectrum: Spectrum, domain: float, length: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where p is to meet φ, ascending, what it is to be there, and with what weight: quantiles of the spectrum, and a
    few more."""
    x = spectrum.g / domain
    nodes, counts = representatives(len(x), _QUANTILES)
    x, mine = x[torch.from_numpy(nodes)], torch.from_numpy(np.sqrt(counts * (len(nodes) / len(x))))
    known = spectrum.tau is None
    half = (_OUTSIDE if known else _UNKNOWN) // 2
    outside = torch.cat([torch.linspace(1 / half, 1, half), torch.logspace(-4, -1, half)]).to(x)
    weight = torch.full_like(outside, _OUTSIDE_WEIGHT if known else _UNKNOWN_WEIGHT)
    places, order = torch.cat([x, outside]).sort()
    weight = torch.cat([mine, weight])[order]
    live = places > 0
    places, weight = places[live], weight[live]
    return places.numpy(), (phi(domain * places) / length).numpy(), weight.numpy()


def _fitted(start: Composition, x: np.ndarray, y: np.ndarray, weight: np.ndarray, passes: int = 1) -> Composition:
    """Least squares from `start`; more `passes` go on where one thought that little was left to gain."""
    factors = [np.array(factor) for factor in start.factors]
    factors, _ = refine(x, y, factors, powers=(2,) * passes, rounds=_ROUNDS, weights=weight)
    return Composition(tuple(tuple(map(float, factor)) for factor in factors))


def _lengthened(found: Sequence[Compiled], degrees: tuple[int, ...]) -> list[Composition]:
    """Those found of the first of these degrees, with the identity as the factors that are missing."""
    shorter = {one.composition for one in found if degrees[: len(one.composition)] == one.composition.degrees}
    longest = max((len(p) for p in shorter), default=0)
    rest = tuple((1.0, *(0.0,) * ((degree - 1) // 2)) for degree in degrees[longest:])
    return [Composition((*p.factors, *rest)) for p in shorter if len(p) == longest]


def _starts(degrees: tuple[int, ...], smallest: float) -> list[Composition]:
    """Near the identity, steeper, and polar from several lower ends on, the smallest singular value among them."""
    terms = [(degree + 1) // 2 for degree in degrees]
    if len(degrees) == 1:
        return [Composition(((1.0, *(0.0,) * (terms[0] - 1)),))]  # linear in its coefficients: one start finds the best
    straight = [
        Composition(tuple((slope, 1 - slope, *(0.0,) * (count - 2)) for count in terms)) for slope in (1.0, 1.2, 1.5)
    ]
    return straight + [_polar(lower, degrees, False) for lower in (0.1, 0.01, 1e-3, smallest)]
