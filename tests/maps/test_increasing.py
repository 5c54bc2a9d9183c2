"""The best increasing factors: no linear program or composition does better, and that they increase is exact."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.errors import InputError
from icm.maps.composition import Composition
from icm.maps.increasing import best_composition, best_increasing, gain_at_zero, nonnegative, slope_polynomial
from icm.maps.remez import taylor

LOWERS = (1e-8, 1e-3, 0.05, 0.3, 0.7, 0.95)


def exact(factor, x: Fraction) -> Fraction:
    return x * sum(Fraction(c) * x ** (2 * i) for i, c in enumerate(factor))


@pytest.mark.parametrize("degree", [3, 5, 7, 9])
@pytest.mark.parametrize("lower", [0.02, 0.1, 0.4, 0.7])
def test_a_linear_program_finds_no_better_factor(degree: int, lower: float) -> None:
    """max p(lower) over q with ∫ q(x²) = 1 and q ≥ 0 at 4000 points: a relaxation, so no less, and nearly the same."""
    from scipy.optimize import linprog

    powers = 2 * np.arange(degree // 2 + 1) + 1
    y = np.sin(np.linspace(0, np.pi / 2, 4000)) ** 2
    found = linprog(
        -(lower**powers) / powers,
        A_ub=-(y[:, None] ** np.arange(len(powers))),
        b_ub=np.zeros(len(y)),
        A_eq=[1 / powers],
        b_eq=[1.0],
        bounds=[(None, None)] * len(powers),
    )
    factor, reached = best_increasing(lower, degree)
    assert found.success
    assert reached <= -found.fun * (1 + 1e-9)
    assert reached == pytest.approx(-found.fun, rel=1e-5)
    assert float(exact(factor, Fraction(lower))) == pytest.approx(reached, rel=1e-12)


@pytest.mark.parametrize("degree", [3, 5, 7, 9, 13])
@pytest.mark.parametrize("lower", [*LOWERS, 1 - 1e-6, 1.0])
def test_that_it_increases_is_exact(degree: int, lower: float) -> None:
    factor, reached = best_increasing(lower, degree)
    assert nonnegative(slope_polynomial(factor), Fraction(1))
    assert 1 - Fraction(1, 10**11) <= exact(factor, Fraction(1)) <= 1
    assert reached >= exact(tuple(map(Fraction, taylor(degree // 2))), Fraction(lower)) - 1e-12


def test_the_shapes_of_the_extremes() -> None:
    """Degree 3: 1.5x − .5x³; degrees 5 and 9: q a square; degree 7: a square times 1 − y."""
    assert best_increasing(0.01, 3)[0] == pytest.approx((1.5, -0.5))
    for degree, zeros in ((5, 2), (9, 4)):
        q = [float(c) for c in slope_polynomial(best_increasing(0.2, degree)[0])]
        roots = np.sort_complex(np.polynomial.polynomial.polyroots(q))
        assert len(roots) == zeros
        np.testing.assert_allclose(roots[::2].real, roots[1::2].real, atol=1e-5)
        assert ((roots.real > 0) & (roots.real < 1)).all()
    q = [float(c) for c in slope_polynomial(best_increasing(0.2, 7)[0])]
    roots = np.sort(np.polynomial.polynomial.polyroots(q).real)
    assert roots[2] == pytest.approx(1, abs=1e-9)
    assert roots[0] == pytest.approx(roots[1], abs=1e-5)


def test_the_gain_at_zero_is_a_christoffel_function() -> None:
    from scipy.special import eval_legendre

    for degree in (5, 9, 13, 17):
        terms = [(4 * i + 1) * eval_legendre(2 * i, 0.0) ** 2 for i in range(degree // 4 + 1)]
        assert gain_at_zero(degree) == pytest.approx(sum(terms), rel=1e-10)
    assert [gain_at_zero(d) for d in (3, 5, 7, 9)] == pytest.approx([3 / 2, 9 / 4, 45 / 16, 225 / 64], rel=1e-12)


@pytest.mark.parametrize("degree", [3, 5, 7, 9])
def test_no_step_gains_more_than_at_zero(degree: int) -> None:
    """And the step of the proof: of all q ≥ 0 of unit integral none is larger anywhere in y ≤ 1/gain² than at 0."""
    from scipy.optimize import linprog

    gain = gain_at_zero(degree)
    for lower in np.geomspace(1e-9, 1, 60):
        assert best_increasing(float(lower), degree)[1] <= gain * lower * (1 + 1e-12)
    powers = 2 * np.arange(degree // 2 + 1) + 1
    grid = np.sin(np.linspace(0, np.pi / 2, 2000)) ** 2
    for y in np.linspace(0, gain**-2, 6):
        found = linprog(
            -(y ** np.arange(len(powers))),
            A_ub=-(grid[:, None] ** np.arange(len(powers))),
            b_ub=np.zeros(len(grid)),
            A_eq=[1 / powers],
            b_eq=[1.0],
            bounds=[(None, None)] * len(powers),
        )
        assert -found.fun <= gain * (1 + 1e-4)


roots_of = st.lists(st.tuples(st.fractions(0, 1, max_denominator=50), st.integers(1, 3)), max_size=2)


@settings(max_examples=60)
@given(roots_of, roots_of, st.floats(1e-3, 1.0), st.sampled_from([(5, 5), (9, 9), (7, 5)]))
def test_no_other_increasing_composition_reaches_further(first, second, lower, degrees) -> None:
    """Two factors whose slopes are products of squares, with the same degrees or less, against the greedy choice."""
    reached = lower
    for roots, degree in zip((first, second), degrees, strict=True):
        q = np.array([1.0])
        for zero, _ in roots[: (degree - 1) // 4]:
            q = np.polynomial.polynomial.polymul(q, [float(zero) ** 2, -2 * float(zero), 1.0])
        powers = 2 * np.arange(len(q)) + 1
        reached = float((q / powers * reached**powers).sum() / (q / powers).sum())
    best = lower
    for degree in degrees:
        best = best_increasing(best, degree)[1]
    assert reached <= best * (1 + 1e-12)


@given(
    roots_of, st.sampled_from([-1, 1]), st.fractions(-3, 3, max_denominator=9), st.fractions(0, 2, max_denominator=9)
)
def test_signs_are_decided_exactly(roots, sign, outside, square) -> None:
    """Products of (y − z)^m over zeros in [0, 1], times a factor without any there, whose sign is known."""
    q, top = (Fraction(sign),), Fraction(1)
    factors: list[tuple[Fraction, ...]] = [(-z, Fraction(1)) for z, m in roots for _ in range(m)]
    factors.append((Fraction(1) + abs(outside), Fraction(1)))  # no zero in [0, 1]
    factors.append((square + Fraction(1, 7), Fraction(0), Fraction(1)))
    for f in factors:
        q = tuple(
            sum((q[i] * f[n - i] for i in range(len(q)) if 0 <= n - i < len(f)), Fraction(0))
            for n in range(len(q) + len(f) - 1)
        )
    order: dict[Fraction, int] = {}
    for z, m in roots:
        order[z] = order.get(z, 0) + m
    changes = any(0 < z < 1 and m % 2 for z, m in order.items())
    above = sum(m for z, m in order.items() if z == 1)  # zeros at 1 turn the sign of all that is left of it
    assert nonnegative(q, top) is (not changes and (sign > 0) is ((above + sum(
        m for z, m in order.items() if 0 < z < 1
    )) % 2 == 0))  # fmt: skip


def test_rounding_alone_would_not_increase() -> None:
    """What the exact test is for: a double zero 1e−17 too low is seen, and one lifted by 1e−17 is not."""
    square = (Fraction(9, 25), Fraction(-6, 5), Fraction(1))
    assert nonnegative(square, Fraction(1))
    assert not nonnegative((square[0] - Fraction(1, 10**17), *square[1:]), Fraction(1))
    assert nonnegative((square[0] + Fraction(1, 10**17), *square[1:]), Fraction(1))
    assert nonnegative((), Fraction(1))
    assert not nonnegative((Fraction(-1),), Fraction(1))
    assert nonnegative((Fraction(1), Fraction(-1)), Fraction(1))
    assert not nonnegative((Fraction(1), Fraction(-1)), Fraction(11, 10))


def test_a_composition_is_centred_and_covers_the_top() -> None:
    import torch

    for top in (1.0, 1.01):
        p = best_composition(0.02, (5, 7, 5), top)
        assert isinstance(p, Composition)
        assert p.degrees == (5, 7, 5)
        ends = p(torch.tensor([0.02, top], dtype=torch.float64)).tolist()
        assert 1 - ends[0] == pytest.approx(ends[1] - 1, abs=1e-13)
        x = torch.linspace(0, top, 20001, dtype=torch.float64)
        assert float(p.slope(x).min()) >= -1e-13  # the rounding of this evaluation


def test_what_cannot_be_used_is_named() -> None:
    for lower in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="lower="):
            best_increasing(lower, 5)
    with pytest.raises(InputError, match="degree=6"):
        best_increasing(0.1, 6)
    with pytest.raises(InputError, match="degrees"):
        best_composition(0.1, ())
