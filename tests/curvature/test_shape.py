"""Every family passes the oracle of identities, the oracle catches false curvatures, and sums and multiples close."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from icm import Custom, Exponential, Power
from icm.curvature import Curvature, Kink, Sum, Tabulated, Wall, as_curvature
from icm.curvature.shape import superquadratic_on_grid
from icm.errors import CurvatureError, InputError
from tests.oracles import check_corners, check_curvature, check_hinges, tensor, worst

RADII = torch.linspace(0.25, 3.0, 12, dtype=torch.float64)

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
    "5 kink(1)": Kink(1.0, jump=5.0),
    "kink(1e6)": Kink(1e6, jump=1e-6),
    "0 kink(2)": 0.0 * Kink(2.0),
    "wall(3)": Wall(3.0),
    "r^2/2 + 5 kink(1) + wall(3)": 0.5 * Power(2.0) + 5.0 * Kink(1.0) + Wall(3.0),
    "r^4 + kink(1)": Power(4.0) + Kink(1.0),
    "r^4 + 9 kink(1)": Power(4.0) + 9.0 * Kink(1.0),
    "r^2 + kink(1) + 2 kink(1.5)": Power(2.0) + Kink(1.0) + 2.0 * Kink(1.5),
    "r + kink(0.3)": Power(1.0) + Kink(0.3),
    "exp(1) + wall(0.1)": Exponential(1.0) + Wall(0.1),
    "kink(2) + wall(1)": Kink(2.0) + Wall(1.0),
    "custom + kink(1) + wall(2)": Custom(lambda r: r**2 + r**3) + Kink(1.0) + Wall(2.0),
    "tabulated r^2": Tabulated((1.0, 2.0, 3.0), (1.0, 4.0, 9.0)),
    "tabulated r^3": Tabulated(RADII, RADII**3),
    "tabulated, one point": Tabulated([2.0], [3.0]),
    "tabulated lines": Tabulated((1.0, 2.0, 3.0, 4.0, 5.0), (0.5, 1.0, 1.5, 3.5, 5.5)),
    "tabulated, flat first": Tabulated((1.0, 2.0, 3.0, 3.5, 4.0), (0.0, 0.0, 1.0, 3.0, 5.0)),
    "tabulated noise": Tabulated(RADII, RADII**2 + 0.3 * torch.sin(77 * RADII), project=True),
    "tabulated + r^3 + wall(2)": Tabulated(RADII, RADII**2) + Power(3.0) + Wall(2.0),
    "tabulated r^2 + wall(3)": Tabulated((1.0, 2.0, 3.0), (1.0, 4.0, 9.0)) + Wall(3.0),
    "tabulated + kink(1)": Tabulated((1.0, 2.0, 3.0), (1.0, 4.0, 9.0)) + Kink(1.0),
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


@dataclass(frozen=True)
class WrongJump(Kink):
    """A jump that is off by 1e-9 where it is reported."""

    @property
    def hinges(self):
        return ((self.radius, self.jump * (1 + 1e-9), 0.0),)


@dataclass(frozen=True)
class WrongSide(Kink):
    """A right slope that is the left one."""

    def _slope(self, r: Tensor) -> Tensor:
        return self._left_slope(r)


@dataclass(frozen=True)
class WrongLeft(Kink):
    """A left slope that is the right one."""

    def _left_slope(self, r: Tensor) -> Tensor:
        return self._slope(r)


@dataclass(frozen=True)
class MissingHinge(Kink):
    """A kink that names none."""

    @property
    def hinges(self):
        return ()


@dataclass(frozen=True)
class HiddenKink(Power):
    """A power with a kink at 1/3 that its hinges do not name."""

    def _value(self, r: Tensor) -> Tensor:
        return super()._value(r) + Kink(1 / 3)._value(r)

    def _slope(self, r: Tensor) -> Tensor:
        return super()._slope(r) + Kink(1 / 3)._slope(r)


@dataclass(frozen=True)
class WrongHinge(Tabulated):
    """A hinge whose rise is off by 1e-9."""

    @property
    def hinges(self):
        (c, jump, rise), *rest = super().hinges
        return ((c, jump, rise * (1 + 1e-9)), *rest)


@dataclass(frozen=True)
class WrongPoints(Tabulated):
    """A kink where the slope is continuous."""

    def _left_slope(self, r: Tensor) -> Tensor:
        return super()._left_slope(r) * (1 - 1e-9 * (r == 1.0).double())


@dataclass(frozen=True)
class LowWall(Wall):
    """Finite beyond the wall."""

    def _value(self, r: Tensor) -> Tensor:
        return torch.zeros_like(r).masked_fill(r > self.radius, 1e300)


@dataclass(frozen=True)
class OpenWall(Wall):
    """A finite slope at the wall."""

    def _slope(self, r: Tensor) -> Tensor:
        return self._left_slope(r)


@dataclass(frozen=True)
class LateInverse(Kink):
    """A slope within the jump is answered by a radius that is off in the last digits."""

    def radius_at_slope(self, slope: Tensor) -> Tensor:
        return super().radius_at_slope(slope) * (1 + 1e-15)


@dataclass(frozen=True)
class ShortChord(Kink):
    """A bound below points under the line."""

    def radius_at_chord(self, slope: Tensor) -> Tensor:
        return super().radius_at_chord(slope) * 0.999


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
        (WrongJump(1.0), "differ by the jump"),
        (WrongSide(1.0), "differ by the jump"),
        (WrongLeft(1.0), "differ by the jump"),
        (MissingHinge(1.0), "derivative|kinks does not name"),
        (HiddenKink(2.5), "derivative|kinks does not name"),
        (WrongHinge((1.0, 2.0), (1.0, 4.0)), "hinges do not add up"),
        (WrongPoints((1.0, 2.0), (1.0, 5.0)), "kinks does not name"),
        (LowWall(2.0), "finite beyond the wall"),
        (OpenWall(2.0), "finite beyond the wall"),
        (LateInverse(1.0), "answered by the kink"),
        (ShortChord(1.0), "under the line"),
    ],
)
def test_the_oracle_catches_a_false_curvature(false: Curvature, words: str) -> None:
    """Each fault is caught, and named as what it is."""
    with pytest.raises(AssertionError, match=words):
        check_curvature(false)


@pytest.mark.parametrize("false", [MissingHinge(1.0), HiddenKink(2.5), HiddenKink(2.5) + Wall(3.0)])
def test_the_oracle_finds_hidden_kinks(false: Curvature) -> None:
    """A jump that no hinge names is found by the slopes alone."""
    with pytest.raises(AssertionError, match="kinks does not name"):
        check_corners(false)


def test_the_oracle_compares_hinges_with_values() -> None:
    """A Kink without its hinge does not add up."""
    with pytest.raises(AssertionError, match="add up"):
        check_hinges(MissingHinge(1.0), tensor(0.5, 2.0))


# Sums with kinks and walls.


def test_hinges_of_sums() -> None:
    """Equal radii merge, across families too, and kinks from the wall on are none; Power and Custom have no hinges."""
    table = Tabulated((1.0, 2.0), (1.0, 4.0))
    assert table.hinges == ((0.0, 0.0, 2.0), (2.0, 0.0, -2.0))
    H = Power(3.0) + 2.0 * Kink(2.0) + table + Kink(0.5) + Kink(4.0)
    assert H.hinges == ((0.0, 0.0, 2.0), (0.5, 1.0, 0.0), (2.0, 2.0, -2.0), (4.0, 1.0, 0.0))
    assert H.kinks == ((0.5, 1.0), (2.0, 2.0), (4.0, 1.0))
    assert (H + Wall(4.0)).kinks == ((0.5, 1.0), (2.0, 2.0))
    assert (Power(2.0) + FAMILIES["custom r^2 + r^3"]).hinges == ()
    assert (Power(2.0) + 0.0 * Kink(1.0)).kinks == ()


def test_nothing_is_nan_beyond_a_wall() -> None:
    """∞ beyond the wall, whatever the other parts are there: an overflowing power, a Custom that ends in NaN."""
    ends = Custom(lambda r: r**2 + 0 * r**2)
    r = tensor(0.0, 1.0, 2.0, 3.0, 1e260, math.inf)
    assert bool(ends(r)[4:].isnan().all())
    for H in (Power(200.0) + Wall(2.0), Exponential(1.0) + Wall(2.0), ends + Kink(1.0) + Wall(2.0)):
        assert H(r)[3:].tolist() == [math.inf] * 3
        assert H.slope(r)[2:].tolist() == [math.inf] * 4
        assert H.slope(r, side="left")[3:].tolist() == [math.inf] * 3
        assert bool(torch.isfinite(torch.cat([H(r)[:3], H.slope(r)[:2], H.slope(r, side="left")[:3]])).all())
        assert not bool(H.second(r).isnan().any())


def test_radii_of_sums_by_hand() -> None:
    """H = r²/2 + 5(r − 1)₊ with a wall at 3: H' is r, then r + 5, and H = cr at the root of a quadratic."""
    H = 0.5 * Power(2.0) + 5.0 * Kink(1.0)
    slopes = tensor(0.5, 1.0, 3.0, 5.999, 6.0, 7.0, 9.0)
    assert worst(H.radius_at_slope(slopes), [0.5, 1.0, 1.0, 1.0, 1.0, 2.0, 4.0]) < 1e-14
    assert (H + Wall(3.0)).radius_at_slope(tensor(3.0, 8.0, 1e9)).tolist()[::2] == [1.0, 3.0]
    # r²/2 + 5r − 5 = cr at r = c − 5 + √((5 − c)² + 10).
    c = tensor(1.0, 2.0, 6.0)
    assert worst(H.radius_at_chord(c), c - 5 + ((5 - c) ** 2 + 10).sqrt()) < 1e-14
    assert (H + Wall(3.0)).radius_at_chord(tensor(1e9)).tolist() == [3.0]
    # A line's worth of slope: below its limit a bound, at and beyond it none, unless there is a wall.
    K = Power(1.0) + 2.0 * Kink(1.0)
    assert worst(K.radius_at_chord(tensor(2.0, 3 - 1e-12)), [2.0, 2 / (3 - (3 - 1e-12))]) < 1e-3
    assert K.radius_at_chord(tensor(3.0, 4.0)).tolist() == [math.inf, math.inf]
    assert (1e300 * K).radius_at_chord(tensor(2e300, 3e300)).tolist()[1] == math.inf
    assert (K + Wall(7.0)).radius_at_chord(tensor(3.0)).tolist() == [7.0]


