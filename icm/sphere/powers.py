"""Exact expectations of powers of ‖Qζ‖, alone or in a power series.

With λ = x², s = Σ λ_i ζ_i², ζ uniform on the sphere of R^n, and X = ρ² s, ρ² ~ χ²_n independent of s, X has the
Laplace transform φ(t) = Π (1 + 2tλ_i)^{−1/2}. Writing v_i = 1/(1 + 2tλ_i), C_i = λ_i v_i, P_j = Σ_i C_i^j and
f_0 = 1, f_l = (1/2l) Σ_{j=1..l} P_j f_{l−j}, one has E[X^κ e^{−tX}] = κ! 2^κ φ f_κ, so for any integer κ > a

    E s^{a+1}          = γ ∫ t^{κ−a} φ f_{κ+1} d log t
    (a+1) E[s^a ζ_i²]  = β ∫ t^{κ−a} φ v_i Σ_{l=0..κ} f_l C_i^{κ−l} d log t,       β = γ (a+1) / (2(κ+1)),
    γ = (κ+1)! 2^{κ+1} Γ(n/2) / (2^{a+1} Γ(n/2+a+1) Γ(κ−a)).

Every term is positive, so nothing cancels. For an integer a the integral collapses to its value at t = 0 with
κ = a (the power sums). The trapezoid rule in u, log t = u − e^{b−u}, converges geometrically: the integrand is analytic
in a strip, and the map shortens the tail t^{κ−a} to the left of its peak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BEND = 1.0  # in log t: how far left of the peak the tail begins to be squeezed
STEP = 0.25  # in u; halving it changes no digit
CUT = 38.0  # the range ends where the integrand is e^{−CUT} of its peak
_BLOCK = 1 << 15  # elements per block on a CPU: a quarter megabyte a tensor stays in cache, and malloc reuses it
_BLOCK_ELSEWHERE = 1 << 24  # an accelerator wants them large: 128 MiB a tensor
_GROUPS = 12


@dataclass(frozen=True, eq=False)
class Moments:
    """For H normalised to x = σ/σ₁: value (B,) = E h(s), weight (B, k) = E[h'(s) ζ_i²] and bend (B, k), its
    derivative with respect to λ_i at a fixed law of s (so ∂²E h/∂λ_i² = 3/2 · bend_i)."""

    value: Tensor
    weight: Tensor
    bend: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.value + other.value, self.weight + other.weight, self.bend + other.bend)


def power(x: Tensor, dim: int, p: float) -> Moments:
    """Moments of H = r^p for x (B, k) with max x = 1, real p ≥ 1."""
    a = p / 2 - 1
    if a == int(a):  # even: power sums
        kappa, integer = int(a), True
    else:  # κ − a in (½, 3/2]: an integer only just above a would lose every digit to 1/Γ(κ−a)
        kappa, integer = math.floor(a + 0.5) + 1, False
    gamma = x.new_zeros(1, kappa + 1)
    gamma[0, kappa] = _gamma_factor(a, kappa, dim, integer)
    exponents = {kappa: a}
    return _integrate(x, dim, gamma, exponents, None if integer else kappa - a)


def exponential(x: Tensor, dim: int, y: Tensor) -> Moments:
    """Moments of H = e^{yr} − 1 − yr = Σ_{k≥2} (yr)^k/k! for x (B, k) with max x = 1 and y (B,) ≥ 0.

    The series has positive terms; even k are power sums, odd ones share one family of integrals (κ − a = 3/2).
    Beyond y = 700 the result overflows and is returned as infinity.
    """
    overflow = ~(y <= 700.0)
    y = y.masked_fill(overflow, 0.0)
    top = float(y.max())
    terms = 2 * math.ceil((top + 9 * math.sqrt(top) + 40) / 2)
    even, odd = x.new_zeros(len(y), terms // 2), x.new_zeros(len(y), terms // 2 + 1)
    exponents_even, exponents_odd = {}, {}
    log_y = y.clamp(min=1e-300).log()
    for k in range(2, terms + 1):
        a = k / 2 - 1
        kappa = int(a) if k % 2 == 0 else math.floor(a + 0.5) + 1
        log_gamma = _log_gamma_factor(a, kappa, dim, k % 2 == 0) - math.lgamma(k + 1)
        (even if k % 2 == 0 else odd)[:, kappa] = torch.exp(k * log_y + log_gamma)
        (exponents_even if k % 2 == 0 else exponents_odd)[kappa] = a
    total = _integrate(x, dim, even, exponents_even, None) + _integrate(x, dim, odd, exponents_odd, 1.5)
    inf = math.inf
    return Moments(
        total.value.masked_fill(overflow, inf),
        total.weight.masked_fill(overflow[:, None], inf),
        total.bend.masked_fill(overflow[:, None], inf),
    )


def _integrate(x: Tensor, dim: int, gamma: Tensor, exponents: dict[int, float], lift: float | None) -> Moments:
    """Σ_κ γ_κ × the integrals above; `lift` = κ − a, or None for integer a (one node at t = 0)."""
    beta = torch.zeros_like(gamma)
    for kappa, a in exponents.items():
        beta[:, kappa] = gamma[:, kappa] * (a + 1) / (2 * (kappa + 1))
    gamma, beta = gamma.expand(len(x), -1), beta.expand(len(x), -1)
    lam = x.square()
    if lift is None:
        log_t, step = torch.full_like(lam[:, :1], -math.inf), torch.ones_like(lam[:, :1])
    else:
        log_t, step = _nodes(lam, min(exponents), max(exponents), lift)
    block = _BLOCK if lam.device.type == "cpu" else _BLOCK_ELSEWHERE
    rows = max(1, block // (log_t.shape[1] * lam.shape[1]))
    pieces = [tensor.split(rows) for tensor in (lam, log_t, step, gamma, beta)]
    blocks = [_block(*(piece[i] for piece in pieces), lift=lift) for i in range(len(pieces[0]))]
    if len(blocks) == 1:
        return blocks[0]
    return Moments(*(torch.cat([getattr(b, f) for b in blocks]) for f in ("value", "weight", "bend")))


def _block(lam: Tensor, log_t: Tensor, step: Tensor, gamma: Tensor, beta: Tensor, lift: float | None) -> Moments:
    top = gamma.shape[1]  # κ runs to top − 1, f to top
    two_t = (2 * log_t.exp())[:, :, None]
    z = two_t * lam[:, None, :]  # (B, N, k)
    base = step
    if lift is not None:
        base = step * torch.exp(lift * log_t - 0.5 * torch.log1p(z).sum(-1))
    v = z.add_(1).reciprocal_()
    C = v * lam[:, None, :]
    f, P = C.new_ones(*log_t.shape, top + 1), C.new_empty(*log_t.shape, top)
    C_power = C
    for order in range(1, top + 1):
        P[..., order - 1] = C_power.sum(-1)
        f[..., order] = torch.linalg.vecdot(P[..., :order], f[..., :order].flip(-1)) / (2 * order)
        if order < top:
            C_power = C_power * C
    value = (base * torch.linalg.vecdot(f[..., 1:], gamma[:, None])).sum(-1)
    # Σ_κ β_κ Σ_l f_l C^{κ−l} = Σ_m e_m C^m with e_m = Σ_κ β_κ f_{κ−m}, a product with the Hankel matrix of β.
    column = torch.arange(top, device=lam.device)
    hankel = torch.nn.functional.pad(beta, (0, top))[:, column[:, None] + column]
    e = torch.bmm(f[..., :top], hankel)[..., None]
    A, dA = e[:, :, -1].expand_as(C), C.new_zeros(())  # Horner's rule in C, and its derivative
    for m in range(top - 2, -1, -1):
        dA = torch.addcmul(A, dA, C)
        A = torch.addcmul(e[:, :, m], A, C)
    weight = torch.bmm(base[:, None], v * A)[:, 0]
    bend = torch.bmm(base[:, None], torch.addcmul(-two_t * A, v, dA) * v * v)[:, 0]
    return Moments(value, weight, bend)


def _nodes(lam: Tensor, least: int, most: int, lift: float) -> tuple[Tensor, Tensor]:
    """log t and d log t (B, N) of the nodes; they cover t^lift φ v_i f_κ, κ = least … most, to e^{−CUT} of each peak,
    and t^lift φ f_{κ+1} likewise. N is the batch's largest."""
    grouped, counts = _grouped(lam)
    positive = lam.masked_fill(lam <= 0, 1.0)
    smallest = positive.amin(-1)
    rank = (lam > 0).sum(-1)
    low = torch.full_like(smallest, -(CUT / lift + math.log(2.0 * lam.shape[1] * (most + 2)) + 3))
    # Beyond 1/λ for all λ > 0 the integrand falls like t^{−a−rank/2}, times 1/t where no λ is 0. For powers below 2
    # and rank 1 that may not fall at all: the weight of a zero is infinite then, and never used.
    zeros = (lam <= 0).any(-1)
    fall = (least - lift + 0.5 * rank + (~zeros).to(lam.dtype)).clamp(min=0.25)
    high = -smallest.log() + CUT / fall + 3
    grid = torch.lerp(low[:, None], high[:, None], torch.linspace(0, 1, 49, dtype=lam.dtype, device=lam.device))
    two_t = 2 * grid.exp()[:, :, None]
    z = two_t * grouped[:, None, :]
    C = grouped[:, None, :] / (1 + z)
    envelope = lift * grid - 0.5 * (counts * torch.log1p(z)).sum(-1)
    slowest = torch.log1p(two_t[..., 0] * smallest.masked_fill(zeros, 0.0)[:, None])
    alive, peak = torch.zeros_like(grid, dtype=torch.bool), grid[:, -1:]
    for kappa in {least, most}:
        # f_κ up to a bounded factor: powers of the mean field ½ΣC and of the largest C, whichever leads.
        growth = torch.maximum((counts * C).sum(-1) / (2 * kappa + 2), C.amax(-1)).log()
        log_size = envelope + kappa * growth
        alive |= log_size - slowest > (log_size - slowest).amax(-1, keepdim=True) - CUT
        value = log_size + growth
        alive |= value > value.amax(-1, keepdim=True) - CUT
        peak = torch.minimum(peak, grid.gather(1, value.argmax(-1, keepdim=True)))
    first = alive.to(torch.int8).argmax(-1)
    last = alive.shape[1] - 1 - alive.flip(-1).to(torch.int8).argmax(-1)
    start = grid.gather(1, (first - 1).clamp(min=0)[:, None])
    stop = grid.gather(1, (last + 1).clamp(max=alive.shape[1] - 1)[:, None])
    # log t = u − e^{b−u}: to the left of b the tail t^lift, long and featureless, shrinks to a few nodes.
    bend = torch.maximum(peak - BEND - (grid[:, 1:2] - grid[:, :1]), start + 1)
    left = bend - (bend - start).log()
    count = int(torch.ceil((stop + 1 - left).max() / STEP)) + 1
    u = left + STEP * torch.arange(count, dtype=lam.dtype, device=lam.device)
    warp = torch.exp(bend - u)
    return u - warp, STEP * (1 + warp)


def _grouped(lam: Tensor) -> tuple[Tensor, Tensor]:
    """A short stand-in for a long spectrum: its largest entries, then groups with their counts (range-finding only)."""
    k = lam.shape[1]
    if k <= 2 * _GROUPS:
        return lam, torch.ones_like(lam)[:, None]
    ordered = lam.sort(-1, descending=True).values
    edges = torch.linspace(_GROUPS, k, _GROUPS + 1, dtype=torch.float64).round().long()
    index = torch.cat([torch.arange(_GROUPS), edges[1:] - 1])
    counts = torch.cat([torch.ones(_GROUPS), edges.diff().to(torch.float64)]).to(lam)
    return ordered[:, index.to(lam.device)], counts


def _gamma_factor(a: float, kappa: int, dim: int, integer: bool) -> float:
    if a > 60 or (integer is False and kappa > 60):
        return math.exp(_log_gamma_factor(a, kappa, dim, integer))
    front = math.factorial(kappa + 1) * gamma_ratio(dim / 2, a + 1)
    return front if integer else front * 2.0 ** (kappa - a) / math.gamma(kappa - a)


def _log_gamma_factor(a: float, kappa: int, dim: int, integer: bool) -> float:
    front = math.lgamma(kappa + 2) + log_gamma_ratio(dim / 2, a + 1)
    return front if integer else front + (kappa - a) * math.log(2) - math.lgamma(kappa - a)


def gamma_ratio(z: float, x: float) -> float:
    """Γ(z)/Γ(z+x) for z > 0, x ≥ 0, to a few units of the last place: a difference of two lgamma values loses
    log10(z log z) digits, Stirling's series differenced term by term does not."""
    if z < 20:
        if z + x < 150:
            return math.gamma(z) / math.gamma(z + x)
        return math.exp(math.lgamma(z) - math.lgamma(z + x))
    return (z + x) ** -x * math.exp(-_stirling_difference(z, x))


def log_gamma_ratio(z: float, x: float) -> float:
    """log(Γ(z)/Γ(z+x)), see `gamma_ratio`."""
    if z < 20:
        return math.lgamma(z) - math.lgamma(z + x)
    return -x * math.log(z + x) - _stirling_difference(z, x)


def _stirling_difference(z: float, x: float) -> float:
    def series(z: float) -> float:
        w = 1 / (z * z)
        return (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w / 1188)))) / z

    return (z - 0.5) * math.log1p(x / z) - x + series(z + x) - series(z)
