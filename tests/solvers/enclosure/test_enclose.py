"""`enclose`: what it proves is true, narrow, and not fooled by a wrong solution."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from flint import arb, ctx
from hypothesis import given, settings
from torch import Tensor

import icm
from benchmarks import reference
from benchmarks.hinge_reference import hinge_reference
from icm import Custom, Exponential, Power, Solution
from icm.curvature import Curvature
from icm.curvature.kink import Kink
from icm.curvature.tabulated import Tabulated
from icm.curvature.wall import Wall
from icm.errors import InputError, MissingPackageError
from icm.program import Program
from icm.solvers.enclosure import Enclosure, Interval, enclose
from tests.solvers.problems import SMOOTH, matrix, rotation, seeds


def posed(G: Tensor, H: Curvature, Q: Tensor, sigma: Tensor) -> Solution:
    """A Solution that claims Q and sigma for G and H, right or wrong."""
    return replace(icm.solve(G, Power(2.0)), Q=Q, sigma=sigma, curvature=H)


def aligned(H: Curvature, g: list[float], sigma: list[float], m: int, n: int) -> Enclosure:
    """The enclosure for G = U diag(g) Vᵀ and Q = U diag(sigma) Vᵀ."""
    k = min(m, n)
    U, V = rotation(1, m)[:, :k], rotation(2, n)[:, :k]
    x, y = (torch.tensor(v, dtype=torch.float64) for v in (g, sigma))
    G = (U * x) @ V.T
    return enclose(posed(G, H, (U * y) @ V.T, y), G)


def diagonal(values: list[float]) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))


def width(x: Interval) -> float:
    return (x.upper - x.lower) / abs(x.lower)


def exact(values: Tensor) -> list[list[Fraction]]:
    return [[Fraction(x) for x in row] for row in values.tolist()]


def within(number: Fraction, x: Interval) -> bool:
    return Fraction(x.lower) <= number <= Fraction(x.upper)


def objective(G: Tensor, Q: Tensor, a: Fraction, b: Fraction) -> Fraction:
    """F(Q) for H = a r² + b r⁴ in rational numbers: E s = t₁/n, E s² = (t₁² + 2t₂)/(n(n+2))."""
    q, n = exact(Q), Q.shape[1]
    gram = [[sum((row[i] * row[j] for row in q), Fraction(0)) for j in range(n)] for i in range(n)]
    first = sum((gram[i][i] for i in range(n)), Fraction(0))
    second = sum((x * x for row in gram for x in row), Fraction(0))
    linear = sum((x * y for r, t in zip(exact(G), q, strict=True) for x, y in zip(r, t, strict=True)), Fraction(0))
    return a * first / n + b * (first * first + 2 * second) / (n * (n + 2)) - linear


def meets(optimum: Interval, solution: Solution) -> bool:
    """Whether F* can be in `optimum` and within the solution's own gap below its value, both ends to rounding."""
    value, gap = float(solution.value), float(solution.gap)
    return optimum.lower <= value + gap and value - gap <= optimum.upper


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (1, 1), (1, 4), (4, 1)])
def test_quadratic_and_quartic_in_rational_numbers(shape: tuple[int, int]) -> None:
    G, n = matrix(1, *shape), shape[1]
    H = 0.75 * Power(2.0) + 0.5 * Power(4.0)
    Q = icm.solve(G, H).Q
    found = enclose(replace(icm.solve(G, H), Q=Q), G)
    assert within(objective(G, Q, Fraction(0.75), Fraction(0.5)), found.value)
    found = enclose(icm.solve(G, Power(2.0, 0.75)), G)
    squares = sum((x * x for row in exact(G) for x in row), Fraction(0))
    assert within(-n * squares / 3, found.optimum)
    assert max(width(found.value), width(found.optimum)) < 1e-15


