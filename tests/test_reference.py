"""The 50-digit reference against values known by other means, to 1e-35 relative."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from flint import acb, arb, ctx, fmpq

from benchmarks import exactness, reference
from benchmarks.reference import (
    Spectrum,
    exponential_row,
    mean_exponential,
    mean_power,
    power_table,
    slopes_exponential,
    slopes_power,
)
from benchmarks.spectra import spectra

TOLERANCE = 1e-35
EXPONENTS = [1.0, 1.5, 2.001, 2.39, 3.0, 3.999, 10.5]


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    """Compare at 300 bits."""
    with ctx.workprec(300):
        yield


def assert_same(computed: arb, exact: arb | Fraction) -> None:
    """|computed − exact| < 1e-35 |exact|."""
    value = arb(fmpq(exact.numerator, exact.denominator)) if isinstance(exact, Fraction) else exact
    assert abs(computed - value) < TOLERANCE * abs(value), f"{computed.str(45)} is not {value.str(45)}"


def power_sum_moments(sigma: np.ndarray, dim: int, order: int) -> list[Fraction]:
    """E s^j for j ≤ order, exact: j!·c_j/(n/2)_j with c_j = (1/2j) Σ_{i=1..j} t_i c_{j−i}, t_i = Σ λ^i."""
    lam = [Fraction(float(v)) ** 2 for v in sigma]
    sums = [sum((x**i for x in lam), Fraction(0)) for i in range(order + 1)]
    coefficients, moments, ratio = [Fraction(1)], [Fraction(1)], Fraction(1)
    for j in range(1, order + 1):
        terms = (sums[i] * coefficients[j - i] for i in range(1, j + 1))
        coefficients.append(sum(terms, Fraction(0)) / (2 * j))
        ratio *= Fraction(j) / (Fraction(dim, 2) + j - 1)
        moments.append(ratio * coefficients[j])
    return moments


def angle_mean(function: Callable[[Any], Any]) -> arb:
    """(2/π) ∫_0^{π/2} f(θ) dθ to 45 digits."""
    with mpmath.workdps(45):
        value = 2 / mpmath.pi * mpmath.quad(function, [0, mpmath.pi / 8, mpmath.pi / 4, mpmath.pi / 2])
        return arb(mpmath.nstr(value, 44))


@pytest.mark.parametrize("name", spectra(8))
def test_even_powers_are_power_sums(name: str) -> None:
    """p = 2, 4, 6, 10: E s^j is a polynomial in Σ λ^i."""
    sigma = spectra(8)[name]
    moments = power_sum_moments(sigma, 8, 5)
    for row, p in zip(power_table(sigma, 8, [2, 4, 6, 10], indices=[]), [2, 4, 6, 10], strict=True):
        assert_same(row[0], moments[p // 2])


def test_fourth_power_by_hand() -> None:
    """E s² = (t₁² + 2t₂)/(n(n+2)), so ∂/∂σ_i = 4σ_i (t₁ + 2λ_i)/(n(n+2)), 0 where σ_i = 0."""
    sigma, dim = [3.0, 0.5, 0.1, 0.0], 7
    lam = [Fraction(v) ** 2 for v in sigma]
    first, second = sum(lam, Fraction(0)), sum((x * x for x in lam), Fraction(0))
    assert_same(mean_power(sigma, dim, 4), (first**2 + 2 * second) / (dim * (dim + 2)))
    for value, x, slope in zip(sigma, lam, slopes_power(sigma, dim, 4), strict=True):
        assert_same(slope + 1, 4 * Fraction(value) * (first + 2 * x) / (dim * (dim + 2)) + 1)


def test_one_dimension() -> None:
    """n = 1: ‖Qζ‖ = σ, whatever its scale."""
    for sigma in (1.7, 3e-150):
        for row, p in zip(power_table([sigma], 1, EXPONENTS), EXPONENTS, strict=True):
            assert_same(row[0], arb(sigma) ** arb(p))
            assert_same(row[1], p * arb(sigma) ** (arb(p) - 1))


@pytest.mark.parametrize("sigma", [(1.3, 0.4), (1.0, 0.0)])
@pytest.mark.parametrize("p", [1.0, 2.39, 3.999])
def test_two_dimensions_by_quadrature(sigma: tuple[float, float], p: float) -> None:
    """n = 2: s = λ₁ cos²θ + λ₂ sin²θ, θ uniform; ∂/∂σ₁ = p σ₁ E[s^{p/2−1} cos²θ]."""
    q = mpmath.mpf(p) / 2

    def level(angle: Any) -> Any:
        return (sigma[0] * mpmath.sin(angle)) ** 2 + (sigma[1] * mpmath.cos(angle)) ** 2

    assert_same(mean_power(sigma, 2, p), angle_mean(lambda x: level(x) ** q))
    slope = angle_mean(lambda x: level(x) ** (q - 1) * mpmath.sin(x) ** 2)
    assert_same(slopes_power(sigma, 2, p, indices=[0])[0], p * arb(sigma[0]) * slope)


@pytest.mark.parametrize("dim", [2, 3, 64])
def test_flat_and_full(dim: int) -> None:
    """σ = c·1, k = n: ‖Qζ‖ = c; each slope is p c^{p−1}/n."""
    for row, p in zip(power_table([1.1] * dim, dim, EXPONENTS, indices=[dim - 1]), EXPONENTS, strict=True):
        assert_same(row[0], arb(1.1) ** arb(p))
        assert_same(row[1], p * arb(1.1) ** (arb(p) - 1) / dim)


@pytest.mark.parametrize(("k", "dim"), [(1, 2), (1, 3), (5, 8), (512, 4096)])
def test_flat_and_short(k: int, dim: int) -> None:
    """σ = 1 on k of n: s ~ Beta(k/2, (n−k)/2), E s^q = Γ(k/2+q)Γ(n/2)/(Γ(k/2)Γ(n/2+q)), slopes p E s^q/k."""
    for row, p in zip(power_table(np.ones(k), dim, EXPONENTS, indices=[0]), EXPONENTS, strict=True):
        q, a, b = arb(p) / 2, arb(k) / 2, arb(dim) / 2
        exact = (a + q).gamma() * b.gamma() / (a.gamma() * (b + q).gamma())
        assert_same(row[0], exact)
        assert_same(row[1], p * exact / k)


@pytest.mark.parametrize("name", ["spike-bulk", "condition-1e12"])
def test_euler(name: str) -> None:
    """Σ σ_i ∂_i E‖Qζ‖^p = p E‖Qζ‖^p."""
    sigma = spectra(8)[name]
    for row, p in zip(power_table(sigma, 8, EXPONENTS), EXPONENTS, strict=True):
        assert_same(sum((arb(float(v)) * d for v, d in zip(sigma, row[1:], strict=True)), arb(0)), p * row[0])


def test_exponential() -> None:
    """n = 1: e^{βσ} − 1 − βσ, and the angle integral for n = 2."""
    for rate in (1e-8, 5.0):
        x = arb(rate) * 2
        assert_same(mean_exponential([2.0], 1, rate), x.exp() - 1 - x)
        assert_same(slopes_exponential([2.0], 1, rate)[0], rate * (x.exp() - 1))

    def growth(angle: Any) -> Any:
        r = mpmath.sqrt((2 * mpmath.sin(angle)) ** 2 + mpmath.cos(angle) ** 2)
        return mpmath.expm1(r) - r

    assert_same(exponential_row([2.0, 1.0], 2, 1.0, indices=[])[0], angle_mean(growth))


def test_branch_of_the_square_root() -> None:
    """Π(1 − 2τλ)^{−1/2} is exp of minus half the sum of principal logarithms, also after many turns."""
    spectrum = Spectrum.of(spectra(64)["power-law"], 64)
    for tau in (acb(-0.5, 2), acb(-30, 70), acb(0.1, 1e6), acb(-1e9, 1e3)):
        logs = sum(((1 - 2 * tau * value).log() * count for value, count in spectrum.factors), acb(0))
        assert abs(spectrum.moment_generating(tau) / (-logs / 2).exp() - 1) < TOLERANCE


def test_the_comparison_catches_a_false_value() -> None:
    """A value wrong in its 35th digit fails, so does one without digits."""
    exact = arb(1.1) ** 3
    for wrong in (exact * (1 + arb(2) / arb(10) ** 35), exact + arb(0, 1e-20)):
        with pytest.raises(AssertionError):
            assert_same(wrong, exact)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input is named, and an integral that does not settle raises instead of returning."""
    for sigma, dim, p in (([1.0, 2.0], 1, 3.0), ([-1.0], 1, 3.0), ([float("nan")], 1, 3.0), ([1.0], 1, 0.0)):
        with pytest.raises(ValueError, match=r"sigma|exponents"):
            mean_power(sigma, dim, p)
    with pytest.raises(ValueError, match="rate"):
        mean_exponential([1e6], 1, 1.0)
    monkeypatch.setattr(reference, "HALVINGS", 0)
    with pytest.raises(ArithmeticError, match="settle"):
        mean_power([1.0, 0.5], 3, 3.0)


