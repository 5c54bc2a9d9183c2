"""The compiler: a composition of odd polynomials for any φ, certified, and kept on disk."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from icm.errors import InputError
from icm.maps import cache as disk
from icm.maps.composition import Composition
from icm.maps.composition import products as taken
from icm.maps.gauss_newton import best_composition, nodes_of
from icm.maps.map import PolynomialMap
from icm.maps.scalar import ScalarMap, sign
from icm.solvers import Solution

_DEGREES = (3, 5, 7, 9)  # of factors
_LONGEST = 20
_NODES = 240
_CONSTANT = 1e-12  # relative spread of φ on [lower, 1] below which it is taken for a multiple of the sign


def fit(
    phi: ScalarMap | Callable[[torch.Tensor], torch.Tensor],
    lower: float = 1e-3,
    degree: int | Sequence[int] = 5,
    steps: int = 5,
    monotone: bool = True,
    *,
    cache: bool | str | Path | None = True,
    progress: Callable[[str], None] | None = None,
) -> PolynomialMap:
    """The map G ↦ U p(g) Vᵀ by matrix products alone, p = p_T ∘ … ∘ p_1 near φ in the maximum norm.

    min over p of max |p(x/top) − φ(x)|, lower · top ≤ x ≤ top; on [0, lower) p stays between 0 and φ(lower), up to the
    same error. φ: a ScalarMap, or a function of float64 tensors in [0, 1], increasing, φ(0) = 0. `degree`: one for
    each of `steps` factors, or a tuple with each factor's own (`degrees_for` a number of products). `monotone`: p' > 0,
    which keeps the order of the singular values; without, the error is smaller, above all where φ rises steeply: an
    increasing quintic multiplies small singular values by at most 9/4. A φ constant on [lower, 1] gives the best polar
    map. The composition is kept in `cache`: True for $ICM_CACHE or the platform's folder, a path for another, None for
    none; what it does is proved anew for φ when the answer's `certificate` is asked for. `progress` is told, line by
    line, how a fit goes.

    Raises InputError for lower outside [0, 1), lower = 0 with a φ that jumps there, degrees that are not among 3, 5, 7
    and 9, steps that are not 1 to 20, and a φ that is not increasing.

    Sources: sup-norm fits by iterative reweighting, Lawson (1961), Contributions to the theory of linear least maximum
    approximation; polar maps by composed minimax polynomials, Nakatsukasa & Freund, SIAM Review 58 (2016), and Amsel,
    Persson, Musco & Gower, The Polar Express (arXiv 2505.16932).
    """
    phi = phi if isinstance(phi, ScalarMap) else _as_map(phi)
    lower, degrees = _checked(lower, degree, steps)
    top = phi.top

    def curve(x: Any) -> torch.Tensor:
        return phi(top * x)

    ends = curve(torch.tensor([max(lower, 1e-9), 1.0], dtype=torch.float64))
    first, last = float(ends[0]), float(ends[1])
    if not last > 0:
        raise InputError(f"{phi.name} is 0 up to top={top:.6g}: there is nothing to fit; the map is G ↦ 0")
    if lower == 0 and first > 1e-2 * last:
        raise InputError(
            f"lower=0: {phi.name} rises to {first / last:.3g} of its largest value within 1e-9 of the top, but a "
            "polynomial is continuous at 0; say with lower > 0 from where on it is to be met, such as lower=1e-3"
        )
    where = disk.folder(cache)
    key = disk.key_of(curve, _points(curve, lower), lower, degrees, monotone) if where is not None else ""
    composition = disk.load(where, key, degrees)
    if composition is None:
        composition = _compiled(curve, lower, degrees, monotone, last - first <= _CONSTANT * last, last, progress)
        disk.store(where, key, composition)
    elif progress is not None:
        progress(f"found in {where}")
    return PolynomialMap(composition, phi, lower)


def polar(
    lower: float = 1e-3, steps: int = 5, degree: int | Sequence[int] = 5, monotone: bool = False
) -> PolynomialMap:
    """The best map of these degrees towards the polar factor, U p(g/‖G‖_F) Vᵀ with |p − 1| least on [lower, 1].

    With `monotone` it keeps the order of the singular values, for 40 to 80 % more steps; the usual iterations do not
    (see `icm.maps.known`). Raises InputError as `fit`.
    """
    return fit(sign(), lower, degree, steps, monotone, cache=None)


def from_solution(
    solution: Solution,
    lower: float | None = None,
    degree: int | Sequence[int] = 5,
    steps: int = 5,
    monotone: bool = True,
    *,
    cache: bool | str | Path | None = True,
) -> PolynomialMap:
    """The map of a solved program as matrix products, fitted to φ(g_i) = σ*_i as in `ScalarMap.from_solution`: for
    further gradients with ‖G‖₂ up to that of the solution's.

    `lower` is relative to it: None for 0, or for the smallest singular value where Q is a multiple of the polar factor.
    Raises InputError as `fit`, and for a solution without a φ: a batch, Q = 0 or no Q.
    """
    phi = ScalarMap.from_solution(solution)
    if lower is None:
        lower = float(solution.g[..., -1] / phi.top) if phi.jumps else 0.0
    return fit(phi, lower, degree, steps, monotone, cache=cache)


def degrees_for(products: int) -> tuple[int, ...]:
    """Degrees of the factors that a number of matrix products is best spent on: as many of degree 9 as may be, last.

    Degree 3 takes 2 products, 5 takes 3, 7 and 9 take 4 (x q(y), y = x², with q(y) = a(y) + y² b(y)): so 7 never pays.
    Increasing factors multiply a small singular value by 3/2, 9/4, 45/16 and 225/64 at most: 1.22, 1.31, 1.30 and 1.37
    per product. Fits of smooth and bent φ rank these splits alike, and 15 products in four factors, 5·9·9·9, err by two
    to six times less than in five of degree 5.

    Raises InputError for a number that is not an integer from 2 to 80.
    """
    if isinstance(products, bool) or not isinstance(products, numbers.Integral) or not 2 <= products <= 80:
        raise InputError(f"products={products!r}: give an integer from 2 (one factor of degree 3) to 80")
    products = int(products)
    small = {0: (), 1: (3, 5), 2: (3,), 3: (5,)}[products % 4]
    return (*small, *(9,) * ((products - taken(small)) // 4))


def _compiled(
    curve: Callable[[Any], torch.Tensor],
    lower: float,
    degrees: tuple[int, ...],
    monotone: bool,
    constant: bool,
    last: float,
    progress: Callable[[str], None] | None,
) -> Composition:
    if constant:
        from icm.maps.greedy import best_polar

        return best_polar(lower, degrees, monotone).rescaled(outside=last)
    return best_composition(curve, lower, degrees, monotone, nodes=_NODES, progress=progress)


def _points(curve: Callable[[Any], torch.Tensor], lower: float) -> list[NDArray[np.float64]]:
    """Where a fit looks at φ: if φ agrees there, so do the fits."""
    fixed = np.concatenate([np.geomspace(1e-7, 1, 4000), np.linspace(0, 1, 2001)])
    return [fixed, nodes_of(curve, lower, _NODES), nodes_of(curve, lower, 5 * _NODES)]


def _as_map(phi: Callable[[torch.Tensor], torch.Tensor]) -> ScalarMap:
    if not callable(phi):
        raise InputError(f"phi={phi!r}: give a ScalarMap or a function of float64 tensors in [0, 1]")
    return ScalarMap(phi, name=getattr(phi, "__name__", "φ").replace("<lambda>", "φ"))


def _checked(lower: Any, degree: Any, steps: Any) -> tuple[float, tuple[int, ...]]:
    if not isinstance(lower, int | float) or isinstance(lower, bool) or not 0 <= lower < 1:
        raise InputError(
            f"lower={lower!r}: the least singular value, relative to the largest, where φ is to be met, is ≥ 0 and < 1"
        )
    if not isinstance(steps, numbers.Integral) or isinstance(steps, bool):
        raise InputError(f"steps={steps!r}: the number of factors is an integer")
    degrees = tuple(degree) if isinstance(degree, Sequence) and not isinstance(degree, str) else (degree,) * int(steps)
    if not 1 <= len(degrees) <= _LONGEST:
        raise InputError(f"{len(degrees)} factors asked for: give 1 to {_LONGEST} of them")
    for d in degrees:
        if not isinstance(d, numbers.Integral) or isinstance(d, bool) or d not in _DEGREES:
            raise InputError(
                f"degree={d!r}: factors are odd, of degree 3, 5, 7 or 9 (a factor of degree 1 changes nothing, an even "
                "one is not odd, and higher ones cost more products than they gain and lose digits in 16 bits)"
            )
    return float(lower), tuple(int(d) for d in degrees)
