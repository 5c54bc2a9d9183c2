"""Curvatures nearest to values: planted ones come back, tables are the projection that cvxpy finds."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from icm.curvature import Power, Tabulated
from icm.errors import InputError
from icm.measure.fit import fit

RADII = torch.logspace(-1, 2, 13, dtype=torch.float64)


def noisy(values: Tensor, size: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return values * (1 + size * torch.randn(len(values), generator=generator, dtype=torch.float64)).clamp(min=0.05)


@pytest.mark.parametrize("p", [1.0, 1.03, 1.5, 2.0, 2.4, 3.0, 7.77])
@pytest.mark.parametrize("c", [1e-6, 1.0, 3e5])
def test_powers_come_back(p: float, c: float) -> None:
    found = fit(RADII, c * RADII**p, "power")
    assert isinstance(found.curvature, Power)
    assert found.curvature.exponent == pytest.approx(p, abs=1e-6)
    assert found.distance < 1e-5
    torch.testing.assert_close(found.curvature(RADII), c * RADII**p, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("a", "b", "p"), [(1.0, 0.1, 3.0), (2.0, 1e-3, 2.5), (0.5, 0.3, 1.3), (1.0, 1e-8, 6.0)])
def test_sums_of_a_quadratic_and_a_power_come_back(a: float, b: float, p: float) -> None:
    values = a * RADII**2 + b * RADII**p
    found = fit(RADII, values, "quadratic+power")
    assert found.distance < 1e-5
    torch.testing.assert_close(found.curvature(RADII), values, rtol=1e-4, atol=0)


def test_a_power_is_the_least_of_all():
    """A grid over p with the best scale at each finds nothing nearer."""
    values = noisy(RADII**2.4, 0.2)
    found = fit(RADII, values, "power")
    for p in np.linspace(1, 12, 2201):
        y = RADII**p / values
        c = y.sum() / y.square().sum()
        assert float((c * y - 1).square().mean().sqrt()) >= found.distance - 1e-12
    assert fit(RADII, values, "quadratic+power").distance <= found.distance + 1e-9
    concave = fit(RADII, RADII**0.5, "power").curvature
    assert isinstance(concave, Power)
    assert concave.exponent == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("size", "seed"), [(0.03, 0), (0.2, 1), (0.5, 2), (0.9, 3)])
def test_tables_are_the_nearest_convex_values(size: float, seed: int) -> None:
    """min Σ (H_i/v_i − 1)² over convex nondecreasing H with H(0) = 0, by cvxpy."""
    cvxpy = pytest.importorskip("cvxpy")
    radii = torch.linspace(0.2, 4, 12, dtype=torch.float64)
    values = noisy(radii**1.5, size, seed)
    found = fit(radii, values, "tabulated")
    x, v = np.r_[0, radii.numpy()], values.numpy()
    h = cvxpy.Variable(len(x))
    slopes = cvxpy.multiply(cvxpy.diff(h), 1 / np.diff(x))
    problem = cvxpy.Problem(
        cvxpy.Minimize(cvxpy.sum_squares(cvxpy.multiply(h[1:], 1 / v) - 1)),
        [h[0] == 0, slopes[0] >= 0, cvxpy.diff(slopes) >= 0],
    )
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    np.testing.assert_allclose(found.curvature(radii), h.value[1:], rtol=1e-5, atol=1e-7)
    assert found.distance == pytest.approx(np.sqrt(problem.value / 12), rel=1e-6)


def test_tables_are_convex_and_nondecreasing_between_the_points_too():
    for seed in range(20):
        H = fit(RADII, noisy(RADII**2.4, 0.6, seed), "tabulated").curvature
        assert isinstance(H, Tabulated)
        values = H(torch.linspace(0, 120, 5001, dtype=torch.float64))
        assert values[0] == 0
        assert (values.diff() >= -1e-9 * values.max()).all()
        assert (values.diff().diff() >= -1e-9 * values.max()).all()


def test_convex_values_are_met_exactly():
    for values in (RADII**2.4, 0.1 * RADII**2 + (RADII - 1).clamp(min=0), RADII):
        found = fit(RADII, values, "tabulated")
        assert found.distance < 1e-10
        torch.testing.assert_close(found.curvature(RADII), values, rtol=1e-9, atol=0)


def test_tables_need_no_cvxpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    generator = torch.Generator().manual_seed(0)
    for seed in range(100):
        radii = (torch.rand(3 + seed % 38, generator=generator, dtype=torch.float64) * 6 - 3).exp().sort().values
        fit(radii, noisy(radii ** (1 + seed / 50), (0.02, 0.3, 1.0)[seed % 3], seed), "tabulated")


def test_what_cannot_be_fitted():
    with pytest.raises(InputError, match="kind='cubic' is unknown; choose one of power, quadratic\\+power, tabulated"):
        fit(RADII, RADII**2, "cubic")  # pyright: ignore[reportArgumentType]
    for kind, least in (("power", 2), ("quadratic+power", 3)):
        few = RADII[: least - 1]
        with pytest.raises(InputError, match=f"takes {least} radii .* and there are {least - 1}; measure more"):
            fit(few, few**2, kind)  # pyright: ignore[reportArgumentType]
    assert fit(RADII[:1], RADII[:1] ** 2, "tabulated").distance < 1e-12
