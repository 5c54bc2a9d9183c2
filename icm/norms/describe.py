"""Which Schatten norm an update was a step of steepest descent in, as far as in any."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icm.arrays import require_finite, require_nonempty, to_tensor
from icm.errors import InputError

LEAST = -1.0  # the exponents looked at begin here
FITS = 0.9  # the cosine from which an update is called described
_LARGEST = 1e18  # stands for ∞: no two singular values that differ are alike when raised to it
_WITHIN = 0.01
_HALVINGS = 44
_AT_ONCE = 2**22


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

    def fits(self, least: float = FITS) -> Bool[Tensor, "*b"]:
        """Whether the cosine is at least this. The signs of a normal matrix, Adam's first step, have 0.80 = √(2/π) with
        the matrix itself, a = 1, and hardly more with any other exponent."""
        return self.cosine >= least

    def __str__(self) -> str:
        figures = (self.exponent, self.low, self.high, self.cosine, self.p)
        rows = zip(*(x.reshape(-1).tolist() for x in figures), strict=True)
        return "\n".join(_sentence(*row) for row in rows)


def best_schatten(
    update: Float[Tensor, "*b m n"] | Any, G: Float[Tensor, "..."] | Any, *, within: float = _WITHIN
) -> Described:
    """Which Schatten p best describes `update`, the change ΔW of a matrix, given the gradient or momentum G that it was
    made of: A = −ΔW against U diag(g^a) Vᵀ, the direction of steepest descent in Schatten p = 1 + 1/a. G may lack
    dimensions of the batch, which then has it in common.

    Computed by an SVD of G in the wider of the two dtypes, at least float32. Singular values up to (8 + √max(m, n)) ε
    ‖G‖₂ are taken as 0, those no further apart as equal. The largest cosine is sought among 170 exponents, then where
    its derivative vanishes.

    Raises InputError for entries that are not finite, none, other shapes than the same (*b, m, n), and for a `within`
    outside (0, 1); DtypeError for matrices that are not real.
    """
    if not 0 < within < 1:
        raise InputError(f"within={within!r}: by how much of itself the cosine may fall from low to high, in (0, 1)")
    update, G = to_tensor(update, "update"), to_tensor(G, "G")
    if G.ndim < 2 or update.shape[-G.ndim :] != G.shape:
        raise InputError(
            f"update has shape {tuple(update.shape)} and G {tuple(G.shape)}; both are matrices (*b, m, n) of one "
            "shape, but that G may lack dimensions of the batch"
        )
    require_nonempty(G, "G")
    require_nonempty(update, "update")
    for x, name in ((update, "update"), (G, "G")):
        require_finite(x, name)
    shape = update.shape[:-2]
    kind = torch.promote_types(torch.promote_types(update.dtype, G.dtype), torch.float32)
    A, G = (_unit(x.to(kind).reshape(-1, *x.shape[-2:])) for x in (-update, G.to(update.device)))
    U, g, Vh = torch.linalg.svd(G, full_matrices=False)
    tie = (8 + max(G.shape[-2:]) ** 0.5) * torch.finfo(kind).eps
    length = torch.linalg.matrix_norm(A)
    A, shared = A.unflatten(0, (-1, len(G))), len(A) // len(G)
    c = ((U.mT @ A) * Vh).sum(-1).double().flatten(0, 1) / length.where(length > 0, 1.0).double()[:, None]
    curve = _Curve.of(g.double().repeat(shared, 1), c, tie)
    a, low, high, cosine = _best(curve, within)
    moved = [torch.where(length > 0, x, math.nan) for x in (cosine, curve.aligned(tie))]
    return Described(*(x.reshape(shape) for x in (a, low, high, *moved)))


def stable_rank(W: Float[Tensor, "*b m n"] | Any) -> Float[Tensor, "*b"]:
    """‖W‖_F²/‖W‖₂², float64: what an update alone, without its gradient, tells of its norm. The nuclear norm's steps
    have 1, the spectral norm's their rank, at most min(m, n). NaN for W = 0.

    Raises InputError for entries that are not finite, none, or fewer than two dimensions.
    """
    s = _spectrum(W).square()
    return s.sum(-1) / s.amax(-1)


def effective_rank(W: Float[Tensor, "*b m n"] | Any) -> Float[Tensor, "*b"]:
    """(Σσ²)²/Σσ⁴, float64: how many singular values share an update's length. At least the stable rank, to which
    a single large one adds nothing. NaN for W = 0.

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

    def value(self, a: Tensor) -> Tensor:
        """f at a (b, j), j places for each."""
        return (self.c[:, None] * self._unit(a)).sum(-1)

    def slope(self, a: Tensor) -> Tensor:
        """f' at a (b, j)."""
        w, c, log = self._unit(a), self.c[:, None], self.log[:, None]
        return (c * w * log).sum(-1) - (c * w).sum(-1) * (w.square() * log).sum(-1)

    def _unit(self, a: Tensor) -> Tensor:
        """g^a/‖g^a‖₂ (b, j, k)."""
        x = (a[..., None] * self.log[:, None]).masked_fill(~self.live[:, None], -math.inf)
        w = (x - x.amax(-1, keepdim=True)).exp().nan_to_num(0.0)
        size = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
        return w / size.where(size > 0, 1.0)

    def flat(self) -> Tensor:
        """Whether all live g are equal."""
        return ~(self.log < 0).any(-1)

    def aligned(self, tie: float) -> Tensor:
        """max Σ c_i φ(g_i)/‖φ(g)‖₂ over φ ≥ 0: of equal g, whose vectors are theirs in common, the mean counts."""
        t = self.log.exp() * self.live
        group = (t[:, :-1] - t[:, 1:] > tie).cumsum(-1)
        group = torch.cat([group.new_zeros(len(t), 1), group], -1)
        sums, counts = (torch.zeros_like(t).scatter_add(-1, group, x) for x in (self.c, self.live.to(t.dtype)))
        return (sums.clamp(min=0.0) / counts.clamp(min=1.0).sqrt()).square().sum(-1).sqrt()


