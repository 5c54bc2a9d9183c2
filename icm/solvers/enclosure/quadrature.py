"""Integrals with a proof: Gauss–Legendre on panels, its error bounded on ellipses in ball arithmetic (python-flint).

Let f be analytic with |f| ≤ B on the ellipse E_ρ around the panel, the image of |z| = ρ > 1 under z ↦ (z + 1/z)/2
carried to the panel. In f = Σ' a_j T_j (Chebyshev) |a_j| ≤ 2Bρ^{−j}. The rule of N nodes is exact up to degree 2N − 1,
odd terms vanish on both sides, |∫T_j| = 2/(j² − 1) and the rule of T_j is at most 2. Summed over even j ≥ 2N this is

    |∫ − rule| ≤ half the panel's length · (64/15) B ρ^{−2N}/(1 − ρ^{−2}),        N ≥ 2.

B comes from evaluating f on boxes that cover the ellipse. An integrand with a branch cut must then say whether f is
analytic on the whole box: it is called with `analytic` true and returns what is not finite where it is not. A panel
whose bound is infinite, or too large for the nodes allowed, is halved. Everything else is ball arithmetic.
Source: Petras, J. Comput. Appl. Math. 145 (2002) 345; Johansson, arXiv 1802.07942; Rabinowitz, CACM 12 (1969) 268.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise

from flint import acb, acb_mat, arb, ctx

Integrand = Callable[[acb, bool], tuple[list[acb], list[acb]]]

BITS = 128  # of working precision
_RHOS = (4.0, 2.6, 1.8)
_NODES = 40
_SLICES = 4
_HALVINGS = 40
_PANELS = 500  # looked at before an integral is given up; a tame one takes some 20


class Unresolved(ArithmeticError):
    """What was to be enclosed could not be: a divergent integral, an undecided sign, a panel that shrinks forever."""


def integrate(
    f: Integrand, edges: Sequence[float], sizes: tuple[Sequence[arb], Sequence[arb]], bits: int = 80
) -> acb_mat:
    """∫ left(x) right(x)ᵀ dx over real x from edges[0] to edges[-1], a p × q matrix of balls.

    f(x, analytic) is (left, right), p and q balls that hold the values for every x in the ball given; with `analytic`
    true some of them are not finite unless both are analytic on all of it. `edges` ascend and begin the panels. On
    each the error of entry (i, j) is at most 2^{−bits} sizes[0][i] sizes[1][j] or near it; the balls returned hold it.

    Raises Unresolved where a panel has been halved 40 times, or 500 panels were not enough.
    """
    panels = [(a, b, 0) for a, b in pairwise(edges)]
    total: acb_mat | None = None
    error_left: list[list[arb]] = []
    error_right: list[list[arb]] = []
    looked = 0
    while panels:
        a, b, depth = panels.pop()
        looked += 1
        if looked > _PANELS:
            raise Unresolved(f"the integral needs more than {_PANELS} panels, the last around x = {a}")
        rule = _choose(f, a, b, sizes, bits)
        if rule is None:
            if depth == _HALVINGS:
                raise Unresolved(f"the integrand has no bound around x = {a}, on a panel of length {b - a:.1e}")
            middle = 0.5 * (a + b)
            panels += [(a, middle, depth + 1), (middle, b, depth + 1)]
            continue
        count, error, left, right = rule
        part = _rule(f, a, b, count)
        total = part if total is None else total + part
        error_left.append([error * x for x in left])
        error_right.append(right)
    assert total is not None
    p, q, panel_count = total.nrows(), total.ncols(), len(error_left)
    radii = acb_mat(panel_count, p, [acb(x) for row in error_left for x in row]).transpose() * acb_mat(
        panel_count, q, [acb(x) for row in error_right for x in row]
    )
    entries = [
        value + acb(arb(0, radius.real.upper()), arb(0, radius.real.upper()))
        for value, radius in zip(total.entries(), radii.entries(), strict=True)
    ]
    return acb_mat(p, q, entries)


def norm_bound(values: Iterable[arb]) -> arb:
    """An upper bound of ‖x‖₂ for real balls x."""
    total = arb(0)
    for x in values:
        total += x.abs_upper() ** 2
    return total.upper().sqrt().upper()


def bound(f: Integrand, a: float, b: float, rho: float) -> tuple[list[arb], list[arb]] | None:
    """Upper bounds of |left| and |right| on the ellipse E_ρ around [a, b], None where some are not finite.

    The ellipse has half-axes (ρ ± 1/ρ)/2 times half the length; it is covered by boxes, slices across its long axis.
    """
    middle, half = (arb(a) + arb(b)) / 2, (arb(b) - arb(a)) / 2
    long, short = (arb(rho) + 1 / arb(rho)) / 2, (arb(rho) - 1 / arb(rho)) / 2
    lefts: list[list[arb]] = []
    rights: list[list[arb]] = []
    for k in range(_SLICES):
        low, high = 2 * k / _SLICES - 1, 2 * (k + 1) / _SLICES - 1
        inner = 0.0 if low < 0 < high else min(abs(low), abs(high)) * (1 - 1e-12)  # not less than the slice is tall
        tall = short * (1 - arb(inner) ** 2).sqrt()
        wide = arb(low).union(arb(high))
        box = middle + half * acb(long * wide, arb(0, tall.upper()))
        left, right = f(box, True)
        lefts.append([x.abs_upper() for x in left])
        rights.append([x.abs_upper() for x in right])
        if not all(x.is_finite() for x in (*lefts[-1], *rights[-1])):
            return None
    return [max(x) for x in zip(*lefts, strict=True)], [max(x) for x in zip(*rights, strict=True)]


def _choose(
    f: Integrand, a: float, b: float, sizes: tuple[Sequence[arb], Sequence[arb]], bits: int
) -> tuple[int, arb, list[arb], list[arb]] | None:
    """(N, ε, bounds of left, bounds of right): N nodes on [a, b] err by at most ε left_i right_j ≤ 2^{−bits} sizes, by
    the widest ellipse that allows that with few nodes; None if none does."""
    half = (arb(b) - arb(a)) / 2
    for rho in _RHOS:
        found = bound(f, a, b, rho)
        if found is None:
            continue
        excess = arb(1)
        for values, size in zip(found, sizes, strict=True):
            excess *= max((x / s).upper() for x, s in zip(values, size, strict=True))
        if not excess.is_finite():
            continue
        constant = half * 64 / 15 / (1 - arb(rho) ** -2)
        need = bits + float((excess * constant).log().mid() / arb(2).log().mid()) if excess > 0 else 0.0
        count = max(4, math.ceil(need / (2 * math.log2(rho))) + 1)
        if count <= _NODES:
            return count, (constant * arb(rho) ** (-2 * count)).upper(), *found
    return None


def _rule(f: Integrand, a: float, b: float, count: int) -> acb_mat:
    """The Gauss–Legendre sum of left rightᵀ with `count` nodes on [a, b]."""
    middle, half = (arb(a) + arb(b)) / 2, (arb(b) - arb(a)) / 2
    lefts: list[acb] = []
    rights: list[acb] = []
    for node, weight in _legendre(count, ctx.prec):
        left, right = f(acb(middle + half * node), False)
        lefts += [half * weight * x for x in left]
        rights += right
    return acb_mat(count, len(lefts) // count, lefts).transpose() * acb_mat(count, len(rights) // count, rights)


@cache
def _legendre(count: int, precision: int) -> list[tuple[arb, arb]]:
    """Nodes and weights on (−1, 1) as balls; `precision` in bits is that of the context, and only names the entry."""
    return [arb.legendre_p_root(count, k, weight=True) for k in range(count)]
