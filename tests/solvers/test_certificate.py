"""Every reported gap is an upper bound of the true one, at the optimum, near it and far from it."""

from __future__ import annotations

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from icm import Exponential, Power, Program, solve
from icm.curvature import Curvature
from icm.solvers.certificate import matrix_gap, mean_length, norm, reach, spectral_gap
from icm.sphere import expect, mean, slopes
from tests.oracles import tensor, worst

CURVATURES: list[Curvature] = [
    Power(1.2),
    Power(2.0),
    Power(2.5),
    Power(6.0),
    Exponential(1.0),
    Power(2.0) + 3.0 * Power(1.0),
    Power(1.5) + Exponential(2.0),
]
few = settings(max_examples=15)
seeds = st.integers(0, 2**32 - 1)
curvatures = st.sampled_from(CURVATURES)


def optimum(g: torch.Tensor, H: Curvature, dim: int) -> float:
    """An upper bound of F*, by SciPy's bounded quasi-Newton method: independent of our solver."""

    def objective(sigma: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.as_tensor(sigma)
        return float(mean(H, x, dim) - g @ x), (slopes(H, x, dim) - g).numpy()

    length = float(H.radius_at_slope(tensor(math.sqrt(dim) * float(g.norm()))))
    start = np.full(len(g), max(length, 1e-3))
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(g), tol=1e-13)
    return min(0.0, float(found.fun))


@few
@given(seed=seeds, H=curvatures, size=st.floats(-2, 2), extra=st.integers(0, 2))
def test_spectral_gap_at_random_points(seed: int, H: Curvature, size: float, extra: int) -> None:
    """spectral_gap(σ) ≥ F(σ) − F* for random σ, the optimum found by SciPy; and it is never negative."""
    generator = torch.Generator().manual_seed(seed)
    g = torch.rand(3, generator=generator, dtype=torch.float64) * 10**size
    dim = 3 + extra
    best = optimum(g, H, dim)
    rho = reach(g[None], dim, H)
    for spread in (0.1, 1.0, 10.0):
        sigma = spread * torch.rand(1, 3, generator=generator, dtype=torch.float64)
        e = expect(H, sigma, dim, level=1)
        gap = float(spectral_gap(g[None], sigma, e, rho, 3, 3))
        assert gap >= 0
        assert gap >= float(e.value - sigma[0] @ g) - best


@few
@given(seed=seeds, H=curvatures, size=st.floats(-2, 2), shape=st.sampled_from([(2, 3), (3, 2), (3, 3), (1, 2)]))
def test_matrix_gap_at_random_points(seed: int, H: Curvature, size: float, shape: tuple[int, int]) -> None:
    """matrix_gap(Q) ≥ F(Q) − F* for random Q that share nothing with G, and its value is F(Q)."""
    G, *Q = 10**size * torch.randn(4, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    best = optimum(torch.linalg.svdvals(G), H, shape[1])
    for q in Q:
        value, gap = matrix_gap(G[None], q[None], shape[1], H)
        assert worst(value[0], Program(G, H).objective(q)) < 1e-10
        assert float(gap) >= 0
        assert float(gap) >= float(value) - best


@few
@given(seed=seeds, H=curvatures, size=st.floats(-2, 2))
def test_the_solver_is_not_beaten(seed: int, H: Curvature, size: float) -> None:
    """SciPy finds nothing lower than value − gap, and the solver is no worse than SciPy by more than its gap."""
    g = (torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10**size).sort().values
    solution = solve(torch.diag(g), H)
    best = optimum(g, H, 3)
    rounding = 1e-13 * abs(best)
    assert float(solution.gap) >= 0
    assert best >= float(solution.value - solution.gap) - rounding
    assert float(solution.value - solution.gap) <= best + rounding


@few
@given(seed=seeds, H=curvatures, size=st.floats(-3, 3))
def test_reach(seed: int, H: Curvature, size: float) -> None:
    """ρ ≥ ‖σ*‖₂."""
    G = 10**size * torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    solution = solve(G, H)
    assert float(reach(solution.g[None], 3, H)) >= float(solution.sigma.norm()) * (1 - 1e-12)


@pytest.mark.parametrize("H", CURVATURES)
def test_the_gap_shrinks_with_the_distance(H: Curvature) -> None:
    """At σ*(1 + ε) the gap falls like ε, and below 1e-12 of ⟨g, σ*⟩ at σ* itself."""
    G = torch.diag(tensor(5.0, 3.0, 1.0))
    solution = solve(G, H, tol=1e-12)
    rho, g = reach(solution.g[None], 3, H), solution.g[None]
    gaps = []
    for epsilon in (1e-1, 1e-3, 1e-5, 0.0):
        sigma = solution.sigma[None] * (1 + epsilon)
        gaps.append(float(spectral_gap(g, sigma, expect(H, sigma, 3, level=1), rho, 3, 3)))
    linear = float((solution.g * solution.sigma).sum())
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] >= 0
    assert gaps[2] < 1e-3 * linear
    assert gaps[3] < 3e-12 * linear


def test_an_evaluation_error_enters_the_gap() -> None:
    """The certificate trusts no expectation beyond its own error: a larger claimed error gives a larger gap."""
    g, sigma = tensor(3.0, 1.0)[None], tensor(1.0, 0.5)[None]
    e = expect(Power(3.0), sigma, 2)
    rho = reach(g, 2, Power(3.0))
    worse = replace(e, error=e.error + 1e-3)
    grown = spectral_gap(g, sigma, worse, rho, 3, 3) - spectral_gap(g, sigma, e, rho, 3, 3)
    assert float(grown) >= 1e-3 * float(e.value + (g * sigma).sum() + rho * e.slopes.norm()) * (1 - 1e-6)


def test_a_gap_of_nan_is_infinite() -> None:
    """A point outside H's range proves nothing: its gap is ∞, not NaN."""
    sigma = tensor(1e4, 1.0)[None]
    e = expect(Exponential(1.0), sigma, 2)
    assert float(spectral_gap(tensor(1.0, 1.0)[None], sigma, e, tensor(10.0), 2, 2)) == math.inf


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40, 1000, 10**6])
def test_mean_length(n: int) -> None:
    """κ_n = E|ζ₁| = Γ(n/2)/(√π Γ((n+1)/2)), and E‖Qζ‖ ≥ κ_n ‖Q‖_F with equality at rank one."""
    with mpmath.workdps(30):
        exact = float(mpmath.gammaprod([mpmath.mpf(n) / 2], [mpmath.mpf(n + 1) / 2]) / mpmath.sqrt(mpmath.pi))
    assert worst(mean_length(n), exact) < 2e-15
    if n <= 40:
        assert worst(mean("r", [2.0], n), 2 * exact) < 1e-14
        assert float(mean("r", torch.ones(n).double(), n)) >= mean_length(n) * n**0.5 * (1 - 1e-14)


def test_norm_at_every_scale() -> None:
    """‖x‖₂ without overflow or underflow, and 0 for 0."""
    for c in (1e-300, 1.0, 1e300):
        assert worst(norm(c * tensor(3.0, -4.0)), 5 * c) < 1e-15
    assert float(norm(tensor(0.0, 0.0))) == 0.0