def _best(curve: _Curve, within: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a, low, high and f(a), all (b)."""
    places = _places().to(curve.c.device)
    last = len(places) - 1
    some = max(1, _AT_ONCE // max(1, curve.c.numel()))
    rows = torch.cat([curve.value(at.expand(len(curve.c), -1)) for at in places.split(some)], -1)
    peak, top = rows.max(-1)
    ends = places[(top - 1).clamp(min=0)], places[(top + 1).clamp(max=last)]
    a = _bisect(lambda x: curve.slope(x) > 0, *(x[:, None] for x in ends))
    a = torch.where(((top == 0) & (curve.slope(places[:1].expand_as(a))[:, 0] <= 0))[:, None], LEAST, a)
    f = curve.value(a)[:, 0]
    a, f = torch.where(peak > f, places[top], a[:, 0]), torch.maximum(peak, f)
    endless = rows[:, -1] >= f * (1 - 1e-14)
    a, f = torch.where(endless, _LARGEST, a), torch.where(endless, rows[:, -1], f)
    level = (1 - within) * f[:, None]
    order, less = torch.arange(last + 1, device=places.device), rows < level
    before = torch.where(less & (places < a[:, None]), order, -1).amax(-1)
    after = torch.where(less & (places > a[:, None]), order, last + 1).amin(-1)
    inside = torch.stack([torch.minimum(places[before + 1], a), torch.maximum(places[after - 1], a)], -1)
    outside = torch.stack([places[before.clamp(min=0)], places[after.clamp(max=last)]], -1)
    low, high = _bisect(lambda x: curve.value(x) >= level, inside, outside).unbind(-1)
    low, high = torch.where(before < 0, LEAST, low), torch.where(after > last, math.inf, high)
    none = curve.flat() | ~(f > 0)
    a = torch.where(none, math.nan, torch.where(a >= _LARGEST, math.inf, a))
    return a, torch.where(none, LEAST, low), torch.where(none, math.inf, high), f.clamp(max=1.0)


def _bisect(holds: Callable[[Tensor], Tensor], start: Tensor, stop: Tensor) -> Tensor:
    """Where what holds at `start` ceases to before `stop`, both (b, j)."""
    for _ in range(_HALVINGS):
        middle = (start + stop) / 2
        still = holds(middle)
        start, stop = torch.where(still, middle, start), torch.where(still, stop, middle)
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
    if not cosine > 0:
        return f"none fits: the update has no part along any, cosine {cosine:.3f}"
    if math.isnan(a):
        return f"undetermined: every exponent describes the update equally, cosine {cosine:.3f}"
    where = f"a = {round(a, 9):.3g} [{low:.3g}, {high:.3g}], cosine {cosine:.3f}".replace("inf", "∞")
    if cosine < FITS:
        return f"none fits; the nearest has {where}"
    return f"beyond p = ∞: {where}" if high < 0 else f"p = {p:.4g}, {where}".replace("inf", "∞")
