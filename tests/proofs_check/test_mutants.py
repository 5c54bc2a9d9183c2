"""The checkers are fed statements that are false, and must say so: each mutant is a step with one thing changed."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from proofs_check import (
    alignment,
    balls,
    cap,
    certificate,
    concentration,
    convexity,
    homogenisation,
    kink,
    moments,
    newton_schulz,
    norms,
    quartic,
    sphere,
    stationarity,
    threshold,
    wall,
    wide,
)
from proofs_check.algebra import nonnegative, positive, positives, reals, zero
from proofs_check.step import Failed

MUTANTS: dict[str, Callable[[], str]] = {
    "E ζ⁴ = 2/(n(n+2))": lambda: sphere.low_moments(same_place=2),
    "E ζ_i²ζ_j² = 2/(n(n+2))": lambda: sphere.low_moments(other_place=2),
    "E z^{2k} = 3^k (1/2)_k": lambda: sphere.gaussian_moments(3),
    "E s² from t₁² + t₂": lambda: sphere.squared_form(-1),
    "ζ_i² of shape 1": lambda: sphere.dirichlet_density(1),
    "half of Cauchy and Schwarz": lambda: convexity.cauchy_schwarz(3),
    "‖p + q‖ above": lambda: convexity.triangle(-1),
    "convexity with a slack's sign turned": lambda: convexity.slacks(-1),
    "ab ≤ (a² + b²)/3": lambda: alignment.products(3),
    "rows that sum to 0": lambda: alignment.row_sums(0),
    "rearrangement the wrong way": lambda: alignment.rearrangement(-1),
    "block sums less 1": lambda: alignment.by_summation(3, -1),
    "not rotations": lambda: alignment.rotations(-1),
    "∂h/∂σ = σζ²ψ": lambda: stationarity.gradient(1),
    "the i-th parameter raised by 2": lambda: stationarity.tilt(2),
    "B ~ Beta(1, n/3)": lambda: stationarity.beta_moments(3),
    "(1−x)^{−1/2} times (1−x)^{−2}": lambda: stationarity.mixture(2),
    "R of x² with B ~ Beta(1, n)": lambda: stationarity.on_powers(3, 2, 1),
    "x/ρ falls": lambda: stationarity.radius(-1),
    "H′ falls": lambda: stationarity.product(-1),
    "s − s′ with the other sign": lambda: homogenisation.swap(-1),
    "the exchange symmetrised with a minus": lambda: homogenisation.symmetrise(-1),
    "homogenisation by a falling ψ": lambda: homogenisation.pointwise(-1, rising=True),
    "reversal by a rising ψ": lambda: homogenisation.pointwise(1, rising=False),
    "σ ratio above g ratio": lambda: homogenisation.ratio(-1),
    "Q* = 2nG/2c": lambda: quartic.completed_square(2),
    "E ζ_iζ_j is not 0": lambda: quartic.second_moment(1),
    "n + 1 in the quartic": lambda: quartic.equation(shift=1),
    "4c in the quartic": lambda: quartic.equation(scale=4),
    "E s² counted with 2t₁²": lambda: quartic.fourth_power(3, 2),
    "w_1 ≤ w_2 for a rising ψ": lambda: homogenisation.on_powers(3, 2, -1),
    "(1)_k for (½)_k": lambda: moments.one_place(2),
    "a series that skips": lambda: stationarity.series(2),
    "dX dY = R² dR db": lambda: wide.volume(2),
    "a trace with a minus": lambda: alignment.entry_sums(2, -1),
    "a root that falls too slowly": lambda: quartic.one_root(4),
    "|2sψ′/ψ| ≤ b taken as |sψ′/ψ|": lambda: cap.shift(1),
    "J from e < 0": lambda: kink.enough(-1),
    "E s³ with 7t₃": lambda: moments.low_powers(eight=7),
    "E s³ with 3t₁t₂": lambda: moments.low_powers(six=3),
    "(n+1)/2 under E s^q": lambda: moments.counted(3, 2, 1),
    "a recursion without the half": lambda: moments.recursion(1),
    "Stein's identity with a minus": lambda: cap.by_parts(-1),
    "z e^{−z²/2} with a minus": lambda: cap.density(-1),
    "Stein's identity without its 2": lambda: cap.on_powers(3, 2, 1),
    "α/2 for α in (n+α)w": lambda: cap.power_weights(2),
    "a cap of 1 + α/2": lambda: cap.ratio(1, 2),
    "a floor of 1 + α/2": lambda: cap.ratio_reversed(1, 2),
    "elasticity without its 2": lambda: cap.elasticity(1),
    "α + β for α − β": lambda: cap.general_weights(-1),
    "E|ζ|^α at α = −2": lambda: cap.integrable(2),
    "in balls, a cap of 1 + α/4": lambda: balls.ratio_below(Fraction(1, 4)),
    "1/(n+2) for 2/(n+2)": lambda: concentration.variance(1),
    "p_i above p_1": lambda: concentration.difference(-1),
    "s^{a−1} falls up to a = 2": lambda: concentration.lowered(2),
    "e_j below e_1": lambda: concentration.top_share(-1),
    "Kantorovich with 5ab": lambda: concentration.reverse_holder(5),
    "1 − cos ≤ ε²/9": lambda: concentration.small_angle(9),
    "in balls, a spread of α/4srank": lambda: balls.spread_below(Fraction(1, 4)),
    "the length moves twice as fast": lambda: kink.direction(2),
    "a kink without its jump": lambda: kink.one_sided(0),
    "ξ beyond B": lambda: kink.support(-1),
    "unequal g without a jump": lambda: kink.flat_slopes(1),
    "n + 1 in ξ": lambda: threshold.closed_form(1),
    "n + 1 in ξ, counted": lambda: threshold.counted(4, 1),
    "A above ξ": lambda: threshold.bracket(-1),
    "g + A/n": lambda: threshold.rearranged(-1),
    "an angle of 3π": lambda: threshold.two_dimensions(3),
    "in balls, J less 1%": lambda: balls.duality(Fraction(101, 100)),
    "a Beta law without Jacobian": lambda: wide.beta_law(0),
    "s without symmetry": lambda: wide.equal_slopes(1),
    "σ beyond the wall": lambda: wall.box(-1),
    "g below ∇f at the wall": lambda: wall.upper_corner(-1),
    "derivatives that grow": lambda: wall.one_direction(-1),
    "N_p homogeneous of degree 2": lambda: norms.homogeneous(2),
    "N_p falls": lambda: norms.convex_power(-1),
    "(N†/cp)^{2/(p−1)}": lambda: norms.best_length(2),
    "F* = +(p−1)/p ⟨G, Q*⟩": lambda: norms.value(-1),
    "a gap with the terms exchanged": lambda: certificate.split(-1),
    "x₊ below x": lambda: certificate.positive_part(-1),
    "ρ below ‖σ*‖": lambda: certificate.reach_of(-1),
    "Gaussian of variance ½": lambda: certificate.mean_length(1),
    "a pair in order": lambda: newton_schulz.out_of_order(Fraction(1, 10), Fraction(1, 5)),
    "the monotone cubic": lambda: newton_schulz.out_of_order(Fraction(11, 20), Fraction(1), 5, newton_schulz.CUBIC),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_false_statement_is_caught(name: str) -> None:
    with pytest.raises(Failed):
        MUTANTS[name]()


def test_the_remainder_is_named() -> None:
    with pytest.raises(Failed, match=r"E ζ_i⁴: .*n.* should vanish"):
        sphere.low_moments(same_place=2)


def test_a_sign_that_is_not_plain_is_not_assumed() -> None:
    (x,) = reals("x")
    a, b = positives("a b")
    for expression in (x, a - b, x**2 - a, x**2 - 2 * x):
        with pytest.raises(Failed):
            nonnegative(expression, "a sign")
    with pytest.raises(Failed):
        positive(x**2, "a square may vanish")
    with pytest.raises(Failed):
        zero(x**2 - x, "x = 0 and x = 1 alone")
    assert nonnegative(x**2 - 2 * x + 1, "a square") == "a square"
