"""The closed sums and integrals for powers: known laws, Gamma ratios, and the extremes of p and n."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from icm import Power
from icm.sphere.expectation import expect, power_error
from icm.sphere.powers import gamma_ratio, log_gamma_ratio, power
from tests.oracles import tensor, worst


def beta_moment(k: int, n: int, a: float) -> float:
    """E s^a for k values 1 of n: s ~ Beta(k/2, (n−k)/2)."""
    with mpmath.workdps(40):
        half = mpmath.mpf(1) / 2
        top = mpmath.gammaprod([k * half + a, n * half], [k * half, n * half + a])
        return float(top)


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 4), (2, 3), (64, 64), (100, 1024), (512, 1024)])
@pytest.mark.parametrize("p", [1.0, 1.3, 2.0, 2.001, 3.0, 4.0, 5.999, 10.6, 40.0])
def test_flat_spectra(p: float, k: int, n: int) -> None:
    """k ones of n: E‖Qζ‖^p = E Beta^{p/2}, each slope is p/k of it, and the claimed error covers both."""
    e = expect(Power(p), torch.ones(k, dtype=torch.float64), n)
    exact = beta_moment(k, n, p / 2)
    assert worst(e.value, exact) < 3e-14
    assert worst(e.slopes, p / k * exact) < 3e-14
    assert worst(e.value, exact) < power_error(p)


@pytest.mark.parametrize(("k", "n"), [(2, 3), (3, 7)])
@pytest.mark.parametrize("p", [1.0, 3.0, 4.0])
def test_weights_of_zeros(p: float, k: int, n: int) -> None:
    """Σ w_i = Eψ = (p/2) E s^{p/2−1} over all n coordinates, those of σ_i = 0 included."""
    sigma = torch.cat([torch.ones(k), torch.zeros(n - k)]).double()
    e = expect(Power(p), sigma, n)
    assert worst(e.weight.sum() / e.size, p / 2 * beta_moment(k, n, p / 2 - 1)) < 1e-13


def test_even_powers_by_hand() -> None:
    """E s² = (t₁² + 2t₂)/(n(n+2)), E s³ = (t₁³ + 6t₁t₂ + 8t₃)/(n(n+2)(n+4)), t_j = Σ λ^j."""
    sigma, n = tensor(1.0, 0.7, 0.1), 5
    t1, t2, t3 = (float(sigma.pow(2 * j).sum()) for j in (1, 2, 3))
    assert worst(expect(Power(4.0), sigma, n).value, (t1**2 + 2 * t2) / (n * (n + 2))) < 1e-15
    third = (t1**3 + 6 * t1 * t2 + 8 * t3) / (n * (n + 2) * (n + 4))
    assert worst(expect(Power(6.0), sigma, n).value, third) < 1e-15


@pytest.mark.parametrize("n", [1, 8, 1024])
def test_continuous_in_the_exponent(n: int) -> None:
    """An exponent next to an even one gives almost the even one's sums: the two formulas meet."""
    sigma = torch.logspace(0, -6, n, dtype=torch.float64)
    for p in (2.0, 4.0, 6.0):
        even = power(sigma[None], n, p)
        for q in (p - 1e-11, p + 1e-11):
            near = power(sigma[None], n, q)
            # d log E s^{p/2} / dp is at most ½ |log s_min|
            assert worst(near.value, even.value) < 2e-10
            assert worst(near.weight, even.weight) < 2e-10


def test_steep_spectra() -> None:
    """One large value among small ones is nearly rank one: E‖Qζ‖^p → σ₁^p E|ζ₁|^p."""
    sigma = torch.cat([tensor(1.0), torch.full((63,), 1e-9).double()])
    for p in (1.5, 2.39, 3.0):
        assert worst(expect(Power(p), sigma, 64).value, beta_moment(1, 64, p / 2)) < 1e-12


@pytest.mark.parametrize("z", [0.5, 1.0, 3.7, 19.5, 20.0, 512.0, 1e6])
@pytest.mark.parametrize("x", [0.0, 0.5, 1.0, 2.25, 30.0])
def test_gamma_ratios(z: float, x: float) -> None:
    """Γ(z)/Γ(z+x) to a few last places (relative to x log z), and its logarithm."""
    with mpmath.workdps(40):
        exact = mpmath.gammaprod([z], [mpmath.mpf(z) + x])
        log = float(mpmath.log(exact))
        exact = float(exact)
    allowed = 1e-15 * (4 + x * math.log(z + x + 1))
    if exact > 0:
        assert worst(gamma_ratio(z, x), exact) < allowed
    assert abs(log_gamma_ratio(z, x) - log) < 20 * allowed