def test_the_cache_returns_what_was_computed(tmp_path: Path) -> None:
    """A second look reads the file, another dimension has another file, and holds the value to 24 digits."""
    sigma = spectra(3)["power-law"]
    first = exactness.reference_rows(sigma, 3, [2.39], cache=tmp_path)
    assert exactness.reference_rows(sigma, 3, [2.39], cache=tmp_path) == first
    exactness.reference_rows(sigma, 4, [2.39], cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    mean = first[2.39][0]
    assert abs(mean / Decimal(mean_power(sigma, 3, 2.39).str(40, radius=False)) - 1) < Decimal("1e-24")


def test_the_study_reports_a_false_library() -> None:
    """A slope wrong by 1e-11, a NaN and an exception are each reported as missed, at the right index."""
    exact, case = [Decimal("0.75"), Decimal("0.5")], (8, "flat", 3.0)

    def raising() -> list[float]:
        raise RuntimeError("no answer")

    right = exactness.record(case, "slopes", lambda: [0.75, 0.5], exact, [0, 7])
    wrong = exactness.record(case, "slopes", lambda: [0.75, 0.5 * (1 + 1e-11)], exact, [0, 7])
    nothing = exactness.record(case, "slopes", lambda: [float("nan"), 0.5], exact, [0, 7])
    failed = exactness.record(case, "slopes", raising, exact, [0, 7])
    assert not right.missed
    assert right.error == 0
    assert wrong.missed
    assert wrong.index == 7
    assert wrong.error == pytest.approx(1e-11, rel=1e-4)
    assert nothing.missed
    assert nothing.index == 0
    assert "nan" in nothing.note
    assert failed.missed
    assert "no answer" in failed.note
