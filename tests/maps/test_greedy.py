"""The best compositions for the polar factor: published coefficients, measured errors, and what stays bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from icm.errors import InputError
from icm.maps.certificate import is_increasing
from icm.maps.composition import Composition
from icm.maps.greedy import best_error, best_polar, steps_needed
from icm.maps.iterations import POLAR_EXPRESS_RAW

CASES = [(1e-3, (5,) * 5), (1e-2, (3,) * 6), (1e-4, (7,) * 5), (1e-3, (9,) * 3), (0.05, (3, 5, 7)), (0.5, (5,))]


def grid(lower: float, upper: float = 1.0, count: int = 40_001) -> torch.Tensor:
    return torch.cat(
        [torch.logspace(float(np.log10(lower)), float(np.log10(upper)), count, dtype=torch.float64).clamp(lower, upper),
         torch.linspace(lower, upper, count, dtype=torch.float64)]
    )  # fmt: skip


def measured(p: Composition, lower: float) -> float:
    return float((p(grid(lower)) - 1).abs().max())


def test_polar_express_as_published() -> None:
    """All eight factors of arXiv 2505.16932, with its cushion; the seventh is known to 1e−11, the rest to 1e−14."""
    p = best_polar(1e-3, (5,) * 8, monotone=False, margin=0, cushion=0.02407327424182761)
    for ours, published in zip(p.factors[:6], POLAR_EXPRESS_RAW[:6], strict=True):
        np.testing.assert_allclose(ours, published, rtol=1e-13)
    np.testing.assert_allclose(p.factors[6:], POLAR_EXPRESS_RAW[6:], rtol=1e-10)


@pytest.mark.parametrize(("lower", "degrees"), CASES)
@pytest.mark.parametrize("monotone", [True, False])
def test_the_error_is_what_was_promised(lower: float, degrees: tuple[int, ...], monotone: bool) -> None:
    best = best_error(lower, degrees, monotone)
    exact = best_polar(lower, degrees, monotone, margin=0)
    assert exact.degrees == degrees
    assert measured(exact, lower) == pytest.approx(best, rel=1e-5, abs=1e-13)
    assert is_increasing(exact) is monotone or exact.degrees == (5,)
    safe = best_polar(lower, degrees, monotone)
    assert measured(safe, lower) <= best_error(lower / 1.01 ** len(degrees), degrees, monotone) * 1.2 + 1e-6
    assert best <= measured(safe, lower) * (1 + 1e-9) + 1e-13


@pytest.mark.parametrize("lower", [1e-3, 1e-2])
@pytest.mark.parametrize("degrees", [(5, 5, 5), (3, 3, 3, 3), (7, 7)])
def test_no_other_coefficients_do_better(lower: float, degrees: tuple[int, ...]) -> None:
    """The optimum is global by the theorem; here 120 changes of all coefficients at once, large and small."""
    p = best_polar(lower, degrees, monotone=False, margin=0)
    best = best_error(lower, degrees, monotone=False)
    generator = np.random.default_rng(0)
    x = torch.cat([torch.logspace(np.log10(lower), 0, 4001, dtype=torch.float64), torch.linspace(lower, 1, 4001)])
    x = x.clamp(lower, 1)
    for size in np.geomspace(1e-6, 1e-1, 120):
        changed = Composition(
            tuple(tuple(c * (1 + size * generator.standard_normal()) for c in factor) for factor in p.factors)
        )
        assert float((changed(x) - 1).abs().max()) >= best * (1 - 1e-4)


@pytest.mark.parametrize("lower", [1e-8, 1e-4, 1e-2, 0.3, 0.999])
@pytest.mark.parametrize("degree", [3, 5, 7, 9])
@pytest.mark.parametrize("monotone", [True, False])
def test_bounded_on_the_unit_interval_and_a_little_beyond(lower: float, degree: int, monotone: bool) -> None:
    """0 ≤ p ≤ 2 up to 1.01, below `lower` too; and with 1 % of noise after every factor p stays below 3."""
    p = best_polar(lower, (degree,) * 8, monotone)
    x = torch.linspace(0, 1.01, 20_001, dtype=torch.float64)
    assert float(p(x).min()) >= -1e-9
    assert float(p(x).max()) <= 2 + 1e-9
    noise = torch.Generator().manual_seed(1)
    for factor in p.factors:
        x = Composition((factor,))(x)
        x = x * (1 + 0.004 * (2 * torch.rand(len(x), generator=noise, dtype=torch.float64) - 1))
    assert float(x.abs().max()) < 3


def test_without_a_margin_a_singular_value_of_1_01_explodes() -> None:
    beyond = torch.tensor([1.01], dtype=torch.float64)
    assert float(best_polar(1e-3, (5,) * 5, monotone=False, margin=0)(beyond)) > 1e50
    assert float(best_polar(1e-3, (5,) * 5, monotone=False)(beyond)) < 1.2


def test_steps_needed() -> None:
    """1e−3 to within .05 takes 9 increasing quintics and 6 of any kind; 6 increasing ones reach down to 1.2e−2."""
    assert steps_needed(1e-3, 0.05, 5, monotone=True) == 9
    assert steps_needed(1e-3, 0.05, 5, monotone=False) == 6
    assert steps_needed(1.2e-2, 0.05, 5, monotone=True) == 6
    assert steps_needed(0.9, 0.3, 5, monotone=False) == 0
    for degree in (3, 5, 7):
        for monotone in (True, False):
            T = steps_needed(1e-3, 0.01, degree, monotone)
            assert best_error(1e-3, (degree,) * T, monotone) <= 0.01 < best_error(1e-3, (degree,) * (T - 1), monotone)


def test_a_cushion_lifts_the_middle() -> None:
    """Without one the first factor presses values in the middle to p(lower); with one of 0.05 they stay above .1."""
    x = grid(0.05)
    first = [Composition((best_polar(1e-4, (5, 5), False, cushion=c).factors[0],)) for c in (0.0, 0.05)]
    assert float(first[0](x).min()) < 2e-3
    assert float(first[1](x).min()) > 0.1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((0.0, (5,), True), "lower=0.0"), ((1.0, (5,), False), "lower=1.0"), ((0.1, (), False), "degrees"),
     ((0.1, (), True), "degrees"), ((0.1, (4,), True), "degree=4"), ((0.1, (4,), False), "degree=4"),
     ((0.1, (5,), False, -0.1), "margin=-0.1"), ((0.1, (5,), False, 0.0, 1.0), "cushion=1.0")],
)  # fmt: skip
def test_what_cannot_be_used_is_named(arguments, named: str) -> None:
    with pytest.raises(InputError, match=named):
        best_polar(*arguments)


def test_impossible_goals_are_named() -> None:
    with pytest.raises(InputError, match="not reached"):
        steps_needed(1e-200, 0.05, 3, monotone=True)
    with pytest.raises(InputError, match="degree=1"):
        steps_needed(0.1, 0.05, 1, monotone=True)
    with pytest.raises(InputError, match="strictly between"):
        steps_needed(0.1, 1.0, 5, monotone=True)
