"""The law of ‖Qζ‖ against the laws that are known, thirty digits, samples, and itself."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from flint import acb, arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ellipk
from scipy.stats import beta

import icm
from benchmarks.hinge_reference import hinge_reference
from icm.errors import DtypeError, InputError
from icm.sphere.distribution import Law, law, tail
from tests.oracles import difference, tensor, worst

MIXED = {
    "n = 2": (tensor(0.4, 1.0), 2),
    "n = 3": (tensor(0.8, 1.0, 2.0), 3),
    "3 of 7": (tensor(3.0, 1.0, 0.25), 7),
    "10 of 24": (1 / torch.arange(1, 11, dtype=torch.float64), 24),
    "40 of 40": (torch.linspace(0.5, 1.5, 40, dtype=torch.float64), 40),
    "narrow": (1 + 1e-6 * torch.arange(60, dtype=torch.float64), 60),
}
LEVELS = tensor(1e-12, 1e-4, 0.05, 0.3, 0.5, 0.8, 0.99, 1 - 1e-6)


def test_arcsine() -> None:
    """n = 2: P(r > c) = (2/π) arcsin √((1−c²)/(1−b²)) for σ = (1, b), density 2c/π√((c²−b²)(1−c²)), infinite at both
    ends; zero and one beyond them."""
    b, c = 0.3, torch.linspace(0.31, 0.99, 30, dtype=torch.float64)
    some = law([1.0, b], 2)
    up, down = (1 - c) * (1 + c), (c - b) * (c + b)
    assert worst(some.tail(c), 2 / math.pi * (up / (1 - b * b)).sqrt().asin()) < 1e-14
    assert worst(some.cdf(c), 2 / math.pi * (down / (1 - b * b)).sqrt().asin()) < 1e-14
    assert worst(some.density(c), 2 * c / (math.pi * (up * down).sqrt())) < 1e-14
    outside = tensor(0.0, 0.29, b, 1.0, 1.01, math.inf)
    assert some.tail(outside).tolist() == [1, 1, 1, 0, 0, 0]
    assert some.cdf(outside).tolist() == [0, 0, 0, 1, 1, 1]
    assert some.density(outside).tolist() == [0, 0, math.inf, math.inf, 0, 0]


def test_space() -> None:
    """n = 3, σ² = (1, b, 0): the density 2rK(·)/π√· of `test_contour`, infinite at √b; σ = (1, 0, 0): r is uniform."""
    b = 0.36
    r = torch.cat([tensor(1e-9, 1e-3), torch.linspace(0.05, 0.55, 9).double(), torch.linspace(0.65, 1, 9).double()])
    u = r.square()
    high, low = u * (1 - b), b * (1 - u)
    m = torch.minimum(high, low) / torch.maximum(high, low)
    exact = 2 * r * torch.as_tensor(ellipk(m.numpy())) / (math.pi * torch.maximum(high, low).sqrt())
    some = law([1.0, 0.6], 3)
    assert worst(some.density(r), exact) < 1e-14
    assert some.density([0.6, 0.0]).tolist() == [math.inf, 0.0]
    line = law([1.0], 3)
    assert worst(line.cdf(r), r) < 1e-14
    assert worst(line.density(tensor(0.0, 0.2, 1.0)), 1.0) < 1e-14
    assert worst(line.quantile(LEVELS), LEVELS) < 1e-14


@pytest.mark.parametrize(("k", "n"), [(1, 2), (1, 3), (2, 3), (1, 5), (3, 4), (5, 9), (1, 64), (60, 64), (512, 1024)])
def test_equal_values_are_beta(k: int, n: int) -> None:
    """k values 1 among n: r² ~ Beta(k/2, (n−k)/2), in both tails down to 1e−200 and beyond, in ball arithmetic."""
    some = law(torch.ones(k, dtype=torch.float64), n)
    r = some.quantile(torch.cat([tensor(1e-200, 1e-100, 1e-30), LEVELS]))
    r = torch.cat([r, (1 + 2 * r[-1:]) / 3, (1 + r[-1:]) / 2])
    r = r[(r < 1) & (r > 1e-140)]
    found = torch.stack([some.tail(r), some.cdf(r), some.density(r)], -1)
    with ctx.workprec(1200):  # 1 − t must keep its digits next to 1
        A, B = arb(k) / 2, arb(n - k) / 2
        for c, row in zip(r.tolist(), found, strict=True):
            t = arb(c) ** 2
            above, below = _regularized(1 - t, B, A), _regularized(t, A, B)
            density = 2 * arb(c) * t ** (A - 1) * (1 - t) ** (B - 1) * (A + B).gamma() / (A.gamma() * B.gamma())
            assert worst(row, [float(ball.mid()) for ball in (above, below, density)]) < 3e-13
    p = tensor(0.01, 0.3, 0.5, 0.9)
    exact = torch.as_tensor(beta.ppf(p.numpy(), k / 2, (n - k) / 2))
    assert worst(some.quantile(p).square(), exact) < 2e-13


def _regularized(t: arb, a: arb, b: arb) -> arb:
    """P(T < t) for T ~ Beta(a, b)."""
    return acb(t).beta_lower(a, b, regularized=1).real


@pytest.mark.parametrize("name", MIXED)
def test_tail_against_thirty_digits(name: str) -> None:
    """Any spectrum, across the range and close to its upper end, against an integral in ball arithmetic."""
    sigma, n = MIXED[name]
    some = law(sigma, n)
    low, high = (float(end) for end in some.support)
    c = torch.cat([some.quantile(LEVELS), tensor(high - 0.01 * (high - low))])
    exact = [hinge_reference(sigma.numpy(), n, radius, indices=[0]).tail for radius in c.tolist()]
    assert worst(some.tail(c), exact) < 1e-13
    assert worst(tail(sigma, n, c), exact) < 1e-13


@pytest.mark.parametrize("n", [64, 512, 1024])
def test_many_values_next_to_the_radius(n: int) -> None:
    """All but two values at ½, the radius next to it on either side: where a path bent towards them would lose all."""
    sigma = torch.full((n,), 0.5, dtype=torch.float64)
    sigma[0], sigma[-1] = 1, 0
    steps = tensor(1e-2, 1e-3, 1e-4, 1e-6, 1e-10)
    c = 0.5 + torch.cat([-steps, tensor(0.0), steps])
    exact = [hinge_reference(sigma.numpy(), n, radius, indices=[0]).tail for radius in c.tolist()]
    assert worst(tail(sigma, n, c), exact) < 5e-13
    p = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    q = law(sigma, n).quantile(p)
    assert bool((q.diff() > 0).all())
    assert worst(law(sigma, n).cdf(q), p) < 1e-12


@pytest.mark.parametrize("name", MIXED)
def test_the_parts_of_a_law_agree(name: str) -> None:
    """cdf + tail = 1, the density is the derivative of the cdf, and quantiles invert it in both tails."""
    sigma, n = MIXED[name]
    some = law(sigma, n)
    r = some.quantile(LEVELS)
    assert worst(some.cdf(r) + some.tail(r), 1.0) < 1e-15
    smaller = torch.where(LEVELS < 0.5, some.cdf(r) / LEVELS, some.tail(r) / (1 - LEVELS)) - 1
    resolution = 4e-16 * r * some.density(r) / torch.minimum(LEVELS, 1 - LEVELS)  # of r itself
    assert bool((smaller.abs() < 1e-13 + resolution).all())
    assert some.quantile([0.0, 1.0]).tolist() == [float(end) for end in some.support]
    low, high = (float(end) for end in some.support)
    middle = some.quantile(tensor(0.2, 0.45, 0.65, 0.9))
    if name == "narrow":
        width = float(some.std) / 20
        slope = (some.cdf(middle + width) - some.cdf(middle - width)) / (2 * width)
        assert worst(slope, some.density(middle)) < 2e-3
    else:  # as functions of the distance from the next singular value, where the law is not smooth
        points = torch.cat([tensor(low), sigma])
        nearest = points[(middle[:, None] - points).abs().argmin(-1)]
        distance, sign = (middle - nearest).abs(), (middle - nearest).sign()
        for function, turn in ((some.cdf, 1), (some.tail, -1)):
            slope = difference(lambda y, f=function: f(nearest + sign * y), distance)
            assert worst(turn * sign * slope, some.density(middle)) < 1e-9
    assert low < float(some.mean) < high


@pytest.mark.parametrize("name", MIXED)
def test_moments(name: str) -> None:
    """E r^q = ∫ P(r^q > y) dy, also for q < 1; q ≥ 1 is `icm.sphere.mean`; √E s − D is the mean."""
    sigma, n = MIXED[name]
    some = law(sigma, n)
    low, high = (float(end) for end in some.support)
    x, w = np.polynomial.legendre.leggauss(40)
    edges = torch.cat(
        [tensor(low), some.quantile(tensor(1e-9, 0.02, 0.5, 0.98, 1 - 1e-9)), sigma, tensor(high)]
    ).unique()
    v, w = torch.as_tensor((1 + x) / 2), torch.as_tensor(w / 2)
    grade, slope = v**4 * (35 - 84 * v + 70 * v**2 - 20 * v**3), 140 * v**3 * (1 - v) ** 3
    for q in (0.3, 1.0, 2.39):
        gaps = (edges**q).diff()[:, None]
        y = edges[:-1, None] ** q + gaps * grade
        P = some.tail((y ** (1 / q)).flatten()).view_as(y)
        exact = low**q + float((gaps * w * slope * P).sum())
        assert worst(some.moment(q), exact) < 1e-9
    for q in (1.0, 2.0, 3.5):
        assert worst(some.moment(q), icm.sphere.mean(icm.Power(q), sigma, n)) < 1e-15
    assert worst(some.mean, some.moment(1.0)) < 1e-16
    if name != "narrow":
        assert worst(some.std, (some.moment(2) - some.mean**2).sqrt()) < 1e-11


@pytest.mark.parametrize(("k", "n"), [(1, 2), (2, 3), (3, 5), (1, 1024), (1023, 1024)])
def test_standard_deviation_of_beta(k: int, n: int) -> None:
    """√(E r² − (E r)²) and E r^q with beta functions in 40 digits."""
    some = law(torch.full((k,), 3.0, dtype=torch.float64), n)
    with mpmath.workdps(40):
        K, J = mpmath.mpf(k) / 2, mpmath.mpf(n - k) / 2

        def moment(q: float) -> Any:
            return mpmath.mpf(3) ** q * mpmath.beta(K + mpmath.mpf(q) / 2, J) / mpmath.beta(K, J)

        assert worst(some.std, float(mpmath.sqrt(moment(2) - moment(1) ** 2))) < 1e-14
        for q in (0.001, 0.1, 0.9, 1.7):
            assert worst(some.moment(q), float(moment(q))) < 3e-14


@pytest.mark.parametrize("width", [1e-4, 1e-7, 1e-10, 1e-14])
def test_standard_deviation_of_narrow_laws(width: float, rng: torch.Generator) -> None:
    """σ = 1 + width·noise, n = 200: Var s = 2/(n(n+2)) (Σλ² − (Σλ)²/n), and std r = std s/2√E s (1 + O(width))."""
    n = 200
    sigma = 1 + width * torch.randn(n, generator=rng, dtype=torch.float64)
    with mpmath.workdps(50):
        lam = [mpmath.mpf(value) ** 2 for value in sigma.tolist()]
        first = mpmath.fsum(lam)
        second = mpmath.fsum(value**2 for value in lam)
        exact = mpmath.sqrt(mpmath.mpf(2) / (n * (n + 2)) * (second - first**2 / n)) / 2 / mpmath.sqrt(first / n)
    assert worst(law(sigma, n).std, float(exact)) < 1e-13 + width


def test_samples() -> None:
    """Shares, means and spreads of 40000 samples within five standard errors; one seed, one sample."""
    sigma, n = MIXED["3 of 7"]
    some, N = law(sigma, n), 40000
    r = some.sample(N, seed=5)
    assert torch.equal(r, some.sample(N, seed=5))
    assert not torch.equal(r, some.sample(N, seed=6))
    c = some.quantile(tensor(0.01, 0.2, 0.5, 0.8, 0.99))
    p = some.cdf(c)
    share = (r[:, None] <= c).double().mean(0)
    assert float(((share - p) / (p * (1 - p) / N).sqrt()).abs().max()) < 5
    assert abs(float((r.mean() - some.mean) / some.std)) < 5 / N**0.5
    assert abs(float(r.std() / some.std) - 1) < 5 / N**0.5
    both = law(torch.stack([sigma, 2 * sigma]), n).sample(10, seed=5)
    assert both.shape == (2, 10)
    assert worst(both[0], some.sample(10, seed=5)) < 1e-15
    assert worst(both[1], 2 * both[0]) < 1e-15


def test_atoms_and_ends() -> None:
    """n = 1 and n equal values are atoms, with P(r > c) = 0 at c; so is Q = 0. At an end shared by all but two values
    the density is its limit from inside, (n−2) r/√(d_a d_b); at r = 0 of rank one that of |ζ_1|."""
    for sigma, n, c in (([2.0], 1, 2.0), ([2.0] * 4, 4, 2.0), ([0.0], 3, 0.0)):
        some = law(sigma, n)
        assert bool(some.atom)
        assert some.tail([c, c + 1e-9]).tolist() == [0, 0]
        assert some.cdf([c, c + 1e-9]).tolist() == [1, 1]
        assert some.density([c, c + 1e-9]).tolist() == [math.inf, 0]
        assert some.quantile(LEVELS).tolist() == [c] * len(LEVELS)
        assert worst(some.mean, c) < 1e-15
        assert float(some.std) == 0
    assert float(tail([2.0], 1, 1.9)) == 1
    for sigma, n, end in (([1.0, 0.6, 0.5], 3, 1.0), ([1.0, 0.6, 0.5], 3, 0.5), ([1.0, 1.0, 0.5, 0.2], 4, 1.0)):
        some = law(sigma, n)
        inside = end + (0.7 - end) * 1e-9
        assert 0.1 < float(some.density(end)) < 10
        assert worst(some.density(end), some.density(inside)) < 1e-7
    assert worst(law([2.0], 5).density(0.0), law([2.0], 5).density(1e-12)) < 1e-13
    assert law([1.0, 0.5], 5).density([0.0, 1.0]).tolist() == [0, 0]
    assert law([1.0, 1.0, 0.5], 3).density([1.0]).tolist() == [math.inf]


def test_batches_and_shapes() -> None:
    """A batch agrees with its members whatever it is asked; numbers, lists and matching batches of radii broadcast."""
    sigma = torch.stack([tensor(3.0, 1.0, 0.25), tensor(1.0, 1.0, 1.0), tensor(0.0, 2.0, 0.0)])
    some = law(sigma, 3)
    r = torch.linspace(0, 3.2, 9, dtype=torch.float64)
    for name, x in (("tail", r), ("cdf", r), ("density", r), ("quantile", LEVELS)):
        found = getattr(some, name)(x)
        assert found.shape == (3, len(x))
        own = getattr(some, name)(torch.stack([x, x.flip(0), x]))
        assert worst(own[1], found[1].flip(-1)) == 0
        scalar = getattr(some, name)(float(x[3]))
        assert scalar.shape == (3,)
        for row in range(3):
            assert worst(found[row], getattr(law(sigma[row], 3), name)(x)) < 1e-14
            assert worst(scalar[row], found[row, 3]) < 1e-14
    for name in ("mean", "std", "atom"):
        single = [float(getattr(law(row, 3), name)) for row in sigma]
        assert worst(getattr(some, name).double(), single) < 1e-14
    assert law(sigma[0], 3).tail(r.view(3, 3)).shape == (3, 3)
    assert law(sigma[0], 3).tail(torch.ones(0, dtype=torch.float64)).shape == (0,)
    assert law(sigma.view(3, 1, 3), 4).tail(torch.ones(2, 5)).shape == (3, 2, 5)
    assert repr(law([3.0, 1.0], 2)) == "Law(1 ≤ r ≤ 3, mean 2.12709, n = 2)"
    assert repr(some) == "Law((3,), n = 3)"


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1.0)), min_size=1, max_size=6),
    st.integers(0, 4),
    st.one_of(st.just(0.0), st.floats(1e-9, 1.1)),
)
@settings(max_examples=6)
def test_order_padding_and_scale(values: list[float], more: int, share: float) -> None:
    """The order of σ, zeros written out, and a scale of 1e±150 change nothing; probabilities fall with the radius."""
    sigma, n = torch.tensor([1.0, *values], dtype=torch.float64), 1 + len(values) + more
    some, c = law(sigma, n), share
    padded = torch.cat([torch.zeros(more, dtype=torch.float64), sigma.flip(0)])
    P, density, quantile = some.tail(c), some.density(c), some.quantile(0.3)
    assert 0 <= float(P) <= 1
    assert worst(tail(padded, n, c), P) < 1e-13
    assert float(some.tail(c + 0.01)) <= float(P)
    # A power of two keeps every digit.
    for scale in (2.0**-498, 2.0**498):
        scaled = law(scale * sigma, n)
        assert worst(scaled.tail(scale * c), P) < 1e-13
        assert worst(scaled.density(scale * c), density / scale) < 1e-12
        assert worst(scaled.std, scale * some.std) < 1e-13
        assert worst(scaled.quantile(0.3), scale * quantile) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_dtype_follows(dtype: torch.dtype) -> None:
    """Answers have σ's dtype and are the float64 ones, rounded once; radii keep their own digits."""
    sigma = tensor(1.0, 0.5, 0.25).to(dtype)
    for name, x in (("tail", [0.3, 0.9]), ("cdf", [0.3, 0.9]), ("density", [0.3, 0.9]), ("quantile", [0.3, 0.9])):
        found = getattr(law(sigma, 5), name)(x)
        assert torch.equal(found, getattr(law(sigma.double(), 5), name)(x).to(dtype))
    for name in ("mean", "std"):
        assert torch.equal(getattr(law(sigma, 5), name), getattr(law(sigma.double(), 5), name).to(dtype))
    assert {end.dtype for end in law(sigma, 5).support} == {law(sigma, 5).sample(3).dtype} == {dtype}


