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
from benchmarks.hinge_reference import hinge_reference
from icm import Custom, Exponential, Power
from icm.curvature import Curvature, Kink, Tabulated, Wall
from icm.errors import DtypeError, InputError
from icm.sphere.expectation import Expectation, expect, mean, slopes
from icm.sphere.rule import rule
from tests.oracles import check_expectation, exact_mean, tensor, worst

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
TABLE = Tabulated((0.6, 1.1, 1.6), (0.1, 0.6, 1.5))
HINGED: dict[str, Curvature] = {
    "kink": Kink(0.9, 2.0),
    "kink near 0": Kink(0.05),
    "two kinks": Kink(0.6) + 3.0 * Kink(1.1),
    "r^2 + 1e4 kink": 0.5 * Power(2.0) + 1e4 * Kink(0.7),
    "r^2.39 + exp + kink": Power(2.39) + Exponential(1.0) + 30.0 * Kink(0.9),
    "table": TABLE,
    "table + r + kink": TABLE + 0.1 * Power(1.0) + Kink(0.75),
}
CLEAR = {
    "n = 1": (tensor(1.3), 1),
    "n = 2": (tensor(1.3, 0.4), 2),
    "n = 3": (tensor(0.8, 1.2, 2.03), 3),
    "3 of 7": (tensor(3.0, 1.2, 0.25), 7),
    "6 of 24": (5 / torch.arange(1, 7, dtype=torch.float64), 24),
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


@pytest.mark.parametrize(
    ("name", "spectrum"),
    [*((name, "3 of 7") for name in HINGED), *((name, "n = 2") for name in HINGED)]
    + [("two kinks", other) for other in CLEAR if other not in ("n = 2", "3 of 7")]
    + [("table", "n = 3"), ("r^2 + 1e4 kink", "6 of 24")],
)
def test_kinks_and_tables(name: str, spectrum: str) -> None:
    """So do kinks, measured curvatures and their sums, away from σ_i = c; with 25 digits for the rule of the law."""
    check_expectation(HINGED[name], *CLEAR[spectrum])


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


@pytest.mark.parametrize("offset", [0.0, 1e-12, -1e-12, 1e-6, -1e-6, 0.01])
def test_beside_a_singular_value(offset: float) -> None:
    """σ_2 = c(1 + offset): value and slopes are those of 25 digits."""
    sigma = tensor(1.3, 0.9 * (1 + offset), 0.4)
    value, slopes = exact_mean(Kink(0.9, 2.0) + Power(2.0), sigma, 3)
    e = expect(Kink(0.9, 2.0) + Power(2.0), sigma, 3)
    assert worst(e.value, value) < 1e-13
    assert worst(e.slopes, slopes) < 1e-13


@pytest.mark.parametrize("distance", [1e-4, 1e-8, 1e-13, 1e-16, 1e-25])
def test_digits_below_rounding(distance: float) -> None:
    """σ = c(1 + tu) with t down to 1e-25, as a float and `low`: the law of (r − c)/t is that of Σ u_i ζ_i² to O(t), so
    that w_i = jump/(2c) E[ζ_i² 1{Σ uζ² > 0}], and E(r − c)₊ = ct E(Σ uζ²)₊, both to 25 digits."""
    u, c = tensor(1.0, 0.25, -0.5), 0.75
    sigma = torch.full((3,), c, dtype=torch.float64)
    low = c * distance * u
    total = sigma + low
    low, sigma = low - (total - sigma), total
    e = expect(Kink(c, 4.0), sigma, 3, low=low)
    # Σ uζ² > 0 is Σ (1 + u/2)ζ² > 1: a hinge of another spectrum, at its radius 1.
    at = hinge_reference((1 + u / 2).sqrt().numpy(), 3, 1.0)
    assert worst(e.slopes, 4 * at.hinge_weights) < 10 * distance + 1e-13
    if distance < 1e-6:
        assert worst(e.value, 4 * c * distance * 2 * at.hinge) < 10 * distance + 1e-13


def test_all_on_a_kink() -> None:
    """At σ = c·1 the slopes are H'(c−)/n; just above H'(c+)/n; with a wall the value is infinite beyond it only."""
    H, ones = 0.5 * Power(2.0) + 7.0 * Kink(1.5), torch.ones(4, dtype=torch.float64)
    assert worst(expect(H, 1.5 * ones, 4).slopes, 1.5 / 4) < 1e-14
    assert worst(expect(H, 1.5 * ones, 4).value, 1.5**2 / 2) < 1e-14
    assert worst(expect(H, 1.5 * (1 + 1e-12) * ones, 4).slopes, 8.5 / 4) < 1e-11
    bounded = H + Wall(2.0)
    assert worst(expect(bounded, 2 * ones, 4).value, 2 + 3.5) < 1e-14
    assert float(expect(bounded, 2 * (1 + 1e-15) * ones, 4).value) == math.inf
    assert worst(expect(bounded, 2 * ones, 4).slopes, 9 / 4) < 1e-14


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


def without_atoms(e: Expectation, H: Curvature, sigma: Tensor, dim: int) -> Expectation:
    """A kink's bend as if ψ' had no δ at it: ⅔ E[ψ'ζ_i⁴] over r > c alone, sampled finely for n = 2."""
    angle = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * math.pi / 2
    zeta = torch.stack([angle.cos(), angle.sin()], -1).square()
    r = (sigma[..., None, :].square() * zeta).sum(-1).sqrt()
    dpsi = -H.slope(r) / (4 * r**3)
    return replace(e, bend=(dpsi[..., None] * zeta.square()).mean(-2) * e.size[..., None] ** 3 * 2 / 3)


def ruled(H: Curvature, sigma: Tensor, dim: int) -> Tensor:
    """E H by the rule for smooth H, which a kink makes inexact."""
    rows = sigma.reshape(-1, sigma.shape[-1])
    law = rule((rows / rows.amax(-1, keepdim=True)).nan_to_num(1.0), dim, 0)
    return (law.p * H(rows.amax(-1, keepdim=True) * law.nodes.sqrt())).sum(-1).reshape(sigma.shape[:-1])


FALSE_KINKED: dict[str, tuple[Callable[..., Expectation], str]] = {
    "value off by 1e-9": (false(lambda e: replace(e, value=e.value * (1 + 1e-9))), "value"),
    "all weights off by 1e-9": (false(lambda e: replace(e, weight=e.weight * (1 + 1e-9))), "slopes"),
    "all bends off by 1e-6": (false(lambda e: replace(e, bend=e.bend * (1 + 1e-6))), "bend"),
    "a radius off by 1e-9": (lambda H, s, n, level=0: expect(Kink(H.radius * (1 + 1e-9), H.jump), s, n), "value"),
    "the rule for smooth H": (lambda H, s, n, level=0: replace(expect(H, s, n), value=ruled(H, s, n)), "value"),
    "a bend without δ(s − c²)": (lambda H, s, n, level=0: without_atoms(expect(H, s, n), H, s, n), "bend"),
    "left out where rare": (
        lambda H, s, n, level=0: expect(H, s.where(s.amax(-1, keepdim=True) > 1.299, 0 * s), n),
        "gradient",
    ),
    "E r − c, as if all lay above": (
        lambda H, s, n, level=0: replace(
            e := expect(H.jump * Power(1.0), s, n), value=e.value - H.jump * H.radius * (e.size > 0)
        ),
        "value",
    ),
}


@pytest.mark.parametrize("name", FALSE_KINKED)
def test_the_oracle_catches_a_false_kink(name: str) -> None:
    """Each corruption of E(r − c)₊ is caught, and named as what it is."""
    evaluate, words = FALSE_KINKED[name]
    with pytest.raises(AssertionError, match=words):
        check_expectation(Kink(0.9, 2.0), *CLEAR["n = 2"], evaluate=evaluate)


def test_the_oracle_catches_a_false_table() -> None:
    """A table whose falls of H'' are left out, and one whose first piece is, are caught."""
    for lost in (lambda rise: rise < 0, lambda rise: rise == TABLE.hinges[0][2]):

        class Wrong(Tabulated):
            @property
            def hinges(self) -> tuple[tuple[float, float, float], ...]:
                return tuple((c, jump, 0.0 if lost(rise) else rise) for c, jump, rise in super().hinges)  # noqa: B023

        wrong = Wrong(TABLE.radii, TABLE.values)
        with pytest.raises(AssertionError, match="value"):
            check_expectation(TABLE, *CLEAR["n = 2"], evaluate=lambda H, s, n, level=0, K=wrong: expect(K, s, n))


def test_differences_refuse_a_singular_value_on_a_kink() -> None:
    """At σ_i = c the law has no second derivative, and the oracle says so instead of differencing there."""
    with pytest.raises(AssertionError, match="beside a hinge"):
        check_expectation(Kink(1.0), tensor(1.0, 0.5), 2)
