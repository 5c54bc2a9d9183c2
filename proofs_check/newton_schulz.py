"""The usual Newton–Schulz quintic is not monotone, so that it does not keep the order of singular values.

p(x) = 3.4445x − 4.7750x³ + 2.0315x⁵ acts on every singular value in [0, 1]; Muon applies it five times. One exact pair
x < y with p(x) > p(y) refutes monotonicity. Source: Jordan et al., Muon (2024), for the coefficients; Su, arXiv
2511.00674, for the observation.
"""

from __future__ import annotations

from fractions import Fraction

from proofs_check.algebra import truth
from proofs_check.proof import Proof
from proofs_check.step import Kind, Step

QUINTIC = (Fraction(34445, 10000), Fraction(-47750, 10000), Fraction(20315, 10000))
CUBIC = (Fraction(3, 2), Fraction(-1, 2), Fraction(0))


def image(x: Fraction, coefficients: tuple[Fraction, ...], times: int) -> Fraction:
    """p∘…∘p at x, exactly."""
    a, b, c = coefficients
    for _ in range(times):
        square = x * x
        x = x * (a + square * (b + square * c))
    return x


def out_of_order(x: Fraction, y: Fraction, times: int = 1, coefficients: tuple[Fraction, ...] = QUINTIC) -> str:
    """0 ≤ x < y ≤ 1 and p(x) > p(y) after `times` applications, in rational arithmetic."""
    truth(0 <= x < y <= 1, f"0 ≤ {x} < {y} ≤ 1")
    left, right = image(x, coefficients, times), image(y, coefficients, times)
    truth(left > right, f"p({x}) = {float(left):.6f} > p({y}) = {float(right):.6f} after {times}")
    return f"p({x}) = {float(left):.6f} > p({y}) = {float(right):.6f} after {times}"


def once() -> str:
    return out_of_order(Fraction(11, 20), Fraction(1))


def five_times() -> str:
    return out_of_order(Fraction(1, 10), Fraction(1), 5)


def normalised(times: int = 5) -> str:
    """5/13 and 12/13, whose squares sum to 1, as do the singular values of G/‖G‖_F."""
    x, y = Fraction(5, 13), Fraction(12, 13)
    truth(x * x + y * y == 1, "x² + y² = 1")
    return out_of_order(x, y, times)


NEWTON_SCHULZ = Proof(
    "newton-schulz-monotone",
    "x ↦ 3.4445x − 4.7750x³ + 2.0315x⁵ is nondecreasing on [0, 1], once or five times.",
    "refuted in Su, arXiv 2511.00674; docs/theory.md, section 7",
    (
        Step("once", Kind.EXACT, "x = 11/20 < y = 1 have p(x) > p(y).", once),
        Step("five-times", Kind.EXACT, "x = 1/10 < y = 1 are out of order after five applications.", five_times),
        Step("normalised", Kind.EXACT, "5/13 and 12/13, the singular values of a G/‖G‖_F, after five.", normalised),
    ),
    refutes=True,
)
PROOFS = (NEWTON_SCHULZ,)
