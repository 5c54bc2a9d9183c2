"""Which Schatten norm an update was a step of steepest descent in, as far as in any."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icm.arrays import require_finite, require_nonempty, to_tensor
from icm.errors import InputError

LEAST = -1.0  # the exponents looked at begin here
_LARGEST = 1e18  # stands for ∞: no two singular values that differ are alike when raised to it
_WITHIN = 0.01
_FITS = 0.9
_HALVINGS = 64


@dataclass(frozen=True, eq=False)
class Described:
    """Of each update −A of a batch (*b), the a ≥ −1 at which U diag(g^a) Vᵀ has the largest cosine with A, G = U
    diag(g) Vᵀ. All are float64, (*b).

    - exponent: a. Steepest descent in Schatten p has a = q − 1 = 1/(p − 1), 1/p + 1/q = 1: 1 is the Frobenius norm's
      (p = 2, SGD), 0 the spectral norm's (p = ∞, Muon), ∞ the nuclear norm's (p = 1, Frank and Wolfe). From −1 to 0 it
      lies beyond the family: small singular values are enlarged. NaN where nothing can be said: all g > 0 are equal,
      or there are fewer than two; A has no part along any such matrix, or is 0.
    - low, high: a's around it whose cosine is at least (1 − within) times as large. For an exact A that is
      a ± (2 · within/Var(log g))^{1/2} for a small `within`, the variance weighted by g^{2a}: wide where the g are
      alike. −1 to ∞ where nothing can be said.
    - cosine: ⟨A, U diag(g^a) Vᵀ⟩/(‖A‖_F ‖g^a‖₂); NaN for A = 0.
    - aligned: that of A with the nearest U diag(φ(g)) Vᵀ, φ ≥ 0 any function of g > 0. Where this is near 1 and the
      cosine is not, A has G's singular vectors, but its singular values are no power of g.
    """

    exponent: Float[Tensor, "*b"]
    low: Float[Tensor, "*b"]
    high: Float[Tensor, "*b"]
    cosine: Float[Tensor, "*b"]
    aligned: Float[Tensor, "*b"]

    @property
    def p(self) -> Float[Tensor, "*b"]:
        """1 + 1/a, ∞ from a = 0 down; NaN as the exponent."""
        a = self.exponent
        return torch.where(a <= 0, math.inf, 1 + 1 / a)

    @property
    def beyond(self) -> Bool[Tensor, "*b"]:
        """Whether no p in [1, ∞] describes the update nearly as well: all of low to high is below 0."""
        return self.high < 0

    @property
    def determined(self) -> Bool[Tensor, "*b"]:
        """Whether some exponents describe the update better than others: not all of −1 to ∞ is within low to high."""
        return ~(self.exponent.isnan() | ((self.low <= LEAST) & self.high.isinf()))

    def fits(self, least: float = _FITS) -> Bool[Tensor, "*b"]:
        """Whether the cosine is at least this. The signs of a normal matrix, Adam's first step, are at 0.80 = √(2/π)
        to it: G itself, a = 1, is the best description that they have."""
        return self.cosine >= least

    def __str__(self) -> str:
        figures = (self.exponent, self.low, self.high, self.cosine, self.p)
        rows = zip(*(x.reshape(-1).tolist() for x in figures), strict=True)
        return "\n".join(_sentence(*row) for row in rows)


def best_schatten(
    update: Float[Tensor, "*b m n"] | Any, G: Float[Tensor, "*b m n"] | Any, *, within: float = _WITHIN
) -> Described:
    """Which Schatten p best describes `update`, the change ΔW of a matrix, given the gradient or momentum G that it was
    made of: A = −ΔW against U diag(g^a) Vᵀ, the direction of steepest descent in Schatten p = 1 + 1/a.

    Computed by an SVD of G in the wider of the two dtypes, at least float32. Singular values up to (8 + √max(m, n)) ε
    ‖G‖₂ are taken as 0, those no further apart as equal. The largest cosine is sought among 170 exponents, then where
    its derivative vanishes.

    Raises InputError for entries that are not finite, none, other shapes than the same (*b, m, n), and for a `within`
    outside (0, 1); DtypeError for matrices that are not real.
    """
    if not 0 < within < 1:
        raise InputError(f"within={within!r}: by how much of itself the cosine may fall from low to high, in (0, 1)")
    update, G = to_tensor(update, "update"), to_tensor(G, "G")
    if update.shape != G.shape or G.ndim < 2:
        raise InputError(
            f"update has shape {tuple(update.shape)} and G {tuple(G.shape)}; both are matrices (*b, m, n) of one shape"
        )
    require_nonempty(G, "G")
    for x, name in ((update, "update"), (G, "G")):
        require_finite(x, name)
    shape = G.shape[:-2]
    kind = torch.promote_types(torch.promote_types(update.dtype, G.dtype), torch.float32)
    A, G = (_unit(x.to(kind).reshape(-1, *x.shape[-2:])) for x in (-update, G.to(update.device)))
    U, g, Vh = torch.linalg.svd(G, full_matrices=False)
    tie = (8 + max(G.shape[-2:]) ** 0.5) * torch.finfo(kind).eps
    length = torch.linalg.matrix_norm(A)
    c = ((U.mT @ A) * Vh).sum(-1).double() / length.where(length > 0, 1.0).double()[:, None]
    curve = _Curve.of(g.double(), c, tie)
    found = [x.reshape(shape) for x in _best(curve, within, length > 0)]
    aligned = torch.where(length > 0, curve.aligned(tie), math.nan)
    return Described(*found, aligned.reshape(shape))


def stable_rank(W: Float[Tensor, "*b m n"] | Any) -> Float[Tensor, "*b"]:
    """‖W‖_F²/‖W‖₂², float64: of an update the one singular value's share in its length, from 1, the nuclear norm's
    step, to min(m, n), the spectral norm's of a gradient of full rank. It needs no gradient. NaN for W = 0.

    Raises InputError for entries that are not finite, none, or fewer than two dimensions.
    """
    s = _spectrum(W).square()
    return s.sum(-1) / s.amax(-1)


def effective_rank(W: Float[Tensor, "*b m n"] | Any) -> Float[Tensor, "*b"]:
    """(Σσ²)²/Σσ⁴, float64: how many singular values share an update's length; at least the stable rank, which the
    largest alone decides. NaN for W = 0.

    Raises as `stable_rank`.
    """
    s = _spectrum(W).square()
    return s.sum(-1).square() / s.square().sum(-1)


@dataclass(frozen=True, eq=False)
class _Curve:
    """f(a) = Σ c_i g_i^a/‖g^a‖₂ over the g_i > 0: `log` (b, k) of g over the largest, c (b, k), 0 where not `live`."""

    log: Tensor
    c: Tensor
    live: Tensor

    @staticmethod
    def of(g: Tensor, c: Tensor, tie: float) -> _Curve:
        live = g > tie * g[:, :1]
        t = torch.where(live, g / g[:, :1].where(live[:, :1], 1.0), 1.0)
        return _Curve(t.where(t < 1 - tie, 1.0).log(), c * live, live)

    def __call__(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """f and its derivative at a (b)."""
        x = torch.where(self.live, a[:, None] * self.log, -math.inf)
        w = (x - x.amax(-1, keepdim=True)).exp().nan_to_num(0.0)
        size = torch.linalg.vector_norm(w, dim=-1)
        w = w / size.where(size > 0, 1.0)[:, None]
        f = (self.c * w).sum(-1)
        return f, (self.c * w * self.log).sum(-1) - f * (w.square() * self.log).sum(-1)

    def flat(self) -> Tensor:
        """Whether all live g are equal."""
        return ~(self.log < 0).any(-1)

    def aligned(self, tie: float) -> Tensor:
        """max Σ c_i φ(g_i)/‖φ(g)‖₂ over φ ≥ 0: of equal g, whose vectors are theirs in common, the mean counts."""
        t = self.log.exp() * self.live
        group = (t[:, :-1] - t[:, 1:] > tie).cumsum(-1)
        group = torch.cat([torch.zeros_like(group[:, :1]) if len(group.T) else group.new_zeros(len(t), 1), group], -1)
        sums, counts = (torch.zeros_like(t).scatter_add(-1, group, x) for x in (self.c, self.live.to(t.dtype)))
        return (sums.clamp(min=0.0) / counts.clamp(min=1.0).sqrt()).square().sum(-1).sqrt()


def _best(curve: _Curve, within: float, live: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a, low, high and f(a), all (b)."""
    places = _places().to(curve.c.device)
    rows = torch.stack([curve(a.expand(len(curve.c)))[0] for a in places], -1)
    top = rows.argmax(-1)
    last = len(places) - 1
    a = _bisect(lambda x: curve(x)[1] > 0, places[(top - 1).clamp(min=0)], places[(top + 1).clamp(max=last)])
    a = torch.where((top == 0) & (curve(places[top])[1] <= 0), LEAST, a)
    f = curve(a)[0]
    on_grid = rows.amax(-1)
    a, f = torch.where(on_grid > f, places[top], a), torch.maximum(on_grid, f)
    endless = rows[:, -1] >= f * (1 - 1e-14)
    a, f = torch.where(endless, _LARGEST, a), torch.where(endless, rows[:, -1], f)
    level = (1 - within) * f
    order = torch.arange(last + 1, device=places.device)
    lower = (rows < level[:, None]) & (places < a[:, None])
    upper = (rows < level[:, None]) & (places > a[:, None])
    before = torch.where(lower, order, -1).amax(-1)
    after = torch.where(upper, order, last + 1).amin(-1)
    low = _bisect(lambda x: curve(x)[0] < level, places[before.clamp(min=0)], torch.minimum(places[(before + 1)], a))
    high = _bisect(
        lambda x: curve(x)[0] >= level, torch.maximum(places[(after - 1)], a), places[after.clamp(max=last)]
    )
    low, high = torch.where(before < 0, LEAST, low), torch.where(after > last, math.inf, high)
    none = curve.flat() | ~(f > 0)
    a = torch.where(none, math.nan, torch.where(a >= _LARGEST, math.inf, a))
    return (
        a,
        torch.where(none, LEAST, low),
        torch.where(none, math.inf, high),
        torch.where(live, f.clamp(max=1.0), math.nan),
    )


