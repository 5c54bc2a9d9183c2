"""‖W‖_{α→β} from below and from above, for a single W (m, n) in float64, where it is not known: NP-hard in general.

From below a vector proves it, from above one of four inequalities; rounding is accounted for in both.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from icm.norms.vectors import dual_exponent, length, maximiser

_TURNS = 200  # of a power iteration; it stops where no vector gains 1e−15
_SWEEPS = 80  # of the weights of `through_two`
_GRID = 16  # steps of the exponents' reciprocals that `interpolated` tries


def lower(W: Float[Tensor, "m n"], alpha: float, beta: float) -> float:
    """‖Wx‖_β/‖x‖_α, rounded down, for the best x of a power iteration (Boyd, Linear Algebra Appl. 9, 1974) from
    several starts: x ← argmax ⟨Wᵀu, x⟩ over ‖x‖_α ≤ 1, u ← argmax ⟨u, Wx⟩ over ‖u‖_{β*} ≤ 1; no step loses."""
    X = _starts(W, alpha)
    best = torch.zeros(len(X), dtype=W.dtype, device=W.device)
    for _ in range(_TURNS):
        Y = X @ W.mT
        reached = length(Y, beta)
        if bool((reached <= best * (1 + 1e-15)).all()):
            break
        best = torch.maximum(best, reached)
        X = maximiser(maximiser(Y, dual_exponent(beta)) @ W, alpha)
    x = X[length(X @ W.mT, beta).argmax()]
    unit = 2.0**-53
    error = 2 * (W.shape[-1] + 2) * unit * (W.abs() @ x.abs())
    y = ((W @ x).abs() - error).clamp(min=0.0)
    size = float(length(x, alpha))
    return float(length(y, beta)) / size * (1 - slack(W)) if size > 0 else 0.0


def upper(W: Float[Tensor, "m n"], alpha: float, beta: float) -> float:
    """The least of the bounds below, rounded up."""
    found = [rows(W, alpha, beta), columns(W, alpha, beta), interpolated(W, alpha, beta), through_two(W, alpha, beta)]
    if alpha >= beta:
        found.append(entries(W, alpha, beta))
    return min(found) * (1 + slack(W))


def slack(W: Float[Tensor, "m n"]) -> float:
    """What rounding in float64 changes of the lengths and singular values here, relatively, at most."""
    return 8 * (sum(W.shape) + 64) * 2.0**-53


def rows(W: Float[Tensor, "m n"], alpha: float, beta: float) -> float:
    """|(Wx)_i| ≤ ‖row_i‖_{α*}‖x‖_α; exact for rank 1."""
    return float(length(length(W, dual_exponent(alpha)), beta))


def columns(W: Float[Tensor, "m n"], alpha: float, beta: float) -> float:
    """‖Wx‖_β ≤ Σ|x_j|‖col_j‖_β; exact for rank 1."""
    return float(length(length(W.mT, beta), dual_exponent(alpha)))


def interpolated(W: Float[Tensor, "m n"], alpha: float, beta: float) -> float:
    """Riesz–Thorin between the norms that are known, 1→β, α→∞ and 2→2, and comparison of vector norms.

    log‖W‖_{1/x→1/y} is convex in (x, y) for complex vectors; the three are the same for complex as for real ones, and
    the complex norm is never the smaller (Bergh & Löfström, Interpolation Spaces, 1976, theorem 1.1.1). From there
    ‖W‖_{1/x→1/y} ≤ m^{(y−y')₊} n^{(x'−x)₊} ‖W‖_{1/x'→1/y'}.
    """
    m, n = W.shape
    x, y = 1 / alpha, 1 / beta
    steps = [i / _GRID for i in range(_GRID + 1)]
    from_one = {t: _log(length(W.mT, _inverse(t)).amax()) for t in {*steps, y}}
    to_infinity = {t: _log(length(W, dual_exponent(_inverse(t))).amax()) for t in {*steps, x}}
    two = _log(torch.linalg.matrix_norm(W, 2))
    # Known points (x, y, log of the norm), and what lies on the segments between any two kinds of them
    ones = [(1.0, t, value) for t, value in from_one.items()]
    infinities = [(t, 0.0, value) for t, value in to_infinity.items()]
    spectral = [(0.5, 0.5, two)]
    best = math.inf
    for first, second in ((ones, infinities), (ones, spectral), (infinities, spectral)):
        for (x1, y1, a), (x2, y2, b) in product(first, second):
            for share in _shares(x1, y1, x2, y2, x, y):
                x3, y3 = (1 - share) * x1 + share * x2, (1 - share) * y1 + share * y2
                cost = max(y - y3, 0.0) * math.log(m) + max(x3 - x, 0.0) * math.log(n)
                best = min(best, (1 - share) * a + share * b + cost)
    return math.exp(best) * (1 + 1e-14)


def through_two(W: Float[Tensor, "m n"], alpha: float, beta: float) -> float:
    """‖W‖_{α→β} ≤ ‖d‖_s ‖D⁻¹WE⁻¹‖₂ ‖e‖_t for all positive d and e, 1/s = (1/β − 1/2)₊, 1/t = (1/2 − 1/α)₊ (Hölder);
    where s or t is ∞ the weights are 1.

    For ∞→1 the best weights are within Grothendieck's constant, below 1.783, of the norm (they solve the dual of the
    semidefinite relaxation). Found by fixed-point steps d_i^s ∝ the squares of the leading left singular vectors.
    """
    s, t = max(1 / beta - 0.5, 0.0), max(0.5 - 1 / alpha, 0.0)
    d, e = W.new_zeros(W.shape[0]), W.new_zeros(W.shape[1])  # logarithms
    best = math.inf
    for sweep in range(_SWEEPS):
        M = (-d).exp()[:, None] * W * (-e).exp()
        U, g, Vh = torch.linalg.svd(M, full_matrices=False)
        best = min(best, float(g[0] * _weight(d, s) * _weight(e, t)))
        if s == t == 0 or float(g[0]) == 0:
            break
        blend = (g / g[0]) ** (2 ** min(1 + sweep / 10, 8))
        blend = blend / blend.sum()
        for log_weight, squares, inverse in ((d, U.square() @ blend, s), (e, blend @ Vh.square(), t)):
            log_weight += 0.5 * (inverse * squares.clamp(min=1e-24).log() - log_weight)
    return best


def entries(W: Float[Tensor, "m n"], alpha: float, beta: float) -> float:
    """‖W‖ ≤ ‖A‖ with A = |W|, for α ≥ β: by Jensen's inequality with weights A_ij v_j/(Av)_i, then Hölder's,

        ‖A‖^β ≤ ‖(v_j^{1−β} (Aᵀ(Av)^{β−1})_j)_j‖_{α/(α−β)}      for every positive v,

    with equality for a v where Aᵀ(Av)^{β−1} ∝ v^{α−1}, which a power iteration approaches: exact for nonnegative W.
    """
    A = W.abs()
    v = torch.ones_like(A[0])
    best = math.inf
    inner = 1.0 if alpha == math.inf else math.inf if alpha == beta else alpha / (alpha - beta)
    for _ in range(_TURNS):
        v = (v / v.amax()).clamp(min=1e-12)
        z = ((A @ v) ** (beta - 1)) @ A
        before, best = best, min(best, float(length(v ** (1 - beta) * z, inner)) ** (1 / beta))
        if best >= before * (1 - 1e-15) or not float(z.amax()) > 0:
            break
        # Averaged with the last in the logarithm, so that it cannot go back and forth
        step = torch.ones_like(v) if alpha == math.inf else (z / z.amax()) ** (1 / (alpha - 1))
        v = (v * step.clamp(min=1e-12)).sqrt() if alpha < math.inf else step
    return best


def _starts(W: Tensor, alpha: float) -> Tensor:
    """Vectors (count, n): units and directions of rows and columns, singular vectors, signs, and 16 fixed draws."""
    n = W.shape[1]
    V = torch.linalg.svd(W, full_matrices=False).Vh[:8]
    unit = torch.eye(n, dtype=W.dtype, device=W.device)[length(W.mT, 2).argsort(descending=True)[:8]]
    long = W[length(W, 2).argsort(descending=True)[:8]]
    drawn = torch.randn(16, n, generator=torch.Generator().manual_seed(0), dtype=W.dtype).to(W.device)
    signs = torch.where(torch.cat([V, drawn]) < 0, -1.0, 1.0).to(W.dtype)
    X = torch.cat([torch.ones_like(W[:1]), unit, long, V, drawn, signs])
    return X / length(X, alpha).clamp(min=1e-300)[:, None]


def _shares(x1: float, y1: float, x2: float, y2: float, x: float, y: float) -> list[float]:
    """Where on the segment the comparison's cost can be least: its ends, and where it passes x or y."""
    found = [0.0, 1.0]
    for start, stop, aim in ((x1, x2, x), (y1, y2, y)):
        if start != stop and 0 < (aim - start) / (stop - start) < 1:
            found.append((aim - start) / (stop - start))
    return found


def _inverse(t: float) -> float:
    return math.inf if t == 0 else 1 / t


def _log(value: Tensor) -> float:
    return math.log(float(value)) if float(value) > 0 else -math.inf


def _weight(log_weight: Tensor, inverse: float) -> float:
    """‖exp(log_weight)‖_{1/inverse}, or the largest for 0."""
    return float(length(log_weight.exp(), _inverse(inverse)))
