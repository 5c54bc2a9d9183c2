"""A quadrature rule for the law of s = Σ λ_i ζ_i², λ = σ², that knows nothing of the function to come.

ζ is uniform on the unit sphere of R^n. The densities at a level u come from `contour`; here the levels are
chosen. Between two neighbours a < b of the breakpoints, u = a + (b−a)/(1+e^{−v}); in v every power (u−a)^α,
(b−u)^β is an exponential, and another singular point beyond a, however near, stays at distance π from the
real line. Panels in v carry Gauss–Legendre nodes and are halved until the densities on them are resolved.

 * n ≤ 16: every λ_i, of multiplicity m, is a breakpoint: the density is singular there, |u−λ_i|^{(n−m)/2−1}.
 * n > 16: only min λ and max λ are (and a value inside with m ≥ n−16), and the panels cover those u where the
   Chernoff bound exceeds e^{−w²/2}. With u = Σ λg/Σ g, g = 1/|λ−κ|, minus the logarithm of the bound is
   I = ½ Σ log |λ−κ| − (n/2) log |u−κ|: one curve for κ < min λ (u below the mean), one for κ > max λ (above).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icm.sphere.contour import densities
from icm.sphere.path import bisect

_ORDER = 16  # Gauss nodes per panel
_STEP = 0.25  # first step along the contours
_SMALL = 16  # largest n with breakpoints at every λ
_EDGES = (0.0, 3.0, 6.5, 12.0, 20.0, 36.0, 64.0, 128.0)  # in |v|, for small n
_LEVELS = (-11.0, -8.5, -6.5, -5.0, -3.5, -2.2, -1.0, 1.0, 2.2, 3.5, 5.0, 6.5, 9.0)  # in w, for large n


@dataclass(frozen=True, eq=False)
class Rule:
    """E h(s) = Σ_q p_q h(u_q), E[ψ(s)ζ_i²] = Σ_q second_iq ψ(u_q), E[ψ'(s)ζ_i⁴] = Σ_q fourth_iq ψ'(u_q).

    i runs over the k given singular values, q over the U nodes; unused nodes have weight zero and u = 1.
    """

    nodes: Float[Tensor, "*batch u"]
    p: Float[Tensor, "*batch u"]
    second: Float[Tensor, "*batch u k"]
    fourth: Float[Tensor, "*batch u k"]


@dataclass(frozen=True, eq=False)
class _Panels:
    """Panels left < v < right of the gap (low, high) between two singular values of batch element `owner`."""

    owner: Tensor
    low: Tensor
    high: Tensor
    left: Tensor
    right: Tensor

    def __getitem__(self, at: Tensor) -> "_Panels":
        return _Panels(*(value[at] for value in vars(self).values()))

    def __add__(self, other: "_Panels") -> "_Panels":
        return _Panels(*map(torch.cat, zip(vars(self).values(), vars(other).values(), strict=True)))

    def halves(self) -> "_Panels":
        middle = (self.left + self.right) / 2
        return _Panels(self.owner, self.low, self.high, self.left, middle) + _Panels(
            self.owner, self.low, self.high, middle, self.right
        )


@dataclass(frozen=True, eq=False)
class _Values:
    """Nodes u and weighted densities on panels: (panels, nodes) and (panels, nodes, k)."""

    u: Tensor
    p: Tensor
    second: Tensor
    fourth: Tensor

    def __getitem__(self, at: Tensor) -> "_Values":
        return _Values(*(value[at] for value in vars(self).values()))

    def __add__(self, other: "_Values") -> "_Values":
        return _Values(*map(torch.cat, zip(vars(self).values(), vars(other).values(), strict=True)))


@cache
def _gauss(order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights on (−1, 1), and the rows that turn values at the nodes into the last two Legendre
    coefficients."""
    x, w = np.polynomial.legendre.leggauss(order)
    basis = np.polynomial.legendre.legvander(x, order - 1)
    return x, w, ((np.arange(order) + 0.5)[:, None] * basis.T * w)[-2:]


def _evaluate(sigma: Tensor, m: Tensor, panels: _Panels, order: int, step: float) -> _Values:
    x, w, _ = (torch.as_tensor(part).to(sigma) for part in _gauss(order))
    half = (panels.right - panels.left)[:, None] / 2
    v = (panels.left + panels.right)[:, None] / 2 + half * x
    gap = ((panels.high - panels.low) * (panels.high + panels.low))[:, None]
    lower = v < 0  # measure u from the nearer end, so that d = λ − u keeps its digits there
    away = gap * torch.sigmoid(-v.abs())
    anchor = torch.where(lower, panels.low[:, None], panels.high[:, None])
    offset = torch.where(lower, away, -away)
    u = anchor * anchor + offset
    values = sigma[panels.owner][:, None, :]
    d = (values - anchor[..., None]) * (values + anchor[..., None]) - offset[..., None]
    second, fourth = (part.view(d.shape) for part in densities(d.flatten(0, 1), m, step))
    weight = (half * w * away * torch.sigmoid(v.abs()))[..., None]
    second, fourth = second * weight, fourth * weight
    return _Values(u, second @ m, second, fourth)


def _gaps(sigma: Tensor) -> _Panels:
    """Panels between all neighbouring singular values, graded towards both ends."""
    order = sigma.sort(-1).values
    edges = torch.tensor([-e for e in _EDGES[:0:-1]] + list(_EDGES)).to(sigma)
    low, high = order[:, :-1, None], order[:, 1:, None]
    owner = torch.arange(len(sigma), device=sigma.device)[:, None, None]
    full = torch.broadcast_tensors(owner, low, high, edges[:-1], edges[1:])
    panels = _Panels(*(part.flatten() for part in full))
    return panels[(panels.high - panels.low) * (panels.high + panels.low) > 1e-40]


def _chernoff(sigma: Tensor, m: Tensor) -> _Panels:
    """Panels on (min λ, max λ) that end where I(u) = w²/2 on either side of the mean."""
    low, high = sigma.amin(-1, keepdim=True), sigma.amax(-1, keepdim=True)
    above, below = (sigma - low) * (sigma + low), (high - sigma) * (high + sigma)
    n = m.sum()

    def tilt(rate: Tensor, upper: bool) -> tuple[Tensor, Tensor, Tensor]:
        """I, u − min λ and max λ − u with κ at the distance e^{−rate} from the spectrum; rate (batch, 1)."""
        distance = (below if upper else above) + (-rate).exp()
        g = m / distance
        total = g.sum(-1, keepdim=True)
        up, down = (above * g).sum(-1, keepdim=True) / total, (below * g).sum(-1, keepdim=True) / total
        return distance.log() @ m[:, None] / 2 + n / 2 * (total / n).log(), up, down

    edges = []
    for w in _LEVELS:

        def short(rate: Tensor, w: float = w) -> Tensor:
            return tilt(rate, w > 0)[0] - w * w / 2

        rate = bisect(short, torch.full_like(low, -60.0), torch.full_like(low, 250.0), 30)
        _, up, down = tilt(rate, w > 0)
        edges.append((up / down).log())
    v = torch.cat(edges, -1).clamp(-300, 300)
    owner = torch.arange(len(sigma), device=sigma.device)[:, None]
    panels = _Panels(*(q.flatten() for q in torch.broadcast_tensors(owner, low, high, v[:, :-1], v[:, 1:])))
    return panels[panels.right > panels.left]


def _refine(sigma: Tensor, m: Tensor, panels: _Panels) -> tuple[_Panels, _Values]:
    """Halve panels until p, p√u and every second_i have their last two Legendre coefficients below a
    tolerance of their size, or below 1e-15 of the whole. A panel's share is measured with p (1 + √(ū/u))."""
    _, w, last = (torch.as_tensor(part).to(sigma) for part in _gauss(_ORDER))
    n = int(m.sum())
    mean = (sigma * sigma) @ m / n
    # quadrature squares the error of an analytic integrand, but not at kinks |u−λ_i|^{(n−3)/2} of middling n
    tolerance = 1e-10 if _SMALL < n < 48 else 1e-7
    kept: list[tuple[_Panels, _Values]] = []
    done = torch.zeros_like(mean)
    for _ in range(60):
        values = _evaluate(sigma, m, panels, _ORDER, _STEP)
        mass = (values.p * (1 + (mean[panels.owner][:, None] / values.u).sqrt())).sum(-1)
        total = done.index_add(0, panels.owner, mass)
        share = mass / total[panels.owner]
        p, root = values.p[..., None], values.u.sqrt()[..., None]
        shape = torch.cat([p, p * root, values.second], -1) / w[:, None]
        error = ((last @ shape).abs().amax(-2) / shape.abs().amax(-2).clamp(min=1e-300)).amax(-1)
        good = (error < tolerance) | (share * error < 1e-15)
        keep = good & (share > 1e-18)
        kept.append((panels[keep], values[keep]))
        done = done.index_add(0, panels.owner[good], mass[good])
        if bool(good.all()):
            break
        panels = panels[~good].halves()
    else:
        kept.append((panels, _evaluate(sigma, m, panels, _ORDER, _STEP)))
    first, *rest = kept
    for more in rest:
        first = (first[0] + more[0], first[1] + more[1])
    return first


def _distinct(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted singular values (batch, K), multiplicities (K,) of sum dim, and where each of x went (batch, k).

    Values are rounded to 48 bits, so that equal ones with the noise of an SVD in the last bits merge, where
    all batch elements have them in the same places; dim − k zeros are added.
    """
    mantissa, exponent = torch.frexp(x)
    sigma, order = torch.ldexp((mantissa * 2.0**48).round(), exponent - 48).sort(-1)
    m = sigma.new_ones(x.shape[-1])
    pad = int(dim > x.shape[-1])
    if pad:
        sigma = torch.cat([torch.zeros_like(sigma[:, :1]), sigma], -1)
        m = torch.cat([m.new_tensor([dim - x.shape[-1]]), m])
    new = torch.cat([m.new_ones(1).bool(), (sigma[:, 1:] != sigma[:, :-1]).any(0)])
    group = new.long().cumsum(0) - 1
    m = m.new_zeros(int(new.sum())).index_add(0, group, m)
    column = torch.empty_like(order).scatter(-1, order, group[pad:].expand_as(order))
    return sigma[:, new], m, column


def _centre(sigma: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """The median singular value, and whether the density is singular there: all but 16 values in it, some on
    either side."""
    middle = sigma[:, int((m.cumsum(0) * 2 < m.sum()).sum())]
    near = ((sigma - middle[:, None]).abs() < 1e-12).to(m) @ m
    inside = (middle - sigma.amin(-1) > 1e-12) & (sigma.amax(-1) - middle > 1e-12)
    return middle, inside & (near >= m.sum() - _SMALL)


def _panels(sigma: Tensor, m: Tensor, dim: int) -> _Panels:
    """Where to integrate: between all values for small n, else where the law has mass, and about a crowded value."""
    if dim <= _SMALL:
        return _gaps(sigma)
    centre, split = _centre(sigma, m)
    panels = _chernoff(sigma, m)
    inner = _gaps(torch.stack([sigma.amin(-1), centre, sigma.amax(-1)], -1))
    return panels[~split[panels.owner]] + inner[split[inner.owner]]


def rule(x: Float[Tensor, "*batch k"], dim: int, level: int = 0) -> Rule:
    """The rule for singular values x (largest 1, any order, zeros allowed), padded with zeros to `dim` = n.

    Each level doubles the nodes on every panel and halves the first step along the contours, so two levels
    show the error. An atom (n = 1, or all n values equal) gives one node.
    """
    *batch, k = x.shape
    if not 1 <= k <= dim:
        raise ValueError(f"need 1 ≤ k ≤ dim, got k = {k} singular values and dim = {dim}")
    flat = x.reshape(-1, k)
    sigma, m, column = _distinct(flat, dim)
    atom = sigma.amax(-1) - sigma.amin(-1) < 1e-13
    active = (~atom).nonzero().squeeze(-1)
    count = atom.long()
    found = None
    if len(active):
        panels, values = _refine(sigma[active], m, _panels(sigma[active], m, dim))
        if level:
            values = _evaluate(sigma[active], m, panels, _ORDER * 2**level, _STEP / 2**level)
        owner = active[panels.owner].repeat_interleave(values.u.shape[-1])
        count = count + torch.bincount(owner, minlength=len(flat))
        found = owner, values
    width = int(count.max()) if len(flat) else 0
    nodes, p = flat.new_ones(len(flat), width), flat.new_zeros(len(flat), width)
    second, fourth = flat.new_zeros(len(flat), width, k), flat.new_zeros(len(flat), width, k)
    if found is not None:
        owner, values = found
        u, order = values.u.flatten().sort()
        again = owner[order].argsort(stable=True)
        u, order = u[again], order[again]
        row = owner[order]
        first = (count * ~atom).cumsum(0) - count * ~atom
        place = torch.arange(len(row), device=x.device) - first[row]
        nodes[row, place], p[row, place] = u, values.p.flatten()[order]
        pick = column[row]
        second[row, place] = values.second.flatten(0, 1)[order].gather(-1, pick)
        fourth[row, place] = values.fourth.flatten(0, 1)[order].gather(-1, pick)
    lone = atom.nonzero().squeeze(-1)
    nodes[lone, :1] = sigma[lone].square().mean(-1, keepdim=True)
    p[lone, :1], second[lone, :1], fourth[lone, :1] = 1, 1 / dim, 3 / (dim * (dim + 2))
    shape = (*batch, width)
    return Rule(nodes.view(shape), p.view(shape), second.view(*shape, k), fourth.view(*shape, k))
