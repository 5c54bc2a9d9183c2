"""Densities of the sphere at a level, by a contour integral.

ζ is uniform on the unit sphere of R^n and s = Σ λ_i ζ_i². With z standard normal, ζ = z/‖z‖ and ‖z‖ are
independent, so a statement about s at the level u is one about the sign of Σ d_i z_i², d_i = λ_i − u, whose
moment generating function is M(τ) = Π (1 − 2τ d_i)^{−1/2}. Imhof (1961) inverts it along the imaginary axis;
Daniels (1954) moves the line through the saddle point, where nothing cancels and far tails keep their
relative accuracy:

    E[ζ_i² δ(s−u)] = (1/2πi) ∫ M/(1−2τd_i) dτ,        E[ζ_i⁴ δ(s−u)] = (3/n)(1/2πi) ∫ M/(1−2τd_i)² dτ.

Here the line is also bent, τ = τ₀ + δ, δ = w (i sinh x + γ (cosh x − 1)): with one large and many small
scales among the d_i (a spike) M oscillates for long on a straight line, while it decays exponentially on
the bent one. In terms of δ, 1 − 2τd_i = (1 − δc_i)/r_i with r_i = 1/(1 − 2τ₀d_i), c_i = 2d_i r_i; the code
measures δ in units of w and multiplies c by w instead.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_FALL = 38.0  # the path ends where the integrand is e^{−38} of its value at the saddle
_REACH = 300.0  # largest |x| of the path; sinh² must stay finite


def _bisect(f, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """The place where f turns from negative to positive, after `steps` halvings of [low, high]."""
    for _ in range(steps):
        middle = (low + high) / 2
        below = f(middle) < 0
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _saddle(d: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """r_i = 1/(1 − 2τ₀d_i) and c_i = 2d_i r_i at the saddle Σ m_i d_i/(1 − 2τ₀d_i) = 0.

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
    y = _bisect(lambda v: (e / (1 - v.exp() * e)) @ weights, low, high, 32).exp()
    r = 1 / ((1 - y) + y * (1 - e))
    return r, 2 * d * r


def _bend(c: Tensor, m: Tensor) -> Tensor:
    """γ for c scaled to Σ m c² = 2: steepest descent at the saddle (γ = Σ m c³/3), unless that is nearly
    straight and M still turns quickly at the height where it has fallen by e^{−12}; then ½ towards its decay.
    """
    cubic = ((c**3) @ m / 3).clamp(-0.6, 0.6)
    low, high = torch.full_like(cubic, -2.0), torch.full_like(cubic, _REACH)
    square = c * c
    fall = _bisect(lambda v: torch.log1p(square * (2 * v).exp().unsqueeze(-1)) @ m / 4 - 12, low, high, 14)
    q = c * fall.exp().unsqueeze(-1)
    turn = (q / (1 + q * q)) @ m
    return torch.where((cubic.abs() < 0.3) & (turn.abs() > 0.5), -0.5 * turn.sign(), cubic).unsqueeze(-1)


def _length(c: Tensor, m: Tensor, gamma: Tensor) -> Tensor:
    """The x at which every integrand M cosh x/(1−δc_i) has fallen by e^{−38}."""

    def excess(x: Tensor) -> Tensor:
        rise = x.unsqueeze(-1)
        size = (1 - 2 * gamma * (rise / 2).sinh() ** 2 * c) ** 2 + (rise.sinh() * c) ** 2
        return size.log() @ m / 4 + size.amin(-1).log() / 2 - x - _FALL

    low = torch.zeros_like(gamma.squeeze(-1))
    high = torch.full_like(low, 1.0)
    for _ in range(9):  # gallop, then bisect: most paths are short
        high = torch.where(excess(high) < 0, (2 * high).clamp(max=_REACH), high)
    return _bisect(excess, low, high, 6) * 1.02 + 0.02