@pytest.mark.parametrize(
    ("name", "shape"), [*((name, (2, 3)) for name in SMOOTH), ("r^2.39", (3, 3)), ("r^2.39", (3, 2)), ("r^7", (1, 1))]
)
def test_smooth(name: str, shape: tuple[int, int]) -> None:
    """Narrow, in agreement with what the solver says of itself, and sharper; every σ by interval Newton."""
    G = matrix(2, *shape)
    solution = icm.solve(G, SMOOTH[name])
    found = enclose(solution, G)
    value, gap = float(solution.value), float(solution.gap)
    assert meets(found.optimum, solution)
    assert found.value.lower <= value + gap
    assert value - gap <= found.value.upper
    assert found.gap <= gap
    assert max(width(found.value), width(found.optimum)) < 1e-13
    assert set(found.how) == {"interval Newton"}
    for x, sigma in zip(found.sigma, solution.sigma.tolist(), strict=True):
        assert width(x) < 1e-13
        assert abs(sigma - x.lower) < 1e-4 * sigma


@pytest.mark.parametrize("p", [1.5, 2.39, 7.0])
def test_optimum_against_fifty_digits(p: float) -> None:
    """At the floats nearest σ*, F is F* up to the square of their rounding; and it is stationary there."""
    g = [3.0, 2.0, 0.5]
    found = enclose(icm.solve(diagonal(g), Power(p)), diagonal(g))
    sigma = [x.lower for x in found.sigma]
    with ctx.workprec(200):
        row = reference.power_table(sigma, 3, [p])[0]
        value = row[0] - sum((arb(x) * arb(y) for x, y in zip(g, sigma, strict=True)), arb(0))
        assert found.optimum.lower <= value
        assert value <= arb(found.optimum.upper) + 1e-28
        for slope, x in zip(row[1:], g, strict=True):
            assert abs(slope - x) < 1e-13


def test_one_input() -> None:
    """n = 1: F* = −H*(‖G‖). For H = r³/3 and ‖G‖ = 1/4 that is −(2/3)/8, at σ = 1/2."""
    G = torch.tensor([[0.25]], dtype=torch.float64)
    found = enclose(icm.solve(G, Power(3.0, 1 / 3)), G)
    assert abs(found.optimum.lower + 1 / 12) < 1e-15
    assert found.sigma[0].lower <= 0.5 + 1e-15
    assert found.sigma[0].upper >= 0.5 - 1e-15


def test_low_precision_answers() -> None:
    """A float32 Q is taken as it is: its gap is real, and the optimum as sharp as ever."""
    G = matrix(3, 3, 4).float()
    found = enclose(icm.solve(G, Power(3.0)), G)
    assert 1e-16 < found.gap < 1e-12
    assert width(found.optimum) < 1e-15
    held = enclose(icm.solve(G, Power(2.0, 0.5) + Wall(0.01)))
    assert held.how == ("wall",) * 3
    assert 0 < held.gap < 1e-6 * abs(held.optimum.lower)


# Kinks and walls


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 3), (2, 3), (5, 3)])
def test_off_the_radius_of_a_kink(m: int, n: int) -> None:
    """Any σ̃, with the g that it is stationary for to rounding."""
    H, k = Power(2.0, 0.3) + Kink(1.0, 5.0), min(m, n)
    sigma = [1.25, 0.75, 0.5][:k]
    slopes = icm.sphere.slopes(Power(2.0, 0.3), sigma, n).tolist()
    kink = hinge_reference(sigma, n, 1.0).weights.tolist()  # ∂E(r − 1)₊/∂σ_i = 2σ_i w_i
    g = [a + 10 * x * w for a, x, w in zip(slopes, sigma, kink, strict=True)]
    found = aligned(H, g, sigma, m, n)
    assert width(found.value) < 1e-13
    assert width(found.optimum) < 1e-13
    assert found.gap < 1e-20
    assert set(found.how) == {"interval Newton"}
    for x, y in zip(found.sigma, sigma, strict=True):
        assert abs(x.lower - y) < 1e-12


