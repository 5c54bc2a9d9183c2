"""The law of r = ‖Qζ‖ for a spectrum: tail, distribution function, density, quantiles, moments, samples, a picture.

With s = r² = Σ λ_i ζ_i², d_i = λ_i − c² and M as in `contour`, s > c² is Σ d_i z_i² > 0 for a standard normal z, so

    P(r > c) = (1/2πi) ∫ M dτ/τ,        P(r ≤ c) = the same for −d,

through τ₀ > 0 (Imhof, Biometrika 48 (1961)). Of the two the one beyond the mean of s is computed and the other is
1 minus it, so both keep their relative accuracy however small they are. As d_i = (σ_i − c)(σ_i + c), neither does a
narrow range of σ lose digits.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icm.arrays import to_tensor
from icm.curvature import Curvature
from icm.errors import InputError
from icm.sphere import powers
from icm.sphere.expectation import spectrum
from icm.sphere.path import Path, integrate
from icm.sphere.sampling import directions

_NEGLIGIBLE = 1e-150  # of σ₁: squares below would underflow; such values and radii are zeros
_PART = 2**22  # elements of d at a time
_NEWTON = 100  # steps at most; 4 to 8 are usual
_STEP = 0.2  # in log t, for the deficit; halving it changes no digit


def tail(sigma: Any, dim: int, radius: Any) -> Float[Tensor, "..."]:
    """P(‖Qζ‖ > radius) for singular values sigma (…, k ≤ dim) in any order, ζ uniform on the unit sphere of R^dim.

    radius is one number, for a result of shape (…), or (…, R): R radii for every spectrum, its leading dimensions
    broadcast against those of sigma, for a result (…, R). So sigma (k,) with radius (R,) gives (R,), and sigma (B, k)
    gives (B, R). Exactly 1 below the range of r, 0 from its upper end on; all n values equal to c are an atom with
    P(r > c) = 0. The relative error is below 1e−13 for dim ≤ 64 and 1e−12 for dim ≤ 1024, also of a tail of 1e−200.
    The result has sigma's dtype and device.

    Raises as `mean`, and InputError for radii that are negative or NaN or do not broadcast.
    """
    return law(sigma, dim).tail(radius)


def law(sigma: Any, dim: int) -> Law:
    """The law of ‖Qζ‖ for singular values sigma (…, k ≤ dim), one per batch element. Raises as `mean`."""
    return Law(spectrum(sigma, dim), operator.index(dim))


@dataclass(frozen=True, eq=False)
class Law:
    """The law of r = ‖Qζ‖ for Q with singular values sigma (…, k), any order, ζ uniform on the unit sphere of R^dim.

    Made by `law`, which checks them. Results have sigma's dtype and device and are computed in float64. Radii and
    levels are one number, for results (…), or (…, R) as for `tail`; InputError where they are out of range.
    """

    sigma: Float[Tensor, "*batch k"]
    dim: int

    def tail(self, radius: Any) -> Float[Tensor, "..."]:
        """P(r > radius); relative accuracy where it is small."""
        return self._share(radius, beyond=True)

    def cdf(self, radius: Any) -> Float[Tensor, "..."]:
        """P(r ≤ radius); relative accuracy where it is small, for radii above 1e−150 σ₁."""
        return self._share(radius, beyond=False)

    def density(self, radius: Any) -> Float[Tensor, "..."]:
        """The density 2r Σ_i E[ζ_i² δ(s − r²)] of r, with relative accuracy where it is small; 0 off the range.

        Infinite at an atom, at an end r > 0 of the range where n − 1 singular values lie (both ends for n = 2), and
        inside the range where n − 2 do (logarithmically; the middle value for n = 3). At other ends it is the limit
        from inside.
        """
        owner, c, shape = self._pairs(_radii(radius), "radius")
        return _density(_Spectra.of(self), owner, c).view(shape).to(self.sigma.dtype)

    def quantile(self, p: Any) -> Float[Tensor, "..."]:
        """The radius c with P(r ≤ c) = p for p in [0, 1]; 0 and 1 give the ends of the support.

        Exact to rounding, or to that of c where the law is narrow; no radius inside the range is below 1e−150 σ₁.
        """
        p = to_tensor(p, "p").double()
        if bool((bad := ~((p >= 0) & (p <= 1))).any()):
            raise InputError(f"p = {float(p[bad][0])}: a quantile is asked for at a probability between 0 and 1")
        owner, p, shape = self._pairs(p, "p")
        return _quantile(_Spectra.of(self), owner, p).view(shape).to(self.sigma.dtype)

    def moment(self, q: float) -> Float[Tensor, "*batch"]:
        """E r^q for q > 0, by the integrals of `sphere.powers`. Raises InputError for other q."""
        if not (q > 0 and math.isfinite(q)):
            raise InputError(f"q = {q}: the moment E r^q is computed for finite q > 0")
        x, size = _normalised(self.sigma)
        value = size**q * powers.power(x, self.dim, float(q)).value
        return value.view(self.sigma.shape[:-1]).to(self.sigma.dtype)

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """E r."""
        return self.moment(1.0)

    @property
    def std(self) -> Float[Tensor, "*batch"]:
        """The standard deviation of r, (D (2√E s − D))^{1/2} with the deficit D = √E s − E r as an integral of
        positive terms: nothing cancels where the law is narrow."""
        deficit, root = _deficit(spectra := _Spectra.of(self))
        std = spectra.size * (deficit * (2 * root - deficit)).sqrt()
        return std.view(self.sigma.shape[:-1]).to(self.sigma.dtype)

    @property
    def support(self) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """The smallest and the largest r: the least of the n singular values, which is 0 for k < n, and σ₁."""
        low, high = self.sigma.aminmax(dim=-1)
        return (low if self.sigma.shape[-1] == self.dim else torch.zeros_like(low)), high

    @property
    def atom(self) -> Bool[Tensor, "*batch"]:
        """Whether r is constant: n = 1, all n singular values equal, or Q = 0."""
        low, high = self.support
        return low == high

    def sample(self, count: int, seed: int = 0) -> Float[Tensor, "*batch count"]:
        """`count` independent values of r, reproducible by seed; all batch elements see the same directions ζ."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"count={count!r}: the number of samples is an integer ≥ 1")
        zeta = directions(count, self.dim, seed)[:, : self.sigma.shape[-1]].to(self.sigma.device)
        x, size = _normalised(self.sigma)
        r = size[:, None] * (x.square() @ zeta.T.square()).sqrt()
        return r.view(*self.sigma.shape[:-1], count).to(self.sigma.dtype)

    def plot(self, path: str | FilePath | None = None, H: Curvature | str | None = None) -> Any:
        """A matplotlib figure of the density with its quantiles, and H's kinks and wall; saved if `path` is given."""
        from icm.plots import plot_law

        return plot_law(self, H, path)

    def __repr__(self) -> str:
        if self.sigma.ndim > 1:
            return f"Law({tuple(self.sigma.shape[:-1])}, n = {self.dim})"
        low, high = self.support
        return f"Law({float(low):.6g} ≤ r ≤ {float(high):.6g}, mean {float(self.mean):.6g}, n = {self.dim})"

    def _share(self, radius: Any, beyond: bool) -> Tensor:
        owner, c, shape = self._pairs(_radii(radius), "radius")
        small, upper, _ = _smaller(_Spectra.of(self), owner, c, density=False)
        return torch.where(upper == beyond, small, 1 - small).view(shape).to(self.sigma.dtype)

    def _pairs(self, x: Tensor, name: str) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Which spectrum (N,) each of the numbers (N,) belongs to, and the shape of the result."""
        batch = tuple(self.sigma.shape[:-1])
        try:
            shape = (*torch.broadcast_shapes(batch, x.shape[:-1]), x.shape[-1]) if x.ndim else batch
        except RuntimeError:
            raise InputError(
                f"{name} of shape {tuple(x.shape)} does not fit spectra in a batch of shape {batch}: "
                "give one number, or a last dimension of any length behind dimensions that broadcast"
            ) from None
        owner = torch.arange(math.prod(batch), device=self.sigma.device)
        owner = owner.view(*batch, 1) if x.ndim else owner.view(batch)
        return owner.expand(shape).flatten(), x.to(self.sigma.device).expand(shape).flatten(), shape


@dataclass(frozen=True, eq=False)
class _Spectra:
    """The coordinates of a law: sigma (B, K) ascending with the padding zeros, of multiplicities m (K,), in units of
    size (B,) where divided."""

    sigma: Tensor
    m: Tensor
    size: Tensor

    @classmethod
    def of(cls, law: Law) -> _Spectra:
        k = law.sigma.shape[-1]
        sigma = torch.nn.functional.pad(law.sigma.double().reshape(-1, k), (int(law.dim > k), 0)).sort(-1).values
        # Equal columns count as one; the padding zeros come first, and stand for dim − k coordinates.
        sigma, m = torch.unique_consecutive(sigma, dim=1, return_counts=True)
        m = m.double()
        m[0] += max(law.dim - k - 1, 0)
        size = sigma[:, -1]
        return cls(sigma, m, size.where(size > 0, torch.ones_like(size)))

    def above(self, owner: Tensor, c: Tensor) -> Tensor:
        """d (N, K) = (λ − c²)/σ₁², a product: squares would lose the digits of σ − c."""
        sigma, unit, c = self.sigma[owner], self.size[owner, None], c[:, None]
        d = (sigma - c) / unit * (sigma / unit + c / unit)
        return d.where(d.abs() > _NEGLIGIBLE**2, 0.0)


def _radii(radius: Any) -> Tensor:
    radius = to_tensor(radius, "radius").double()
    if bool((bad := ~(radius >= 0)).any()):
        raise InputError(f"radius = {float(radius[bad][0])}: ‖Qζ‖ is compared with numbers ≥ 0")
    return radius


def _normalised(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """x = σ/σ₁ (B, k), a flat one for σ = 0, and σ₁ (B,), in float64."""
    sigma = sigma.double().reshape(-1, sigma.shape[-1])
    size = sigma.amax(-1)
    x = sigma / size.where(size > 0, torch.ones_like(size))[:, None]
    return torch.where(size[:, None] > 0, x.where(x > _NEGLIGIBLE, 0.0), 1.0), size


def _smaller(spectra: _Spectra, owner: Tensor, c: Tensor, density: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """P(r > c) where c² ≥ E s, else P(r ≤ c); where it is the former; and the density of s/σ₁² at c²/σ₁² if it is asked
    for, 0 off the range. All (N,)."""
    small, slope = torch.zeros_like(c), torch.zeros_like(c)
    upper = torch.zeros_like(c, dtype=torch.bool)
    m = spectra.m
    for part in torch.arange(len(c), device=c.device).split(max(1, _PART // len(m))):
        d = spectra.above(owner[part], c[part])
        upper[part] = side = d @ m <= 0
        bottom, top = d.aminmax(dim=-1)
        nearer = torch.minimum(top, -bottom)  # in units of it nothing on a path leaves float64
        inside = nearer > 0
        if not bool(inside.any()):
            continue
        d, side, nearer, rows = d[inside], side[inside], nearer[inside, None], part[inside]
        path = Path.through_saddle(torch.where(side[:, None], d, -d) / nearer, m, pole=1.0)
        # The path ends where M/|1 − 2τd_i| has fallen: unlike a kink, a density does not fall like M/τ.
        path = replace(path, m=torch.cat([m, m.new_zeros(1)]))

        def kernel(delta: Tensor, rows: Tensor, path: Path = path) -> tuple[Tensor, float, float]:
            assert path.start is not None
            return 1 / (path.start[rows] + path.width[rows] * delta), float(density), 0.0

        small[rows], second, _ = integrate(path, kernel)
        slope[rows] = second @ m / nearer.squeeze(-1)
    return small, upper, slope


def _density(spectra: _Spectra, owner: Tensor, c: Tensor) -> Tensor:
    """The density of r at c (N,)."""
    m, n = spectra.m, float(spectra.m.sum())
    unit, d = spectra.size[owner], spectra.above(owner, c)
    rho = c / unit
    off, inside = (d != 0).to(m) @ m, (d.amin(-1) < 0) & (d.amax(-1) > 0)  # how many coordinates are not at c
    smooth = (inside & ((off > 2) | (off == n))).nonzero().squeeze(-1)
    found = torch.zeros_like(c)
    found[smooth] = 2 * rho[smooth] * _smaller(spectra, owner[smooth], c[smooth])[2]
    # At an end, with off = 2, {s beyond u} is an ellipse of the area π|u − s|/√(d_a d_b) in the two ζ that are off,
    # whose density there is (n−2)/2π. With off = 1 at r = 0, r = σ₁|ζ_1|. Outside the range all n are off.
    root = (d.abs().log().where(d != 0, 0.0) @ m / 2).exp()
    ellipse = torch.where(inside, math.inf, rho * (n - 2) / root)
    needle = torch.where(
        rho > _NEGLIGIBLE, math.inf, 2 / math.pi**0.5 / powers.gamma_ratio(max(n - 1, 1) / 2, 0.5) / root
    )
    for count, value in ((0, torch.full_like(c, math.inf)), (1, needle), (2, ellipse)):
        found = torch.where((off == count) & (off < n), value, found)
    return found / unit


def _quantile(spectra: _Spectra, owner: Tensor, p: Tensor) -> Tensor:
    """The radius (N,) with P(r ≤ c) = p, by Newton's method on the logarithm of the smaller side as a function of
    y = log |c − the end on that side|, which is a straight line at the end; safeguarded by bisection in y."""
    low, high, m = spectra.sigma[:, 0], spectra.sigma[:, -1], spectra.m
    middle = spectra.size * ((spectra.sigma / spectra.size[:, None]).square() @ m / m.sum()).sqrt()
    middle = middle.clamp(min=low, max=high)
    small, upper, _ = _smaller(spectra, torch.arange(len(low), device=p.device), middle, density=False)
    below = p <= torch.where(upper, 1 - small, small)[owner]
    goal = torch.where(below, p.log(), (-p).log1p())
    end, sign = torch.where(below, low[owner], high[owner]), torch.where(below, 1.0, -1.0).to(p)
    size = spectra.size[owner]
    # The bracket in x = |c − end|/σ₁: at its far end the side exceeds its goal.
    near = torch.maximum(end / size * 1e-17, torch.full_like(p, _NEGLIGIBLE))
    far = torch.maximum((middle[owner] - end).abs() / size, near)
    x, past = far.clone(), torch.full_like(p, math.inf)
    noise = 2e-15 + 5e-17 * float(m.sum())  # of log P
    moving = ((p > 0) & (p < 1) & (low < high)[owner]).nonzero().squeeze(-1)
    for _ in range(_NEWTON):
        if len(moving) == 0:
            break
        at, a, b = x[moving], near[moving], far[moving]
        c = end[moving] + sign[moving] * at * size[moving]
        small, upper, slope = _smaller(spectra, owner[moving], c)
        side = torch.where(upper != below[moving], small, 1 - small)
        excess = side.log() - goal[moving]
        a, b = torch.where(excess < 0, at, a), torch.where(excess < 0, b, at)
        step = -excess * side / (2 * c / size[moving] * slope * at)
        new = at * step.exp()
        good = (new > a) & (new < b) & (excess.abs() < past[moving] / 2)
        done = (excess.abs() < noise) | ((new - at).abs() * size[moving] < 2e-16 * c) | (b <= a * (1 + 4e-16))
        x[moving] = torch.where(good | done, new.clamp(a, b), a.sqrt() * b.sqrt())
        near[moving], far[moving], past[moving] = a, b, excess.abs()
        moving = moving[~done]
    found = torch.where(p == 1, high[owner], end + sign * x * size)
    return torch.where((p > 0) & (low < high)[owner], found, low[owner])


def _deficit(spectra: _Spectra) -> tuple[Tensor, Tensor]:
    """D = √μ − E√s and √μ, μ = E s, in units of σ₁ (B,).

    E√X = (1/2√π) ∫ (1 − E e^{−tX}) t^{−3/2} dt for X = ρ²s and for X = ρ²μ, ρ² ~ χ²_n, whose transforms are
    φ = Π (1+2tλ_i)^{−1/2} and φ₀ = (1+2tμ)^{−n/2}; so with E ρ = √2 Γ((n+1)/2)/Γ(n/2)

        D = (E ρ)^{−1} (1/2√π) ∫ φ (1 − e^{−L}) t^{−1/2} d log t,    L = ½ Σ (y_i − log(1+y_i)) ≥ 0,
        y_i = 2t(λ_i − μ)/(1+2tμ),    Σ y_i = 0.
    """
    m = spectra.m
    n = float(m.sum())
    x = spectra.sigma / spectra.size[:, None]
    top = spectra.sigma[:, -1:]
    shift = (spectra.sigma - top) / spectra.size[:, None] * (x + x[:, -1:])  # λ_i − λ_1 with all its digits
    shift = shift - (shift @ m / n)[:, None]
    lam, mu = x.square(), (x.square() @ m / n)[:, None]
    log_t = torch.arange(-math.log(n) - 30, 60, _STEP, dtype=x.dtype, device=x.device)
    total = x.new_zeros(len(x))
    for t in (2 * log_t.exp()).split(max(1, _PART // x.numel())):
        t = t[:, None, None]
        y = t * shift / (1 + t * mu)
        far = torch.log1p(t * mu) - torch.log1p(t * lam) + y
        gap = torch.where(y.abs() < 0.5, _log_gap(y.clamp(-0.5, 0.5)), far) @ m / 2
        phi = (torch.log1p(t * lam) @ m * -0.5).exp()
        total = total + (phi * -(-gap).expm1() * t[..., 0].rsqrt()).sum(0)
    front = powers.gamma_ratio(n / 2, 0.5) / math.pi**0.5 / 2  # 1/(Eρ 2√π), and √2 as t holds 2t
    return total * _STEP * front, mu.squeeze(-1).sqrt()


def _log_gap(y: Tensor) -> Tensor:
    """y − log(1+y) for |y| ≤ ½ from log(1+y) = 2 artanh z, z = y/(2+y)."""
    z = y / (2 + y)
    series = torch.zeros_like(y)
    for j in range(37, 1, -2):
        series = 1 / j + z.square() * series
    return y.square() / (2 + y) - 2 * z**3 * series