def _sums(c: Tensor, m: Tensor, gamma: Tensor, x: Tensor, start: float) -> tuple[Tensor, Tensor]:
    """Re Σ_x M/(1−δc_i)^j (dδ/dx)/i for j = 1, 2 over the nodes x (T,); the first node has weight `start`."""
    rise, run = x.sinh(), gamma * (2 * (x / 2).sinh() ** 2)
    c = c.unsqueeze(-2)
    re = 1 - run.unsqueeze(-1) * c  # (rows, T, K)
    im = -rise.unsqueeze(-1) * c
    size = torch.addcmul(re * re, im, im)
    modulus = torch.exp(size.log() @ m * -0.25)
    phase = torch.atan2(im, re) @ m * -0.5  # principal branch, factor by factor
    weight = torch.ones_like(x)
    weight[0] = start
    modulus = modulus * weight
    mr, mi = modulus * phase.cos(), modulus * phase.sin()
    dr, di = x.cosh(), -gamma * rise
    mr, mi = (mr * dr - mi * di).unsqueeze(-2), (mr * di + mi * dr).unsqueeze(-2)
    re, im = re.div_(size), im.div_(size)  # 1/(re + i im) = re − i im
    second = mr @ re + mi @ im
    both = mr * re.transpose(-1, -2) + mi * im.transpose(-1, -2)
    turn = mi * re.transpose(-1, -2) - mr * im.transpose(-1, -2)
    fourth = (both * re.transpose(-1, -2)).sum(-1) + (turn * im.transpose(-1, -2)).sum(-1)
    return second.squeeze(-2), fourth


def _integrals(c: Tensor, m: Tensor, gamma: Tensor, reach: float, step: float) -> tuple[Tensor, Tensor]:
    """Trapezoid sums of one block, the step halved until nothing changes by 1e-7; as the error squares
    with each halving, the last sum is then exact to rounding."""
    x = torch.arange(0, reach + step, step, dtype=c.dtype, device=c.device)
    total = torch.stack([step * part for part in _sums(c, m, gamma, x, 0.5)])
    open_rows = torch.arange(c.shape[0], device=c.device)
    for _ in range(7):
        middle = x[:-1] + step / 2 if len(x) > 1 else x + step / 2
        new = torch.stack([step * part for part in _sums(c[open_rows], m, gamma[open_rows], middle, 1.0)])
        old = total[:, open_rows]
        new = (old + new) / 2
        total[:, open_rows] = new
        change = ((new - old).abs() / new.abs().clamp(min=1e-280)).amax((0, 2))
        open_rows = open_rows[~(change < 1e-7)]
        if len(open_rows) == 0:
            break
        step = step / 2
        x = torch.arange(0, reach + step, step, dtype=c.dtype, device=c.device)
    return total[0], total[1]


def densities(
    d: Float[Tensor, "rows k"], multiplicity: Float[Tensor, " k"], step: float = 0.25
) -> tuple[Float[Tensor, "rows k"], Float[Tensor, "rows k"]]:
    """E[ζ_i² δ(s−u)], E[ζ_i⁴ δ(s−u)] for rows of d_i = λ_i − u, each standing for `multiplicity` coordinates.

    Every row needs min d < 0 < max d. The first, summed over all n = Σ multiplicity coordinates, is the
    density of s. `step` is the first trapezoid step along the path; it is halved until converged.
    """
    n = float(multiplicity.sum())
    second, fourth = torch.empty_like(d), torch.empty_like(d)
    block = 2**22 if d.is_cuda else 2**15
    rows, k = d.shape
    for part in torch.arange(rows, device=d.device).split(max(1, block // k)):
        r, c = _saddle(d[part], multiplicity)
        width = (2 / ((c * c) @ multiplicity)).sqrt().unsqueeze(-1)
        c = c * width
        gamma = _bend(c, multiplicity)
        reach, order = _length(c, multiplicity, gamma).sort()
        lengths = reach.tolist()
        stop = len(lengths)
        while stop > 0:  # longest paths first, in blocks of bounded size
            size = max(1, int(block / (k * (lengths[stop - 1] / step + 1))))
            some = order[max(0, stop - size) : stop]
            j1, j2 = _integrals(c[some], multiplicity, gamma[some], lengths[stop - 1], step)
            front = ((r[some].log() @ multiplicity) / 2).exp().unsqueeze(-1) * width[some] / math.pi
            second[part[some]] = front * r[some] * j1
            fourth[part[some]] = (3 / n) * front * r[some] ** 2 * j2
            stop -= size
    return second, fourth