@pytest.mark.parametrize(
    ("g", "m"), [([1.2, 1.0], 2), ([1.3, 0.35], 2), ([1.0, 0.8, 0.6], 3), ([1.0, 0.8, 0.35], 5), ([0.9, 0.31], 2)]
)
def test_held_by_a_kink(g: list[float], m: int) -> None:
    """σ* = c·1 is proved, and F* = H(c) − cΣg; A = 0.6 and B = 5.6."""
    H, n = Power(2.0, 0.3) + Kink(1.0, 5.0), len(g)
    found = aligned(H, g, [1.0] * n, m, n)
    assert set(found.how) == {"exact"}
    assert found.sigma == (Interval(1.0, 1.0),) * n
    assert found.optimum.lower == pytest.approx(0.3 - sum(g), abs=1e-14)
    assert found.gap < 1e-13


@pytest.mark.parametrize("g", [[1.2, 0.29], [2.9, 0.31], [2.81, 2.0]])
def test_not_held_by_a_kink(g: list[float]) -> None:
    """n g_min < A or n g_max > B: c·UVᵀ is not optimal, and its proved gap does not vanish."""
    H = Power(2.0, 0.3) + Kink(1.0, 5.0)
    found = aligned(H, g, [1.0, 1.0], 2, 2)
    assert "exact" not in found.how
    assert found.gap > 1e-5
    assert found.optimum.lower < found.value.lower


def test_a_kink_holds_a_single_number() -> None:
    """n = 1: σ* = c exactly for A < g < B."""
    G = torch.tensor([[2.0]], dtype=torch.float64)
    found = enclose(posed(G, Kink(1.0, 3.0), torch.ones_like(G), torch.ones(1, dtype=torch.float64)), G)
    assert found.how == ("exact",)
    assert found.optimum == Interval(-2.0, -2.0)
    assert found.gap == 0


@pytest.mark.parametrize("n", [2, 4])
def test_wall_alone(n: int) -> None:
    """F* = −r̃ Σ g, at σ = r̃·1; a Q that passes the wall by rounding is shrunk, and says by how much."""
    g, radius = [2.0, 1.5], 0.75
    found = aligned(Wall(radius), g, [radius] * 2, 2, n)
    assert found.optimum.lower == pytest.approx(-radius * sum(g), abs=1e-14)
    assert found.how == ("wall", "wall")
    assert found.sigma == (Interval(radius, radius),) * 2
    assert 0 <= found.shrink < 1e-14
    assert found.gap < 1e-13
    Q = 1.5 * radius * torch.eye(2, dtype=torch.float64)
    found = enclose(posed(diagonal(g), Wall(radius), Q, torch.full((2,), radius, dtype=torch.float64)), diagonal(g))
    assert found.shrink == pytest.approx(1 / 3)
    assert "which the wall allows" in str(found)


def test_wall_with_a_zero_of_g() -> None:
    """What multiplies g = 0 may be anything up to the wall; the others are at it."""
    found = enclose(icm.solve(diagonal([2.0, 1.0, 0.0]), Wall(0.5)), diagonal([2.0, 1.0, 0.0]))
    assert found.how == ("wall", "wall", "none")
    assert found.sigma[2] == Interval(0.0, 0.5)
    assert found.optimum.upper == pytest.approx(-1.5, abs=1e-14)


def test_finite_slope_at_infinity() -> None:
    """H′ ends at 4: ρ comes from the dual of E‖Qζ‖ where ‖g‖₂ > 4 κ_n."""
    G = (rotation(3, 4) * torch.tensor([1.2, 0.5, 0.4, 0.3], dtype=torch.float64)) @ rotation(4, 4)
    solution = icm.solve(G, Power(1.0) + Kink(0.5, 3.0))
    found = enclose(solution, G)
    assert meets(found.optimum, solution)
    assert width(found.optimum) < 1e-13


