"""Integrals along a bent path through the saddle point: the one quadrature behind densities, tails and kinks.

For d_i of either sign, M(τ) = Π (1 − 2τ d_i)^{−m_i/2} and a kernel K, the integrals are

    (1/2πi) ∫ M K dτ,    (1/2πi) ∫ M K/(1 − 2τd_i) dτ,    (1/2πi) ∫ M K/(1 − 2τd_i)² dτ

upwards through a point τ₀ between the nearest singularities. Imhof (1961) integrates along the imaginary axis;
Daniels (1954) moves the line through the saddle point, where nothing cancels and far tails keep their relative
accuracy. Here the line is also bent, τ = τ₀ + wδ, δ = i sinh x + γ (cosh x − 1): with one large and many small scales
among the d_i (a spike) M oscillates for long on a straight line, while it decays exponentially on the bent one.

In terms of δ, 1 − 2τd_i = (1 − δc_i)/r_i with r_i = 1/(1 − 2τ₀d_i), c_i = 2wd_i r_i. A pole of K at τ = 0 counts as one
more factor, with c = −w/τ₀ and m twice its order: it comes last, and r belongs to the others alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_FALL = 38.0  # the path ends where the integrand is e^{−38} of its value at the saddle, at most
_ROUGH = 5.0  # and where less is asked for, e^{−5} times that
_REACH = 300.0  # largest |x| of the path; sinh² must stay finite
_STEP = 0.25  # first trapezoid step

# δ (rows, T) complex and the rows it belongs to ↦ the kernels of the three integrals, complex (rows, T) or 1.0
Kernel = Callable[[Tensor, Tensor], tuple[Tensor | float, Tensor | float, Tensor | float]]


def bisect(f: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, steps: int) -> Tensor:
    """The place where f turns from negative to positive, after `steps` halvings of [low, high]."""
    for _ in range(steps):
        middle = (low + high) / 2
        below = f(middle) < 0
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


@dataclass(frozen=True, eq=False)
class Path:
    """Paths, one per row: r (rows, k), c (rows, k [+ 1 with a pole]) in units of the width w (rows, 1), bend γ
    (rows, 1), multiplicities m as for c, and τ₀ (rows, 1) where there is a pole."""

    r: Tensor
    c: Tensor
    width: Tensor
    gamma: Tensor
    m: Tensor
    start: Tensor | None

    @classmethod
    def through_saddle(cls, d: Tensor, m: Tensor, pole: float = 0.0) -> Path:
        """The path for d (rows, k) of multiplicities m (k,) through the saddle of M τ^{−pole}; every row needs
        min d < 0 < max d."""
        if pole:
            r, start = _saddle_with_pole(d, m, pole)
            c = torch.cat([2 * d * r, -1 / start], -1)
            m = torch.cat([m, m.new_tensor([2 * pole])])
        else:
            r, start = _saddle(d, m), None
            c = 2 * d * r
        width = (2 / ((c * c) @ m)).sqrt().unsqueeze(-1)
        c = c * width
        return cls(r, c, width, _steady(c, m, _bend(c, m)), m, start)

    def __getitem__(self, rows: Tensor) -> Path:
        start = None if self.start is None else self.start[rows]
        return Path(self.r[rows], self.c[rows], self.width[rows], self.gamma[rows], self.m, start)


def _saddle(d: Tensor, m: Tensor) -> Tensor:
    """r_i = 1/(1 − 2τ₀d_i) at the saddle Σ m_i d_i/(1 − 2τ₀d_i) = 0.

    There Σ m_i r_i = n, so every 1 − 2τ₀d_i exceeds 1/n. The signs of d are chosen to make τ₀ positive; then
    y = 2τ₀ max d lies in (0, 1 − 1/n] and is bisected on a logarithmic scale. No great precision is needed,
    as the integral does not depend on τ₀.
    """
    sign = torch.where(d @ m > 0, -1.0, 1.0).to(d).unsqueeze(-1)
    e = d * sign
    e = e / e.amax(-1, keepdim=True)
    low = torch.full_like(sign, -75.0)
    high = torch.full_like(sign, math.log1p(-1 / float(m.sum())))
    weights = m.unsqueeze(-1)
    y = bisect(lambda v: (e / (1 - v.exp() * e)) @ weights, low, high, 32).exp()
    return 1 / ((1 - y) + y * (1 - e))


def _saddle_with_pole(d: Tensor, m: Tensor, pole: float) -> tuple[Tensor, Tensor]:
    """r_i (rows, k) and τ₀ (rows, 1) > 0 where Σ m_i d_i/(1 − 2τ₀d_i) = pole/τ₀.

    In y = 2τ₀ max d and e = d/max d this is ½ Σ m_i y e_i/(1 − y e_i) = pole, and as no e exceeds 1 its root lies
    between 2p/(n + 2p) and (n − 1 + 2p)/(n + 2p).
    """
    top = d.amax(-1, keepdim=True)
    e = d / top
    n = float(m.sum())
    low = torch.full_like(top, 2 * pole / (n + 2 * pole))
    high = torch.full_like(top, (n - 1 + 2 * pole) / (n + 2 * pole))
    half = m.unsqueeze(-1) / 2
    # In log(1 − y), as a spike holds the root close to 1.
    v = bisect(
        lambda v: (-v.expm1() * e / (v.exp() + -v.expm1() * (1 - e))) @ half * -1 + pole,
        (-high).log1p(),
        (-low).log1p(),
        16,
    )
    y = -v.expm1()
    return 1 / (v.exp() + y * (1 - e)), y / (2 * top)


def lower_bound(d: Tensor, m: Tensor) -> Tensor:
    """Chernoff's bound of log P(Σ d_i ζ_i² < 0) (rows,), for d (rows, k) of positive mean with min d < 0 < max d."""
    return _saddle(d, m).log() @ m / 2


