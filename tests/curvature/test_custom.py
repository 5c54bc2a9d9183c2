"""Custom curvatures: what the grid checks refuse, where, and what the result says of itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from icm import Custom, Power
from icm.curvature import Kink, Wall
from icm.errors import CurvatureError
from tests.oracles import tensor, worst


@pytest.mark.parametrize(
    ("function", "words", "radius"),
    [
        (lambda r: torch.where(r < 2, r**2, 4 + 3 * (r - 2)), "not convex", 2.0),
        (lambda r: r.sqrt(), "not convex", 1e-6),
        (lambda r: r**2 - r, "decreases", 1e-6),
        (lambda r: torch.where(r < 3, 0 * r, -((r - 3) ** 2)), "decreases", 3.0),
        (lambda r: r**2 + 1, "H\\(0\\) = 1", 0.0),
        (lambda r: r.cosh(), "H\\(0\\) = 1", 0.0),
        (lambda r: torch.where(r < 5, r**2, math.nan * r), "nan", 5.0),
        (lambda r: r**2 + (r > 1).double(), "otherwise than its autograd slope", 1.0),
        (lambda r: r.detach() ** 2, "otherwise than its autograd slope", 1e-6),
        (lambda r: -(r**2), "decreases", 1e-6),
    ],
)
def test_refused_with_the_radius(function: Callable[[Tensor], Tensor], words: str, radius: float) -> None:
    """The fault is named, with the radius where it lies, to the grid's 5 %."""
    with pytest.raises(CurvatureError, match=words) as caught:
        Custom(function)
    assert caught.value.radius is not None
    assert caught.value.radius == pytest.approx(radius, rel=0.06)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda r: r.sum(), "elementwise"),
        (lambda r: r[:1], "elementwise"),
        (lambda r: 3.0, "elementwise|return value"),
        (lambda r: math.sqrt(r), "fails"),
        (lambda r: r.no_such_method(), "no_such_method"),
        (lambda r: r.cumsum(0) * r, "elementwise|convex|slope"),
    ],
)
def test_functions_that_are_not_elementwise(function: Callable, words: str) -> None:
    """A function must map a tensor to one of its shape, entry by entry."""
    with pytest.raises(CurvatureError, match=words):
        Custom(function)


@pytest.mark.parametrize("domain", [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf), (-1.0, 1.0)])
def test_domains(domain: tuple[float, float]) -> None:
    """A domain is two radii 0 < low < high < ∞."""
    with pytest.raises(CurvatureError, match="domain"):
        Custom(lambda r: r**2, domain=domain)


def test_slopes_at_the_ends() -> None:
    """H'(0+) and H'(∞) are those of the function: 0, 3 and ∞ for powers and lines, its asymptote for a hyperbola."""
    assert Custom(lambda r: r**2).initial_slope == pytest.approx(0.0, abs=1e-100)
    assert Custom(lambda r: r**2 + 3 * r).initial_slope == pytest.approx(3.0, rel=1e-14)
    assert Custom(lambda r: r**1.1).recession_slope == math.inf
    root = Custom(lambda r: r * r / (1 + (1 + r * r).sqrt()))
    assert root.recession_slope == pytest.approx(1.0, rel=1e-9)
    assert (2.0 * root.dilate(3.0)).recession_slope == pytest.approx(6.0, rel=1e-9)
    assert Custom(lambda r: r * r / (1 + (1 + r * r).sqrt()), limit_slope=1.0).recession_slope == 1.0
    assert (0.0 * root).recession_slope == 0.0


def test_refusals_name_the_family_that_serves() -> None:
    """A kink is one for icm.Kink, at its radius; values that end in ∞ or NaN are for icm.Wall."""
    with pytest.raises(CurvatureError, match=r"kink.*icm\.Kink\(radius, jump\)") as caught:
        Custom(lambda r: r**2 + 5 * (r - 1).clamp(min=0))
    assert caught.value.radius == pytest.approx(1.0, rel=1e-6)
    for end in (math.inf, math.nan):
        with pytest.raises(CurvatureError, match=r"icm\.Wall") as caught:
            Custom(lambda r, end=end: (r**2).masked_fill(r > 5, end))
        assert caught.value.radius == pytest.approx(5.0, rel=0.06)
    assert (Custom(lambda r: r**2) + Kink(1.0, 5.0) + Wall(5.0)).kinks == ((1.0, 5.0),)


def test_narrow_radii_have_slopes() -> None:
    """At r = 0 float32 radii give the slope that float64 ones give, not NaN."""
    H = Custom(lambda r: r * r.sqrt())
    assert float(H.slope(torch.zeros(1))) == pytest.approx(0.0, abs=1e-30)
    assert not bool(H.second(torch.zeros(1)).isnan().any())


def test_overflow_ends_the_check() -> None:
    """e^{r²} − 1 overflows inside the domain: it is checked as far as it goes, and usable there."""
    H = Custom(lambda r: torch.expm1(r * r))
    assert worst(H.slope(tensor(0.5, 2.0)), [math.exp(0.25), 4 * math.exp(4.0)]) < 1e-14
    assert H.recession_slope == math.inf


def test_it_says_what_was_checked() -> None:
    """The repr gives the grid and its range, the text name, scale and dilation."""
    H = 2.0 * Custom(lambda r: r**2, name="square", domain=(1e-3, 1e3)).dilate(0.5)
    assert str(H) == "2*square(0.5*r)"
    assert "601 radii in [0.002, 2000]" in repr(H)
    assert "not between" in repr(H)


def test_forms_that_were_not_given() -> None:
    """Without a cvxpy or sympy form the refusal says how to pass one."""
    H = Custom(lambda r: r**2, name="square") + Power(3.0)
    with pytest.raises(CurvatureError, match=r"'square'.*cvxpy_form"):
        H.cvxpy(1.0)
    with pytest.raises(CurvatureError, match=r"'square'.*sympy_form"):
        H.sympy(1.0)


def test_growth_on_the_grid() -> None:
    """The verdict on ψ is the grid's and says so."""
    assert Custom(lambda r: r**3).is_superquadratic()
    assert Custom(lambda r: r**3).is_superquadratic().how == "grid"
    assert not Custom(lambda r: r**1.5).is_superquadratic()
    assert not Custom(lambda r: r * r / (1 + (1 + r * r).sqrt())).is_superquadratic()