def test_wall_for_some() -> None:
    """H = r² up to 1: σ_i = min(n g_i/2, 1), so that F* = Σ (σ_i²/n − g_i σ_i)."""
    g = [2.0, 1.0, 0.25]
    sigma = [1.0, 1.0, 0.375]
    found = aligned(Power(2.0) + Wall(1.0), g, sigma, 3, 3)
    assert found.how == ("wall", "wall", "interval Newton")
    assert found.sigma[2].lower == pytest.approx(0.375, abs=1e-14)
    exact_value = sum(s * s / 3 - x * s for s, x in zip(sigma, g, strict=True))
    assert found.optimum.lower == pytest.approx(exact_value, abs=1e-14)


def test_tabulated() -> None:
    """A table of r² is not r², but its enclosure holds the objective at Q, and random points are not below it."""
    H = Tabulated([0.0, 0.5, 1.0, 2.0], [0.0, 0.25, 1.0, 4.0]) + Power(3.0)
    found = aligned(H, [1.0, 0.5], [0.8, 0.5], 2, 2)
    angle = torch.linspace(0, math.pi, 20001, dtype=torch.float64)[:-1]
    r = ((0.8 * angle.cos()) ** 2 + (0.5 * angle.sin()) ** 2).sqrt()
    assert found.value.lower == pytest.approx(float(H(r).mean()) - 0.8 - 0.25, abs=1e-8)
    assert found.optimum.upper < found.value.lower
    assert width(found.optimum) < 1e-12
    assert set(found.how) == {"interval Newton"}


# Q = 0, zeros of G


def test_zero_is_the_answer() -> None:
    """g inside the dual ball of H′(0+): Q* = 0 exactly, and F* = 0."""
    G = 0.05 * matrix(4, 3, 3)
    found = enclose(icm.solve(G, Power(1.0) + Exponential(1.0)), G)
    assert found.how == ("exact",) * 3
    assert found.optimum == Interval(0.0, 0.0) == found.sigma[0]
    assert found.gap == 0
    found = enclose(icm.solve(torch.zeros(2, 3, dtype=torch.float64), Power(3.0)), torch.zeros(2, 3))
    assert found.optimum == found.value == Interval(0.0, 0.0)


@pytest.mark.parametrize("p", [1.3, 2.5])
def test_rank_deficient(p: float) -> None:
    """The values at which g vanishes are held below rounding, the others as sharply as always."""
    G = matrix(5, 3, 2) @ matrix(6, 2, 4)
    found = enclose(icm.solve(G, Power(p)), G)
    assert set(found.how) == {"interval Newton"}
    assert found.sigma[2].lower == 0
    assert found.sigma[2].upper < 1e-11 * found.sigma[0].lower
    assert width(found.sigma[0]) < 1e-12
    assert width(found.optimum) < 1e-13


# A checker is itself tested on something false.


def test_a_moved_answer_is_found_out() -> None:
    G = matrix(7, 3, 3)
    right = icm.solve(G, Power(2.5))
    wrong = replace(right, Q=right.Q + 1e-6 * matrix(8, 3, 3))
    honest, found = enclose(right, G), enclose(wrong, G)
    assert found.value.lower > found.optimum.upper
    assert found.gap > 1e-13 > honest.gap
    assert found.optimum == honest.optimum


def test_a_wrong_claim_is_refuted() -> None:
    """A value and gap that do not belong to Q miss the enclosure."""
    G = matrix(9, 2, 3)
    solution = icm.solve(G, Power(2.5))
    claimed = float(solution.value) - 1e-6
    assert enclose(solution, G).value.lower > claimed + float(solution.gap)