def _bend(c: Tensor, m: Tensor) -> Tensor:
    """γ for c scaled to Σ m c² = 2: steepest descent at the saddle (γ = Σ m c³/3), unless that is nearly
    straight and M still turns quickly at the height where it has fallen by e^{−12}; then ½ towards its decay.
    """
    cubic = ((c**3) @ m / 3).clamp(-0.6, 0.6)
    low, high = torch.full_like(cubic, -2.0), torch.full_like(cubic, _REACH)
    square = c * c
    fall = bisect(lambda v: torch.log1p(square * (2 * v).exp().unsqueeze(-1)) @ m / 4 - 12, low, high, 14)
    q = c * fall.exp().unsqueeze(-1)
    turn = (q / (1 + q * q)) @ m
    return torch.where((cubic.abs() < 0.3) & (turn.abs() > 0.5), -0.5 * turn.sign(), cubic).unsqueeze(-1)


def _steady(c: Tensor, m: Tensor, gamma: Tensor) -> Tensor:
    """γ (rows, 1) where |M| falls all along the path, else ½ the other way or, where it rises there too, 0: on a path
    bent towards many coordinates next to u, whose factors turn only far out, M would rise beyond all digits."""

    def rises(gamma: Tensor) -> Tensor:
        least, rise = torch.zeros_like(gamma), torch.zeros_like(gamma)
        for x in torch.arange(0.5, 45.0, 0.75).tolist():
            size = (1 - 2 * math.sinh(x / 2) ** 2 * gamma * c).square() + (math.sinh(x) * c).square()
            log = (size.log() @ m / -4).unsqueeze(-1)
            rise, least = torch.maximum(rise, log - least), torch.minimum(least, log)
            if bool((log < -2 * _FALL).all()):
                break
        return rise > 0.5

    wrong, other = rises(gamma), -0.5 * gamma.sign()
    return torch.where(wrong, other.where(~rises(other), 0.0), gamma) if bool(wrong.any()) else gamma


def _length(path: Path, growth: Tensor | float, fall: float) -> Tensor:
    """The x at which every integrand M K cosh x/(1−δc_i) has fallen by e^{−fall}, for a kernel growing by e^growth."""
    c, m = path.c, path.m

    def excess(x: Tensor) -> Tensor:
        rise = x.unsqueeze(-1)
        size = (1 - 2 * path.gamma * (rise / 2).sinh() ** 2 * c) ** 2 + (rise.sinh() * c) ** 2
        return size.log() @ m / 4 + size.amin(-1).log() / 2 - x - fall - growth

    low = torch.zeros_like(path.gamma.squeeze(-1))
    high = torch.full_like(low, 1.0)
    for _ in range(9):  # gallop, then bisect: most paths are short
        high = torch.where(excess(high) < 0, (2 * high).clamp(max=_REACH), high)
    return bisect(excess, low, high, 6) * 1.02 + 0.02