def _bisect(below: Any, start: Tensor, stop: Tensor) -> Tensor:
    """Where `below`, true at `start` and false at `stop` (b), changes."""
    for _ in range(_HALVINGS):
        middle = (start + stop) / 2
        low = below(middle)
        start, stop = torch.where(low, middle, start), torch.where(low, stop, middle)
    return (start + stop) / 2


def _places() -> Tensor:
    """Exponents from −1 to one that stands for ∞, dense where they differ most."""
    near = torch.linspace(LEAST, 2.0, 61, dtype=torch.float64)
    far = 2 * 1.1 ** torch.arange(1, 91, dtype=torch.float64)
    return torch.cat([near, far, torch.logspace(5, math.log10(_LARGEST), 14, dtype=torch.float64)])


def _unit(X: Tensor) -> Tensor:
    size = X.abs().amax((-2, -1), keepdim=True)
    return X / size.where(size > 0, 1.0)


def _spectrum(W: Any) -> Tensor:
    W = to_tensor(W, "W")
    if W.ndim < 2:
        raise InputError(f"W has shape {tuple(W.shape)}; a matrix has two dimensions, a batch of them more")
    require_nonempty(W, "W")
    require_finite(W, "W")
    return torch.linalg.svdvals(_unit(W.to(torch.promote_types(W.dtype, torch.float32)))).double()


def _sentence(a: float, low: float, high: float, cosine: float, p: float) -> str:
    if math.isnan(cosine):
        return "an update of 0"
    if math.isnan(a):
        return f"undetermined: every exponent describes the update equally, cosine {cosine:.3f}"
    where = f"a = {a:.3g} [{low:.3g}, {high:.3g}], cosine {cosine:.3f}".replace("inf", "∞")
    if cosine < _FITS:
        return f"none fits; the nearest has {where}"
    return f"beyond p = ∞: {where}" if high < 0 else f"p = {p:.4g}, {where}".replace("inf", "∞")
