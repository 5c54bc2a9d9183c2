"""Balls hold the exact result of every operation, whatever was rounded."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import mpmath
import torch
from hypothesis import given
from hypothesis import strategies as st

from icm.theory import Ball, Rigour, norm, stack

numbers = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-6)
radii = st.one_of(st.just(0.0), st.floats(1e-12, 1.0))


@st.composite
def operands(draw):
    """A ball of one element and an exact number inside it, as a Fraction."""
    middle, radius = draw(numbers), draw(radii)
    inside = Fraction(middle) + Fraction(radius) * Fraction(draw(st.integers(-16, 16)), 16)
    return Ball(torch.tensor([middle], dtype=torch.float64), torch.tensor([radius], dtype=torch.float64)), inside


def holds(ball: Ball, exact: Fraction) -> bool:
    middle, radius = float(ball.middle), float(ball.radius)
    return math.isinf(radius) or abs(Fraction(middle) - exact) <= Fraction(radius)


@given(operands(), operands())
def test_arithmetic_holds_the_exact_result(first, second):
    (x, a), (y, b) = first, second
    assert holds(x + y, a + b)
    assert holds(x - y, a - b)
    assert holds(x * y, a * b)
    assert holds(x.abs(), Fraction(abs(a)))
    assert holds(x.clamp(0.5), Fraction(max(a, Fraction(1, 2))))
    if b != 0:
        assert holds(x / y, a / b)
    assert x.lower <= float(a) <= x.upper
    assert holds(stack([x, y], 0).sum(0), a + b)
    assert holds(stack([x, y], 0).amin(0), Fraction(min(a, b)))
    assert holds(stack([x, y], 0).amax(0), Fraction(max(a, b)))


@given(operands(), st.sampled_from([0.5, 1.3, 2.0, -1.0, 7.5]))
def test_powers_and_roots_hold_the_exact_result(operand, p):
    x, a = operand
    if a <= 0:
        return
    with mpmath.workdps(40):
        exact = mpmath.mpf(a.numerator) / a.denominator
        for ball, value in ((x**p, exact**p), (x.sqrt(), mpmath.sqrt(exact))):
            if math.isfinite(float(ball.radius)):
                assert abs(mpmath.mpf(float(ball.middle)) - value) <= mpmath.mpf(float(ball.radius))


@given(st.lists(operands(), min_size=1, max_size=6))
def test_norms_hold_the_exact_result(items):
    ball = norm(stack([x[0] for x, _ in items], 0))
    with mpmath.workdps(40):
        exact = mpmath.sqrt(sum(mpmath.mpf(a.numerator) ** 2 / mpmath.mpf(a.denominator) ** 2 for _, a in items))
        assert abs(mpmath.mpf(float(ball.middle)) - exact) <= mpmath.mpf(float(ball.radius))


def test_a_divisor_that_may_be_zero_leaves_nothing_known():
    one = torch.ones(3, dtype=torch.float64)
    ball = Ball.of(one) / Ball(0.5 * one, torch.tensor([0.5, 1.0, 0.1], dtype=torch.float64))
    assert torch.isinf(ball.radius).tolist() == [True, True, False]


def test_bounds_that_are_infinite():
    infinite = torch.tensor([math.inf], dtype=torch.float64)
    for low, high in ((-infinite, infinite), (torch.zeros(1, dtype=torch.float64), infinite)):
        ball = Ball.between(low, high)
        assert torch.isinf(ball.radius).all()
        assert torch.isinf((ball - ball).radius).all()
        assert float(ball.upper) == math.inf


def test_nothing_to_reduce_is_nothing_known():
    empty = Ball.of(torch.zeros(2, 0, dtype=torch.float64))
    assert torch.isinf(empty.amin().radius).all()


def test_the_least_certain_operand_decides():
    x = torch.ones(2, dtype=torch.float64)
    certified = Ball(x, 0 * x, Rigour.CERTIFIED)
    exact = Ball.of(x)
    assert exact.rigour is Rigour.ENCLOSED
    for ball in (certified + exact, exact * certified, (exact / certified).sqrt(), stack([exact, certified]).sum()):
        assert ball.rigour is Rigour.CERTIFIED
    assert exact.where(x > 2, certified).rigour is Rigour.CERTIFIED


def test_grades_are_ordered():
    grades = list(Rigour)
    assert all(low < high for low, high in pairwise(grades))
    assert max(grades) is Rigour.PROVED
