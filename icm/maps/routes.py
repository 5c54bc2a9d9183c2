"""How a composition is applied: on the matrix or on its Gram matrix, one by one or in stacks, whole or by block rows.

Every rule below comes from a measurement, with the ratio it gave and the class of machine, or says that it has none.
"Zen 5": one core of a Zen 5 server with AVX-512 bfloat16 products (oneDNN and MKL, torch 2.13), where products of
1024×1024 matrices run at 420, 99 and 50 GFlop/s in bfloat16, float32 and float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from icm.errors import InputError

Name = Literal["auto", "direct", "gram"]

GROWTH, WIDE_GROWTH, FINE_GROWTH = 80.0, 180.0, 1200.0
"""A stretch on one Gram matrix R ends before Π c_0² over all but its last factor exceeds this.

R carries rounding errors of ε‖R‖ in its small eigenvalues, and each step R ← R q(R)² multiplies them by c_0², while the
direct iteration multiplies those of X by c_0. Measured on six spectra (normal, conditions 1e2, 1e3, 1e5, 1/i, rank m/4)
with ‖G‖_F and with ‖G‖₂ as scale, for Muon's five quintics and Polar Express's first five and seven: the stretches that
80 gives, (2, 2, 1) and (2, 2, 3), leave the error within 4 times that of the direct route, mostly 0.8 to 1.5 times, in
bfloat16, float16 and float32 alike. (3, 2), growth 140 and 1155, reaches 16 times and 1e7, since eigenvalues of R
below 0 run away; (2, 3), growth 140 and 171 after a harmless first stretch, 5 times, for a tenth to a fifth less time
at 256×1024.

So 16 bits take GROWTH, and WIDE_GROWTH after the first stretch where G is wide (`WIDE`) and time is made of products of
its long side: Polar Express's five then run as (2, 3). 256×1024, bfloat16, ‖Q̃ − Q‖_F/‖Q‖_F against the exact
polynomial, direct, (2, 2, 1) and (2, 3): normal .009, .017, .022; condition 1e1 .011, .023, .025; 1e2 .026, .036, .076;
1e3 .07, .07, .17; 1/i .021, .029, .034; the polynomial itself is .09 from the polar factor (1e3: .27). float32
takes FINE_GROWTH, (3, 2): the same spectra, direct 3 to 6e-6, (3, 2) 4 to 8e-6, all on one R up to 1e-4.
"""

WIDE = 3.0
"""Long side over short side from which 16 bits may take WIDE_GROWTH."""

ASPECT = 1.5
"""Long side over short side, r, from which "auto" takes the Gram route: S stretches of T quintics are S(2r − 3) + 4T
products of the smaller size instead of T(2r + 1). Zen 5, bfloat16, relative to the direct route: 1024×4096 0.7, 64 of
256×1024 0.9, 1024×1024 1.06; on a GPU by reasoning, not measured."""


@dataclass(frozen=True)
class Route:
    """segments: how many factors share one Gram matrix, in order, all 1 for the direct route; chunk: how many matrices
    go into one batched product, 1 for plain products one by one, 0 for all; panels: block rows of a symmetric product.
    """

    segments: tuple[int, ...]
    chunk: int = 0
    panels: int = 1


def choose(
    name: Name | Route,
    shape: tuple[int, int],
    growths: Sequence[float | None],
    dtype: torch.dtype,
    device: str,
    traced: bool,
) -> Route:
    """The route for m×n matrices, m ≤ n, and factors with c_0 = `growths`.

    `traced`: within torch.compile, where a loop over the stack would be unrolled, so stacks stay whole.
    Raises InputError for an unknown name or segments that do not add up to the number of factors.
    """
    if isinstance(name, Route):
        if min(name.segments, default=0) < 1 or sum(name.segments) != len(growths):
            raise InputError(
                f"segments={name.segments!r} for {len(growths)} factors of degree 3 or more: give lengths ≥ 1 that "
                "add up to their number"
            )
        return name
    if name not in ("auto", "direct", "gram"):
        raise InputError(f"route={name!r}: choose 'auto', 'direct' or 'gram', or give a Route")
    m, n = shape
    gram = name == "gram" or (name == "auto" and n >= ASPECT * m)
    limits = (GROWTH, WIDE_GROWTH if dtype.itemsize == 2 and n >= WIDE * m else GROWTH)
    limits = (FINE_GROWTH, FINE_GROWTH) if dtype == torch.float32 else limits
    segments = stretches(growths, *limits) if gram else (1,) * len(growths)
    panels = _panels(m, n, dtype, device)
    return Route(segments, 0 if traced else _chunk(m, n, dtype, device), panels)


def stretches(growths: Sequence[float | None], first: float = GROWTH, later: float = GROWTH) -> tuple[int, ...]:
    """Lengths of the longest stretches whose growth stays within `first`, and `later` for the others, from the first
    factor on; an unknown growth (None) is taken for one that ends a stretch with the factor after it."""
    lengths: list[int] = []
    growth = math.inf
    for c in growths:
        if growth <= (first if len(lengths) == 1 else later):
            lengths[-1] += 1
        else:
            lengths.append(1)
            growth = 1.0
        growth *= (math.inf if growth > 1 else min(first, later)) if c is None else c * c
    return tuple(lengths)


def _chunk(m: int, n: int, dtype: torch.dtype, device: str) -> int:
    """Zen 5, bfloat16, 64 matrices, relative to one by one, five quintics: 64×64 in stacks 0.15, 128×128 0.5. Four on
    one and the same Gram matrix to begin with: 256×256 in stacks of 4 to 16 0.84 to 0.9; 256×1024 in stacks of 4 1.25.
    """
    if device != "cpu":
        return 0  # by reasoning, not measured: one launch instead of many
    chunk = min(64, 2**19 // (m * n))
    return chunk if chunk >= 4 else 1


def _panels(m: int, n: int, dtype: torch.dtype, device: str) -> int:
    """Zen 5, one product XXᵀ relative to the whole of it. bfloat16: 512×512 in 4 rows 1.1, 768×768 0.79, 1024×1024 0.74
    to 0.82, 1024×4096 0.67, 2048×2048 0.75, in 8 rows 0.65 to 0.70. float32: 256×256 in 4 rows 0.86, 512×512 0.65,
    1024×1024 0.67, 2048×2048 0.65, in 8 rows 0.62.
    """
    if device != "cpu":
        return 1  # by reasoning, not measured: smaller products fill a GPU less
    least = 768 if dtype == torch.bfloat16 else 256
    return 1 if m < least else 4 if m < 2048 else 8