@pytest.mark.parametrize("factor", [0.0, 5.0])
def test_a_bad_guess_costs_width_not_truth(factor: float) -> None:
    """`sigma` only guides: with a wrong one the bounds still hold the true optimum."""
    G = matrix(10, 2, 2)
    right = icm.solve(G, Power(2.5))
    honest, misled = enclose(right, G), enclose(replace(right, sigma=factor * right.sigma), G)
    assert misled.optimum.lower <= honest.optimum.upper
    assert misled.optimum.upper >= honest.optimum.lower
    assert misled.value == honest.value


@settings(max_examples=6)
@given(seeds)
def test_nothing_is_below_the_optimum(seed: int) -> None:
    """F at the solution and at a random point, by the library, is above the proved lower bound of F*; the solver's
    interval meets the enclosure."""
    shape = (1 + seed % 3, 1 + seed // 3 % 3)
    H = list(SMOOTH.values())[seed // 9 % len(SMOOTH)]
    G = matrix(seed, *shape)
    solution = icm.solve(G, H)
    found = enclose(solution, G)
    assert meets(found.optimum, solution)
    other = solution.Q + 0.1 * float(solution.Q.abs().max()) * matrix(seed + 1, *shape)
    assert float(Program(G, H).objective(other)) > found.optimum.lower
    assert found.gap <= found.value.upper - found.optimum.lower + 1e-300
    assert found.value.lower <= float(solution.value + solution.gap)


# Use


def test_reports() -> None:
    G = matrix(11, 2, 2)
    found = enclose(icm.solve(G, Power(3.0)), G)
    text = str(found)
    assert "F*" in text
    assert "proved" in text
    assert "interval Newton" in text
    fields = json.loads(json.dumps(found.to_dict()))
    assert fields["gap"] == found.gap
    assert fields["optimum"] == list(found.optimum)
    assert len(fields["sigma"]) == 2


def test_the_solution_keeps_its_gradient() -> None:
    solution = icm.solve(matrix(12, 2, 2), Power(3.0))
    assert enclose(solution) == enclose(solution, matrix(12, 2, 2))
    with pytest.raises(InputError, match="keep its G"):
        enclose(replace(solution, gradient=None))


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    G = matrix(12, 2, 2)
    solution = icm.solve(G, Power(3.0))
    with pytest.raises(InputError, match="one at a time"):
        enclose(icm.solve(matrix(13, 4, 2, 2), Power(3.0)), G)
    with pytest.raises(InputError, match="unbounded"):
        enclose(icm.solve(100 * G, Power(1.0)), G)
    with pytest.raises(InputError, match="Custom"):
        enclose(icm.solve(G, Custom(lambda r: r**2 + r**4) + Power(2.0)), G)
    with pytest.raises(InputError, match="shape"):
        enclose(solution, matrix(14, 2, 3))
    with pytest.raises(InputError, match="not finite"):
        enclose(replace(solution, Q=solution.Q * math.nan), G)
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(MissingPackageError, match="python-flint"):
        enclose(solution, G)


@pytest.mark.long
@pytest.mark.parametrize("n", [64, 128])
def test_wide_layers(n: int) -> None:
    G = matrix(15, n, n)
    for H in (Power(2.5), Power(2.0, 0.1) + Kink(0.5, 4.0)):
        sigma = icm.solve(G, Power(2.5)).sigma
        found = (
            enclose(icm.solve(G, Power(2.5)), G)
            if isinstance(H, Power)
            else aligned(H, (0.5 * sigma).tolist(), (sigma / sigma.amax()).tolist(), n, n)
        )
        assert width(found.value) < 1e-12
        assert math.isfinite(found.optimum.lower)


@pytest.mark.long
@pytest.mark.parametrize("p", [1.05, 1.3, 3.0, 10.0])
def test_ten_decades(p: float) -> None:
    """A condition number of 1e10."""
    G = (rotation(1, 8) * torch.logspace(0, -10, 8, dtype=torch.float64)) @ rotation(2, 8)
    found = enclose(icm.solve(G, Power(p), on_failure="return"), G)
    assert width(found.optimum) < 1e-13
    assert set(found.how) == {"interval Newton"}
