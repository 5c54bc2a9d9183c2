"""Every backend of the expectation passes the oracle, the oracle catches false ones, and the door to it is checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import icm
from benchmarks import reference
from icm import Custom, Exponential, Power
from icm.curvature import Curvature
from icm.errors import DtypeError, InputError
from icm.sphere.expectation import Expectation, expect, mean, slopes
from tests.oracles import check_expectation, tensor, worst

CLOSED: dict[str, Curvature] = {
    "r^2": Power(2.0),
    "r^4": Power(4.0, scale=0.5),
    "r^3": Power(3.0),
    "r": Power(1.0),
    "r^1.5": Power(1.5, scale=2.0),
    "r^2.001": Power(2.001),
    "r^2.39": Power(2.39, scale=1e3),
    "r^3.999": Power(3.999),
    "r^10.5": Power(10.5),
    "exp(2)": Exponential(2.0),
    "30 exp(0.1)": Exponential(0.1, scale=30.0),
    "r^2 + exp(3)": Power(2.0) + Exponential(3.0),
    "r^1.5 + 0.1 r^4": Power(1.5) + 0.1 * Power(4.0),
}
RULED: dict[str, Curvature] = {
    "custom r^2 + r^3": Custom(lambda r: r**2 + r**3),
    "custom √(1+r²) − 1": Custom(lambda r: r * r / (1 + (1 + r * r).sqrt()), limit_slope=1.0),
    "custom + r^2.2": Custom(lambda r: r**2 + r**3) + Power(2.2),
}
SPECTRA = {
    "n = 1": (tensor(1.3), 1),
    "n = 2": (tensor(1.0, 0.4), 2),
    "n = 3": (tensor(0.8, 1.0, 2.0), 3),
    "3 of 7": (tensor(3.0, 1.0, 0.25), 7),
    "6 of 24": (1 / torch.arange(1, 7, dtype=torch.float64), 24),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("name", CLOSED)
def test_powers_and_exponentials(name: str, spectrum: str) -> None:
    """Closed sums and integrals satisfy every identity of the oracle."""
    check_expectation(CLOSED[name], *SPECTRA[spectrum])


@pytest.mark.parametrize("spectrum", ["n = 1", "n = 2", "3 of 7"])
@pytest.mark.parametrize("name", RULED)
def test_general_rule(name: str, spectrum: str) -> None:
    """So does the general rule, which serves Custom curvatures, also in a sum with a closed backend."""
    check_expectation(RULED[name], *SPECTRA[spectrum])


@pytest.mark.parametrize(("k", "dim"), [(1, 2), (3, 3), (2, 30)])
@pytest.mark.parametrize("p", [1.0, 2.2])
def test_the_rule_agrees_with_the_integrals(p: float, k: int, dim: int) -> None:
    """Custom(r^p) and Power(p) give one value, slopes and bend, and the claimed error covers the difference."""
    sigma = torch.logspace(0, -2, k, dtype=torch.float64)
    ruled, closed = expect(Custom(lambda r: r**p), sigma, dim, level=1), expect(Power(p), sigma, dim)
    assert worst(ruled.value, closed.value) < 1e-14
    assert worst(ruled.slopes, closed.slopes) < 2e-14
    assert worst(ruled.bend, closed.bend) < 1e-13
    assert 1e-12 <= float(ruled.error) < 1e-11


@pytest.mark.parametrize(("sigma", "dim"), [(tensor(1.0, 0.3, 1e-3), 3), (1 / torch.arange(1.0, 10).double(), 16)])
def test_against_fifty_digits(sigma: Tensor, dim: int) -> None:
    """Value and slopes are those of ball arithmetic, to 1e-13."""
    for p, row in zip(
        (1.0, 2.39, 3.999, 10.5),
        reference.power_table(sigma.numpy(), dim, [1.0, 2.39, 3.999, 10.5], digits=25),
        strict=True,
    ):
        e = expect(Power(p), sigma, dim)
        assert worst(e.value, float(row[0])) < 1e-13
        assert worst(e.slopes, [float(x) for x in row[1:]]) < 1e-13
    row = reference.exponential_row(sigma.numpy(), dim, 3.0, digits=25)
    e = expect(Exponential(3.0), sigma, dim)
    assert worst(e.value, float(row[0])) < 1e-13
    assert worst(e.slopes, [float(x) for x in row[1:]]) < 1e-13


@pytest.mark.parametrize("p", [1.0, 2.0, 2.39, 4.0, 7.5])
@pytest.mark.parametrize("c", [1e-20, 3e20])
def test_homogeneous(p: float, c: float) -> None:
    """E‖cQζ‖^p = c^p E‖Qζ‖^p and the slopes scale by c^{p−1}, at any scale."""
    sigma = tensor(1.0, 0.3, 0.02)
    here, there = expect(Power(p), sigma, 5), expect(Power(p), c * sigma, 5)
    assert worst(there.value, c**p * here.value) < 5e-15
    assert worst(there.slopes, c ** (p - 1) * here.slopes) < 5e-15


def test_sums_add() -> None:
    """E(H + K) = E H + E K with all derivatives, and multiples multiply."""
    sigma = tensor(1.0, 0.3, 0.02)
    H, K = Exponential(2.0), Power(2.39)
    both, first, second = (expect(C, sigma, 4) for C in (H + 3.0 * K, H, K))
    for name in ("value", "weight", "bend", "slopes", "stiffness"):
        assert worst(getattr(both, name), getattr(first, name) + 3 * getattr(second, name)) < 1e-15


def test_exponential_at_both_ends() -> None:
    """Small rates leave rate²/2 E r², n = 1 leaves e^y − 1 − y up to y = 700, beyond is infinite, not NaN."""
    sigma = tensor(1.0, 0.5)
    small = expect(Exponential(1e-9), sigma, 4)
    assert worst(small.value, 0.5e-18 * 1.25 / 4) < 1e-9
    for y in (1e-6, 0.4, 30.0, 600.0):
        e = expect(Exponential(1.0), tensor(y), 1)
        exact = math.expm1(y) - y if y > 0.1 else y**2 / 2 + y**3 / 6 + y**4 / 24
        assert worst(e.value, exact) < 1e-12
        assert worst(e.slopes, math.expm1(y)) < 1e-12
    assert float(mean(Exponential(1.0), [800.0], 1)) == math.inf
    assert float(slopes(Exponential(1.0), [800.0], 1)) == math.inf


def test_public_functions() -> None:
    """mean and slopes are value and slopes of the expectation, for texts, lists, arrays and batches."""
    sigma = torch.tensor([[3.0, 1.0], [0.5, 0.0]], dtype=torch.float64)
    e = expect(Power(3.0), sigma, 3)
    for given in (sigma, sigma.tolist(), sigma.numpy()):
        assert torch.equal(mean("r^3", given, 3), e.value)
        assert torch.equal(slopes("r^3", given, 3), e.slopes)
    assert torch.equal(icm.sphere.mean(Power(3.0), [3, 1], 3), e.value[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("H", [Power(2.39), Exponential(1.0)])
def test_dtype_follows(H: Curvature, dtype: torch.dtype) -> None:
    """The answer has σ's dtype and is the float64 one, rounded once."""
    sigma = tensor(1.0, 0.5, 0.25).to(dtype)
    assert torch.equal(mean(H, sigma, 5), mean(H, sigma.double(), 5).to(dtype))
    assert torch.equal(slopes(H, sigma, 5), slopes(H, sigma.double(), 5).to(dtype))


