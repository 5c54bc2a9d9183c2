"""H = a r² + b r⁴ by formula: against the formulas written out, and against Newton's method."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm import Exponential, Power, solve
from icm.errors import InputError
from icm.solvers.closed_form import coefficients, solve_closed_form
from tests.oracles import tensor, worst

spectra = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6)
few = settings(max_examples=25)


@few
@given(g=spectra, a=st.floats(1e-3, 1e3), extra=st.integers(0, 3))
def test_quadratic(g: list[float], a: float, extra: int) -> None:
    """H = a r²: σ = n g/(2a), Q = n G/(2a) and F* = −n ‖g‖²/(4a)."""
    n = len(g) + extra
    G = embed(g, n)
    solution = solve(G, Power(2.0, a))
    assert float((solution.Q - n * G / (2 * a)).abs().max()) < 1e-14 * n * max(g) / a
    assert worst(solution.value, -n * sum(x * x for x in g) / (4 * a)) < 1e-13


def embed(g: list[float], n: int) -> torch.Tensor:
    """diag(g) with zero columns up to n."""
    G = torch.zeros(len(g), n, dtype=torch.float64)
    G[range(len(g)), range(len(g))] = tensor(*g)
    return G


@few
@given(g=spectra, a=st.sampled_from([0.0, 1e-6, 1.0, 1e6]), b=st.floats(1e-3, 1e3), extra=st.integers(0, 3))
def test_quartic(g: list[float], a: float, b: float, extra: int) -> None:
    """H = a r² + b r⁴: 2aσ_i/n + 4b (σ_i³·2 + σ_i Σσ²)/(n(n+2)) = g_i (Su: σ³ + Dσ = n(n+2)g/8b), to 1e-12."""
    n = len(g) + extra
    sigma = solve_closed_form(tensor(*g)[None], n, a, b)[0][0]
    slope = 2 * a * sigma / n + 4 * b * (2 * sigma**3 + sigma * sigma.square().sum()) / (n * (n + 2))
    assert worst(slope, tensor(*g)) < 1e-12
    if a == 0:
        D = sigma.square().sum() / 2
        assert worst(sigma**3 + D * sigma, n * (n + 2) * tensor(*g) / (8 * b)) < 1e-12


@pytest.mark.parametrize("H", [Power(2.0, 0.3), Power(4.0, 2.0), Power(2.0) + 0.5 * Power(4.0)])
def test_newton_agrees(H) -> None:
    """Newton's method finds the same Q, value and status."""
    G = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    closed, newton = solve(G, H, method="closed-form"), solve(G, H, method="newton", tol=1e-12)
    assert (closed.method, newton.method) == ("closed-form", "newton")
    assert solve(G, H).method == "closed-form"
    assert float((closed.Q - newton.Q).abs().max()) < 1e-10 * float(closed.Q.abs().max())
    assert worst(closed.value, newton.value) < 1e-12
    assert bool((closed.relative_gap < 1e-11).all())


def test_which_curvatures_have_one() -> None:
    """Sums of r² and r⁴ with a positive total; everything else is refused by name."""
    assert coefficients(3.0 * Power(2.0)) == (3.0, 0.0)
    assert coefficients(Power(4.0) + Power(2.0, 0.5) + Power(4.0)) == (0.5, 2.0)
    for H in (
        Power(3.0),
        Exponential(1.0),
        Power(2.0) + Power(3.0),
        0.0 * Power(2.0),
        Power(2.0, 0.0) + Power(4.0, 0.0),
    ):
        assert coefficients(H) is None
    with pytest.raises(InputError, match=r"r\^3"):
        solve([[1.0]], "r^3", method="closed-form")
