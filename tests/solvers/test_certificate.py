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

from icm import Exponential, Kink, Power, Program, Wall, solve
from icm.curvature import Curvature
from icm.solvers.certificate import inwards, matrix_gap, mean_length, norm, reach, spectral_gap
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
CORNERED: list[Curvature] = [
    0.5 * Power(2.0) + Kink(1.0, 2.0),
    0.1 * Power(2.0) + Kink(0.7, 1e4) + Kink(1.1, 3.0),
    Wall(1.3),
    Power(3.0) + Kink(0.5, 2.0) + Wall(1.1),
    Power(1.0) + Kink(1.0, 5.0) + Wall(2.0),
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
        gap = float(spectral_gap(g[None], sigma, e, rho, 3, 3, H))
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


@settings(max_examples=10)
@given(
    seed=seeds,
    H=st.sampled_from(CORNERED),
    size=st.floats(-2, 2),
    spread=st.sampled_from([0.0, 1e-15, 1e-9, 1e-3, 0.5]),
    shape=st.sampled_from([(2, 3), (3, 2), (3, 3), (1, 2), (3, 1)]),
)
def test_matrix_gap_with_kinks_and_walls(
    seed: int, H: Curvature, size: float, spread: float, shape: tuple[int, int]
) -> None:
    """matrix_gap(Q) ≥ F(Q) − F* at Q anywhere inside the wall, on a kink or wall to rounding, aligned with G or not."""
    G, other = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    G = 10**size * G
    best = float(solve(G, H, on_failure="return").value)
    k = min(shape)
    corners = [c for c, _ in H.kinks] + [H.wall] * math.isfinite(H.wall)
    for M in (G, other):
        U, _, Vh = torch.linalg.svd(M, full_matrices=False)
        for c in corners:
            sigma = (c * (1 + spread * torch.linspace(-1, 1, k, dtype=torch.float64))).clamp(max=H.wall)
            Q = (U * sigma) @ Vh
            value, gap = matrix_gap(G[None], Q[None], shape[1], H)
            assert worst(value[0], Program(G, H).objective(Q)) < 1e-9
            assert float(gap) >= float(value) - best - 1e-14 * abs(best)


@few
@given(seed=seeds, n=st.integers(1, 6), extra=st.integers(0, 2), jump=st.sampled_from([10.0, 1e4]))
def test_the_matrix_gap_vanishes_on_kinks_and_walls(seed: int, n: int, extra: int, jump: float) -> None:
    """At r̃UVᵀ, where that is optimal, F has no gradient at the kink, and the gap is rounding all the same."""
    G = torch.randn(n + extra, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    U, g, Vh = torch.linalg.svd(G, full_matrices=False)
    G = (U * (1 + 0.2 * g / g[0])) @ Vh
    for H in (0.5 * Power(2.0) + Kink(1.0, jump), 0.1 * Power(2.0) + Wall(1.0)):
        assert bool(solve(G, H).orthogonal)
        value, gap = matrix_gap(G[None], (U @ Vh)[None], n, H)
        assert float(gap) <= 1e-12 * (jump + float((G * (U @ Vh)).sum()))
        assert worst(value[0], solve(G, H).value) < 1e-12 * jump


def test_beyond_a_wall_nothing_is_certain() -> None:
    """Value and gap are ∞ beyond a wall; by rounding beyond it counts as on it, and its value is one that F takes."""
    G, H = torch.eye(3, dtype=torch.float64)[None], 0.5 * Power(2.0) + Wall(0.8)
    for over, finite in ((1e-15, True), (1e-14, True), (1e-12, False), (1.0, False)):
        value, gap = matrix_gap(G, 0.8 * (1 + over) * G, 3, H)
        assert bool(torch.isfinite(value)) is bool(torch.isfinite(gap)) is finite
        if finite:
            assert worst(value[0], 0.32 - 2.4) < 1e-14
            assert float(gap) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 2), (5, 5), (5, 3), (3, 5), (64, 64), (256, 32)], ids=str)
def test_rounded_inwards(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Rounded to `dtype`, no Q on a kink or wall is longer than it; and smooth H, or float64, change nothing."""
    count, k = max(2, 4000 // shape[0] ** 2), min(shape)
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(count, max(shape), k, generator=generator, dtype=torch.float64)).Q
    Q = (Q if shape[0] >= shape[1] else Q.mT) * torch.linspace(0.3, 3, count, dtype=torch.float64)[:, None, None]
    longest = torch.linalg.matrix_norm(Q, 2)
    H = Power(2.0) + Kink(1.0, 3.0)
    eps = torch.finfo(dtype).eps
    ratio = torch.linalg.matrix_norm(inwards(Q, dtype, H).to(dtype).double(), 2) / longest
    assert 1 - 1.5 * eps < float(ratio.min()) < float(ratio.max()) < 1
    assert float((torch.linalg.matrix_norm(Q.to(dtype).double(), 2) / longest).max()) > 1
    assert inwards(Q, dtype, Power(2.0)) is inwards(Q, torch.float64, H) is Q


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
        gaps.append(float(spectral_gap(g, sigma, expect(H, sigma, 3, level=1), rho, 3, 3, H)))
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
    grown = spectral_gap(g, sigma, worse, rho, 3, 3, Power(3.0)) - spectral_gap(g, sigma, e, rho, 3, 3, Power(3.0))
    assert float(grown) >= 1e-3 * float(e.value + (g * sigma).sum() + rho * e.slopes.norm()) * (1 - 1e-6)


def test_a_gap_of_nan_is_infinite() -> None:
    """A point outside H's range proves nothing: its gap is ∞, not NaN."""
    sigma = tensor(1e4, 1.0)[None]
    e = expect(Exponential(1.0), sigma, 2)
    assert float(spectral_gap(tensor(1.0, 1.0)[None], sigma, e, tensor(10.0), 2, 2, Exponential(1.0))) == math.inf


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
