"""One gradient under several curvatures: the figures of each update, and who is refused."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from icm import Power, compare, solve
from icm.errors import InputError
from icm.solvers import summarise
from icm.sphere import mean
from tests.oracles import tensor, worst

G = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_solutions_are_those_of_solve() -> None:
    """In the order given, with options passed on."""
    found = compare(G, ["r^2", Power(3.0), "r^8"], tol=1e-9)
    for solution, H in zip(found.solutions, ["r^2", "r^3", "r^8"], strict=True):
        assert torch.equal(solution.Q, solve(G, H, tol=1e-9).Q)
        assert solution.tol == 1e-9


def test_figures_by_hand() -> None:
    """condition, both cosines, effective and stable rank of (2, 1, 0) beside g = (1, 1, 0), n = 5."""
    found = summarise(tensor(2.0, 1.0, 0.0), tensor(1.0, 1.0, 0.0), 5)
    assert worst(found.condition, 2.0) < 1e-15
    assert worst(found.cosine_gradient, 3 / math.sqrt(10)) < 1e-15
    assert worst(found.cosine_polar, 3 / math.sqrt(10)) < 1e-15
    assert worst(found.effective_rank, 25 / 17) < 1e-15
    assert worst(found.stable_rank, 1.25) < 1e-15
    assert worst(found.spread, math.sqrt(2 / 7 * (5 * 17 / 25 - 1))) < 1e-15


def test_spread_is_that_of_the_law() -> None:
    """spread² = Var s/(E s)², from the exact second and fourth moments of ‖Qζ‖."""
    found = compare(G, ["r^3"])
    sigma = found.solutions[0].sigma
    second, fourth = float(mean("r^2", sigma, 6)), float(mean("r^4", sigma, 6))
    assert worst(found.summaries[0].spread ** 2, fourth / second**2 - 1) < 1e-13


def test_from_the_gradient_towards_the_polar_factor() -> None:
    """r² is the gradient itself; higher powers lower the condition number, by at most p − 1, and turn to the polar."""
    found = compare(G, ["r^2", "r^3", "r^6", "r^12"])
    assert worst(found.summaries[0].cosine_gradient, 1.0) < 1e-13
    assert worst(found.summaries[0].condition, found.gradient.condition) < 1e-10
    assert worst(found.polar.condition, 1.0) < 1e-15
    assert worst(found.polar.cosine_polar, 1.0) < 1e-15
    conditions = [s.condition for s in found.summaries]
    cosines = [s.cosine_polar for s in found.summaries]
    assert conditions == sorted(conditions, reverse=True)
    assert cosines == sorted(cosines)
    for p, condition in zip((3, 6, 12), conditions[1:], strict=True):
        assert condition >= found.gradient.condition / (p - 1) * (1 - 1e-9)


def test_rank_and_scale() -> None:
    """Zero singular values do not count, and no figure depends on units."""
    low = torch.diag(tensor(4.0, 2.0, 0.0))
    found, scaled = compare(low, ["r^3"]), compare(1e-30 * low, ["r^3"])
    assert found.gradient.condition == 2.0
    for name in vars(found.summaries[0]):
        assert worst(getattr(scaled.summaries[0], name), getattr(found.summaries[0], name)) < 1e-12
    nothing = compare(0 * low, ["r^3"])
    assert math.isnan(nothing.gradient.condition)


def test_an_unbounded_member_has_no_figures() -> None:
    """Beside a bounded one, an unbounded H gives NaN figures and no error."""
    found = compare(G, ["r^2", "0.001*r"])
    assert math.isnan(found.summaries[1].condition)
    assert not math.isnan(found.summaries[0].condition)


def test_refusals() -> None:
    """An empty list, a bare text and a batch are refused."""
    for bad in ([], "r^2", Power(2.0)):
        with pytest.raises(InputError, match="list"):
            inspect.unwrap(compare)(G, bad)
    with pytest.raises(InputError, match="one matrix"):
        compare(G[None], ["r^2"])
