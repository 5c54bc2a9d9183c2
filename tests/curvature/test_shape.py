"""Every family passes the oracle of identities, the oracle catches false curvatures, and sums and multiples close."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from icm import Custom, Exponential, Power
from icm.curvature import Curvature, Sum, as_curvature
from icm.errors import CurvatureError, InputError
from tests.oracles import check_curvature, tensor

FAMILIES: dict[str, Curvature] = {
    "r": Power(1.0),
    "r^1.5": Power(1.5, scale=2.0),
    "r^2": Power(2.0),
    "r^2.39": Power(2.39, scale=1e3),
    "r^3": Power(3.0),
    "r^4": Power(4.0, scale=0.5),
    "r^10.5": Power(10.5, scale=1e-20),
    "exp(2)": Exponential(2.0),
    "30 exp(0.1)": Exponential(0.1, scale=30.0),
    "r^2 + exp(3)": Power(2.0) + Exponential(3.0),
    "r^1.5 + 0.1 r^4": Power(1.5) + 0.1 * Power(4.0),
    "r^2 + 3 r": Power(2.0) + 3.0 * Power(1.0),
    "custom r^2 + r^3": Custom(
        lambda r: r**2 + r**3, cvxpy_form=lambda t: t**2 + t**3, sympy_form=lambda r: r**2 + r**3
    ),
    "custom √(1+r²) − 1": Custom(lambda r: r * r / (1 + (1 + r * r).sqrt()), limit_slope=1.0),
    "custom + r^2.2": Custom(lambda r: r**2 + r**3) + Power(2.2),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str) -> None:
    """Every identity of the oracle."""
    check_curvature(FAMILIES[name])


def test_sums_are_flat_and_merge() -> None:
    """Like parts merge, the order of the rest is kept, and a single part is no sum."""
    square, cube, growth = Power(2.0), Power(3.0), Exponential(1.0)
    assert square + square == Power(2.0, 2.0)
    assert growth + growth == Exponential(1.0, 2.0)
    assert (square + cube) + (growth + square) == Sum((Power(2.0, 2.0), cube, growth))
    assert (square + (cube + growth)).parts == ((square + cube) + growth).parts
    assert Exponential(1.0) + Exponential(2.0) == Sum((Exponential(1.0), Exponential(2.0)))


def test_whole_numbers_multiply() -> None:
    """2 * H, H * 2 and H.dilate(2) take integers."""
    assert 2 * Power(3.0) == Power(3.0, 2.0) == Power(3.0) * 2
    assert Power(3).dilate(2) == Power(3.0, 8.0)


@pytest.mark.parametrize("factor", [-1.0, -1e-300, math.nan, math.inf])
def test_bad_multiples(factor: float) -> None:
    """A negative, NaN or infinite multiple is refused with its value."""
    for H in (Power(2.0), Exponential(1.0), Power(2.0) + Power(3.0), FAMILIES["custom r^2 + r^3"]):
        with pytest.raises(CurvatureError, match=str(factor)):
            H.__mul__(factor)


@pytest.mark.parametrize("a", [0.0, -1.0, math.nan, math.inf])
def test_bad_dilations(a: float) -> None:
    """A dilation needs a finite positive factor."""
    with pytest.raises(CurvatureError, match="dilat"):
        Power(2.0).dilate(a)


def test_products_and_strangers() -> None:
    """Two curvatures multiply to no curvature; what is no number or curvature is a TypeError."""
    with pytest.raises(CurvatureError, match="product"):
        inspect.unwrap(Curvature.__mul__)(Power(2.0), Power(3.0))
    assert inspect.unwrap(Curvature.__mul__)(Power(2.0), "3") is NotImplemented
    assert inspect.unwrap(Curvature.__add__)(Power(2.0), 1.0) is NotImplemented
    for bad in (3.0, None, ["r^2"]):
        with pytest.raises(CurvatureError, match=type(bad).__name__):
            inspect.unwrap(as_curvature)(bad)


def test_bad_sides() -> None:
    """A side is left or right."""
    with pytest.raises(InputError, match="middle"):
        inspect.unwrap(Curvature.slope)(Power(2.0), 1.0, side="middle")


def test_values_by_hand() -> None:
    """A few numbers, at 0 among them: the one-sided slopes of c·r, and H'' at 0 for powers around 2."""
    assert Power(3.0, 2.0)(tensor(0.0, 2.0)).tolist() == [0.0, 16.0]
    assert float(Power(1.0, 5.0).slope(0.0)) == 5.0
    assert float(Power(1.0, 5.0).slope(0.0, side="left")) == 0.0
    assert [float(Power(p).second(0.0)) for p in (1.0, 1.5, 2.0, 2.5)] == [0.0, math.inf, 2.0, 0.0]
    assert float(Exponential(2.0, 3.0).second(0.0)) == 12.0
    assert Power(2.0).recession_slope == math.inf
    assert Power(1.0, 4.0).recession_slope == 4.0
    assert (Power(1.0, 4.0) + Power(1.0, 2.0)).recession_slope == 6.0


# The oracle itself: a false curvature does not pass.


@dataclass(frozen=True)
class WrongSlope(Power):
    """A slope that is off by 1e-9."""

    def _slope(self, r: Tensor) -> Tensor:
        return super()._slope(r) * (1 + 1e-9)


@dataclass(frozen=True)
class WrongSecond(Power):
    """A second derivative that is off by 1e-6."""

    def _second(self, r: Tensor) -> Tensor:
        return super()._second(r) * (1 + 1e-6)


@dataclass(frozen=True)
class Concave(Power):
    """√r beyond the length scale."""

    def _value(self, r: Tensor) -> Tensor:
        return torch.where(r > 1, r.sqrt(), super()._value(r))


@dataclass(frozen=True)
class Shifted(Power):
    """H(0) ≠ 0."""

    def _value(self, r: Tensor) -> Tensor:
        return super()._value(r) + 1e-12


@dataclass(frozen=True)
class WrongStretch(Power):
    """A dilation that forgets the exponent."""

    def stretch(self, a: float) -> Power:
        return replace(self, scale=self.scale * a)


@dataclass(frozen=True)
class WrongInverse(Power):
    """A radius at a slope that is off by 1e-9."""

    def radius_at_slope(self, slope: Tensor) -> Tensor:
        return super().radius_at_slope(slope) * (1 + 1e-9)


@dataclass(frozen=True)
class WrongVerdict(Power):
    """A sub-quadratic power that claims the opposite."""

    def is_superquadratic(self):
        return Power(3.0).is_superquadratic()


@dataclass(frozen=True)
class WrongText(Power):
    """A text that rounds."""

    def __str__(self) -> str:
        return f"r^{self.exponent:.0f}"


@dataclass(frozen=True)
class WrongSymbol(Power):
    """A sympy form of another power."""

    def sympy(self, r):
        return r**3


@dataclass(frozen=True)
class WrongProgram(Power):
    """A cvxpy form of another scale."""

    def cvxpy(self, t):
        return 1.001 * super().cvxpy(t)


@pytest.mark.parametrize(
    ("false", "words"),
    [
        (WrongSlope(2.5), "slope"),
        (WrongSecond(2.5), "second"),
        (Concave(2.5), "chord"),
        (Shifted(2.5), "H\\(0\\)"),
        (WrongStretch(2.5), "value|scale"),
        (WrongInverse(2.5), "inverse"),
        (WrongVerdict(1.5), "superquadratic"),
        (WrongText(2.5), "reads as"),
        (WrongSymbol(2.5), "sympy"),
        (WrongProgram(2.5), "cvxpy"),
    ],
)
def test_the_oracle_catches_a_false_curvature(false: Curvature, words: str) -> None:
    """Each fault is caught, and named as what it is."""
    with pytest.raises(AssertionError, match=words):
        check_curvature(false)