def _sums(path: Path, kernel: Kernel, rows: Tensor, x: Tensor, start: float) -> tuple[Tensor, Tensor, Tensor]:
    """Re Σ_x of the three integrands (dδ/dx)/i over the nodes x (T,); the first node has weight `start`."""
    rise, run = x.sinh(), path.gamma * (2 * (x / 2).sinh() ** 2)
    c = path.c.unsqueeze(-2)
    re = 1 - run.unsqueeze(-1) * c  # (rows, T, K)
    im = -rise.unsqueeze(-1) * c
    size = torch.addcmul(re * re, im, im)
    k = path.r.shape[-1]
    m = path.m.clone()
    m[k:] = 0.0  # the pole belongs to the kernel
    modulus = torch.exp(size.log() @ m * -0.25)
    phase = torch.atan2(im, re) @ m * -0.5  # principal branch, factor by factor
    weight = torch.ones_like(x)
    weight[0] = start
    factor = torch.polar(modulus * weight, phase) * torch.complex(x.cosh().expand_as(phase), -path.gamma * rise)
    first, second, third = kernel(torch.complex(run, rise.expand_as(run)), rows)
    value = (factor * first).real.sum(-1)
    re, im, size = re[..., :k], im[..., :k], size[..., :k]
    re, im = re / size, im / size  # 1/(re + i im) = re − i im
    f2 = factor * second
    once = (f2.real.unsqueeze(-2) @ re + f2.imag.unsqueeze(-2) @ im).squeeze(-2)
    f3 = factor * third
    mr, mi = f3.real.unsqueeze(-2), f3.imag.unsqueeze(-2)
    both = mr * re.transpose(-1, -2) + mi * im.transpose(-1, -2)
    turn = mi * re.transpose(-1, -2) - mr * im.transpose(-1, -2)
    twice = (both * re.transpose(-1, -2)).sum(-1) + (turn * im.transpose(-1, -2)).sum(-1)
    return value, once, twice


def _trapezoid(
    path: Path, kernel: Kernel, rows: Tensor, reach: float, step: float, change: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Trapezoid sums of one block, the step halved until value and slopes change by less than `change`; as the error
    squares with each halving, that of the last sum is then far less, for 1e-9 none but rounding."""
    x = torch.arange(0, reach + step, step, dtype=path.c.dtype, device=path.c.device)
    total = [step * part for part in _sums(path, kernel, rows, x, 0.5)]
    moving = torch.arange(len(rows), device=path.c.device)
    for _ in range(7):
        middle = x[:-1] + step / 2 if len(x) > 1 else x + step / 2
        new = _sums(path[moving], kernel, rows[moving], middle, 1.0)
        largest = torch.zeros_like(path.gamma[moving, 0])
        for i, part in enumerate(new):
            old = total[i][moving]
            part = (old + step * part) / 2
            total[i][moving] = part
            if i < 2:  # positive integrals; the third may cross zero, and only steers Newton's steps
                relative = (part - old).abs() / part.abs().clamp(min=1e-280)
                largest = torch.maximum(largest, relative.reshape(len(moving), -1).amax(-1))
        moving = moving[~(largest < change)]
        if len(moving) == 0:
            break
        step = step / 2
        x = torch.arange(0, reach + step, step, dtype=path.c.dtype, device=path.c.device)
    return total[0], total[1], total[2]


def integrate(
    path: Path, kernel: Kernel, step: float = _STEP, growth: Tensor | float = 0.0, accuracy: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The three integrals, (rows,), (rows, k) and (rows, k), of the rows of `path` with the three parts of `kernel`.

    `step` is the first trapezoid step; it is halved until converged. `growth` (rows,) bounds the logarithm by which the
    kernel, but for its pole, can exceed its size at the saddle. Longest paths go first, in blocks of bounded
    size, so that short ones do not carry their nodes. `accuracy`: a relative error that will do, 0 for rounding alone.
    """
    rows, k = path.r.shape
    value, once, twice = path.r.new_empty(rows), torch.empty_like(path.r), torch.empty_like(path.r)
    block = 2**22 if path.r.is_cuda else 2**15
    change, fall = max(1e-9, math.sqrt(accuracy) / 10), min(_FALL, _ROUGH - math.log(max(accuracy, 1e-300)))
    step = 2 * step if accuracy > 1e-8 else step
    reach, order = _length(path, growth, fall).sort()
    lengths = reach.tolist()
    stop = rows
    while stop > 0:
        size = max(1, int(block / (k * (lengths[stop - 1] / step + 1))))
        some = order[max(0, stop - size) : stop]
        part = path[some]
        j0, j1, j2 = _trapezoid(part, kernel, some, lengths[stop - 1], step, change)
        k0 = part.r.log() @ part.m[:k] / 2
        front = k0.exp().unsqueeze(-1) * part.width / math.pi
        value[some] = front.squeeze(-1) * j0
        once[some] = front * part.r * j1
        twice[some] = front * part.r**2 * j2
        stop -= size
    return value, once, twice