def test_no_length() -> None:
    """H = 0 has an infinite length, a wall alone its radius; verdicts, inverses and units stay free of NaN."""
    zero = 0.0 * Kink(2.0) + 0.0 * Power(3.0)
    assert zero.length_scale == math.inf
    assert (zero + Wall(2.0)).length_scale == 2.0
    assert zero.is_superquadratic()
    assert superquadratic_on_grid(zero)
    assert superquadratic_on_grid(0.0 * Tabulated([1.0], [1.0]))
    assert zero.radius_at_slope(tensor(0.0, 1.0)).tolist() == [math.inf] * 2
    assert zero.radius_at_chord(tensor(0.0, 1.0)).tolist() == [math.inf] * 2
    assert (zero + Wall(2.0)).radius_at_chord(tensor(0.0, 1.0)).tolist() == [2.0] * 2
    assert zero.balancing_radius(tensor(1.0)).tolist() == [1.0]


@pytest.mark.parametrize(
    ("H", "holds", "how"),
    [
        (Power(4.0) + 7.99999 * Kink(1.0), True, "grid"),  # 4r³/2r + J/2r rises behind r = 1 up to J = 8
        (Power(4.0) + 8.00001 * Kink(1.0), False, "grid"),
        (1e-6 * Power(4.0) + 7.99999e-30 * Kink(1e-8), True, "grid"),
        (1e-6 * Power(4.0) + 8.00001e-30 * Kink(1e-8), False, "grid"),
        (1e30 * Power(4.0) + 8.00001e30 * Kink(1.0), False, "grid"),
        (Power(2.0) + 1e-9 * Kink(1.0), False, "grid"),
        (Power(1.5) + Power(4.0) + Kink(1.0), False, "symbolic"),
        (Power(1.0) + Wall(1.0), False, "symbolic"),
        (Power(1.5) + FAMILIES["custom r^2 + r^3"], False, "symbolic"),
        (Kink(1.0) + Wall(1.0), True, "grid"),
        (Kink(1.0) + Wall(1.001), False, "grid"),
        (Power(2.0) + Wall(1.0), True, "symbolic"),
        (Power(3.0) + 0.0 * Kink(1.0), True, "symbolic"),
        (Tabulated((1.0, 2.0), (1.0, 4.0)) + Wall(2.0), True, "grid"),
        (Tabulated((1.0, 2.0), (1.0, 4.0)) + Wall(2.1), False, "grid"),
    ],
)
def test_growth_of_sums(H: Curvature, holds: bool, how: str) -> None:
    """ψ = H'/2r looked at right behind every kink and no further than the wall; ψ(0+) = ∞ decides at once."""
    assert (bool(H.is_superquadratic()), H.is_superquadratic().how) == (holds, how)