@pytest.mark.parametrize(
    ("sigma", "dim", "words"),
    [
        (1.0, 3, "single number"),
        ([], 3, "no entries"),
        ([1.0, math.nan], 3, "index"),
        ([1.0, math.inf], 3, "index"),
        ([1.0, -0.5], 3, "-0.5"),
        ([1.0, 2.0, 3.0], 2, "dim=2"),
        ([1.0], 0, "dim=0"),
    ],
)
def test_bad_spectra(sigma: object, dim: int, words: str) -> None:
    """A spectrum that is none is refused with the value named."""
    for function in (mean, slopes):
        with pytest.raises(InputError, match=words):
            function("r^2", sigma, dim)


def test_bad_kinds() -> None:
    """Complex and boolean spectra are refused by kind."""
    for bad in (np.array([1j]), [True], torch.tensor([True])):
        with pytest.raises(DtypeError):
            mean("r^2", bad, 2)


# The oracle itself: a false expectation does not pass.


def false(change: Callable[[Expectation], Expectation]) -> Callable[..., Expectation]:
    """`expect`, with its answer changed."""
    return lambda H, sigma, dim, level=0: change(expect(H, sigma, dim, level))


def bump(x: Tensor, size: float) -> Tensor:
    """x with its first entry (of the last dimension) larger by `size`, relative."""
    return torch.cat([x[..., :1] * (1 + size), x[..., 1:]], -1)


FALSE = {
    "value off by 1e-9": (lambda e: replace(e, value=e.value * (1 + 1e-9)), "value"),
    "value off by 1e-12": (lambda e: replace(e, value=e.value * (1 + 1e-12)), "value"),
    "one weight off by 1e-9": (lambda e: replace(e, weight=bump(e.weight, 1e-9)), r"order of σ|Σ"),
    "all weights off by 1e-9": (lambda e: replace(e, weight=e.weight * (1 + 1e-9)), "Σ"),
    "one bend off by 1e-6": (lambda e: replace(e, bend=bump(e.bend, 1e-6)), "order of σ"),
    "all bends off by 1e-6": (lambda e: replace(e, bend=e.bend * (1 + 1e-6)), "Hessian"),
    "weights of another order": (lambda e: replace(e, weight=e.weight.flip(-1)), "zeros|order|E"),
    "all rows alike": (
        lambda e: replace(e, value=e.value.flatten()[0].expand_as(e.value)) if e.value.ndim else e,
        "batch|gradient",
    ),
}


@pytest.mark.parametrize("name", FALSE)
def test_the_oracle_catches_a_false_expectation(name: str) -> None:
    """Each corruption is caught, and named as what it is."""
    change, words = FALSE[name]
    with pytest.raises(AssertionError, match=words):
        check_expectation(Power(3.0), *SPECTRA["3 of 7"], evaluate=false(change))


def test_the_oracle_catches_another_law() -> None:
    """An expectation for the wrong dimension, the wrong H, or with a spurious linear part in σ is caught."""
    sigma, dim = SPECTRA["n = 3"]
    for evaluate in (
        lambda H, s, n, level=0: expect(H, s, n + 1, level),
        lambda H, s, n, level=0: expect(Power(3.0001), s, n, level),
        false(lambda e: replace(e, value=e.value + 1e-7 * e.size * e.x.sum(-1))),
    ):
        with pytest.raises(AssertionError):
            check_expectation(Power(3.0), sigma, dim, evaluate=evaluate)