def test_refusals() -> None:
    """Bad spectra, radii, levels, orders and counts are refused with the value named."""
    some = law([[1.0, 0.5], [1.0, 0.2]], 3)
    for bad in (-0.5, [0.1, -0.5], math.nan):
        for function in (some.tail, some.cdf, some.density, lambda r: tail([1.0], 2, r)):
            with pytest.raises(InputError, match=r"radius = (-0\.5|nan)"):
                function(bad)
    for bad in (-0.1, [0.5, 1.5], math.nan):
        with pytest.raises(InputError, match=r"p = (-0\.1|1\.5|nan)"):
            some.quantile(bad)
    with pytest.raises(InputError, match=r"radius of shape \(3, 4\).*\(2,\)"):
        some.tail(torch.ones(3, 4))
    for q in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="q = "):
            some.moment(q)
    for count in (0, True):
        with pytest.raises(InputError, match=f"count={count}"):
            some.sample(count)
    for sigma, dim, words in (
        ([], 3, "no entries"),
        ([1.0, -1.0], 3, "-1"),
        ([1.0, 2.0], 1, "dim=1"),
        (1.0, 2, "single"),
    ):
        with pytest.raises(InputError, match=words):
            law(sigma, dim)
    with pytest.raises(DtypeError):
        tail([1.0], 2, [1j])


def test_the_name_is_the_function() -> None:
    """`from icm.sphere.distribution import Law` reaches the module, and `Law` is a value: fields cannot be set."""
    some = law([1.0], 2)
    assert isinstance(some, Law)
    with pytest.raises(AttributeError):
        some.dim = 3  # pyright: ignore
