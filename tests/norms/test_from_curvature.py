"""The Luxemburg norm of a curvature against closed forms, mpmath, cvxpy and its own certificate on hostile matrices."""

from __future__ import annotations

import math

import cvxpy
import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

import icm
from icm.errors import CurvatureError, InputError
from icm.norms.from_curvature import FromCurvature

POWERS = ["r", "r^1.5", "r^2", "0.3*r^3", "r^4", "r^10"]
CURVATURES = [
    *POWERS,
    "wall(2)",
    "r^2 + r^4",
    pytest.param("exp(2)", marks=pytest.mark.long),
    "0.5*r^2 + 0.3*r^3 + wall(1.2)",
    pytest.param("r^2 + kink(0.5)", marks=pytest.mark.long),
    pytest.param("r^2 + 3*kink(1)", marks=pytest.mark.long),  # the corner of the kink is on the unit sphere
    "0.1*r + wall(8)",
    "tabulated(1,1,2,4,3,9)",
]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_values(seed: int, m: int, n: int, g: list[float]) -> Tensor:
    k = len(g)
    U, V = torch.linalg.qr(normal(seed, m, k)).Q, torch.linalg.qr(normal(seed + 1, n, k)).Q
    return (U * torch.tensor(g, dtype=torch.float64)) @ V.mT


def hostile() -> list[Tensor]:
    """Batches of matrices of one shape each."""
    square = [
        normal(0, 4, 4),
        with_values(5, 4, 4, [1.0, 1.0, 1.0, 1.0]),
        with_values(6, 4, 4, [1.0, 1.0, 0.3, 0.3]),
        with_values(7, 4, 4, [2.0, 1.0]),
        with_values(8, 4, 4, [1.0, 0.9, 1e-8, 1e-12]),
        torch.eye(4, dtype=torch.float64),
        torch.ones(4, 4, dtype=torch.float64),
        normal(9, 4, 4) * 1e30,
        normal(10, 4, 4) * 1e-30,
    ]
    return [torch.stack(square), normal(1, 2, 3, 5), normal(2, 1, 5, 3), normal(3, 1, 5, 1), normal(4, 1, 1, 5)]


def dot(A: Tensor, B: Tensor) -> float:
    return math.fsum((A.double() * B.double()).flatten().tolist())


@pytest.mark.parametrize("H", CURVATURES)
def test_the_dualizer_reaches_the_dual_norm_on_the_unit_sphere_and_hoelder_holds(H: str) -> None:
    """To 1e−12; and the certificate, which knows nothing of the solver, says that nothing reaches further."""
    N = FromCurvature(H)
    for batch in hostile():
        T, duals, (low, high) = N.dualize(batch), N.dual(batch), N.bounds(batch)
        assert float((N.norm(T) - 1).abs().max()) <= 1e-12
        assert bool((low <= duals * (1 + 1e-15)).all())
        assert bool((duals <= high * (1 + 1e-15)).all())
        assert bool((high - low <= 1e-12 * duals).all())
        U, s, Vh = torch.linalg.svd(batch, full_matrices=False)
        near = [(U * (s / s[:, :1])[:, None, :] ** (i / 2)) @ Vh for i in range(3)]  # maximisers of Schatten norms
        X = torch.stack([T, *near, *(normal(100 + i, *batch.shape) for i in range(2))])
        lengths = N.norm(X)
        for i, (G, dual) in enumerate(zip(batch, duals.tolist(), strict=True)):
            assert abs(dot(G, T[i]) - dual) <= 1e-12 * dual
            assert all(
                abs(dot(G, x)) <= float(length) * dual * (1 + 1e-12)
                for x, length in zip(X[:, i], lengths[:, i], strict=True)
            )


@pytest.mark.parametrize("H", CURVATURES)
def test_the_unit_sphere_is_where_the_expectation_is_one_or_the_wall_is_met(H: str) -> None:
    """By `icm.sphere.mean`: E H(‖Wζ‖/N) = 1, or below with the largest singular value at the wall."""
    N, curvature = FromCurvature(H), icm.parse(H)
    for W in hostile():
        sigma = torch.linalg.svdvals(W) / N.norm(W)[:, None]
        at_wall = (sigma[:, 0] - curvature.wall).abs() <= 1e-14 * curvature.wall
        level = icm.sphere.mean(curvature, sigma.clamp(max=curvature.wall), W.shape[-1])
        assert bool((((level - 1).abs() < 1e-12) | (at_wall & (level <= 1))).all())


def test_squares_give_the_frobenius_norm() -> None:
    """√(c/n)‖W‖_F, its dual √(n/c)‖G‖_F, and the scaled G, to rounding."""
    for W in hostile():
        n, F = W.shape[-1], torch.linalg.matrix_norm(W)
        N = FromCurvature("3*r^2")
        torch.testing.assert_close(N.norm(W), F * math.sqrt(3 / n), rtol=1e-15, atol=0)
        torch.testing.assert_close(N.dual(W), F * math.sqrt(n / 3), rtol=1e-15, atol=0)
        torch.testing.assert_close(N.dualize(W), W * (math.sqrt(n / 3) / F)[:, None, None], rtol=1e-14, atol=0)


def test_walls_give_the_spectral_norm() -> None:
    """‖W‖₂/r̃, its dual r̃‖G‖_*, and r̃ times the partial isometry."""
    for W in hostile():
        N = FromCurvature(icm.Wall(2.5))
        torch.testing.assert_close(N.norm(W), torch.linalg.matrix_norm(W, 2) / 2.5, rtol=1e-15, atol=0)
        torch.testing.assert_close(N.dual(W), torch.linalg.matrix_norm(W, "nuc") * 2.5, rtol=1e-13, atol=0)
    T = FromCurvature("wall(2.5)").dualize(with_values(7, 4, 4, [2.0, 1.0]))
    values = torch.tensor([2.5, 2.5, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(T), values, rtol=1e-14, atol=1e-14)


def test_powers_rise_from_the_frobenius_to_the_spectral_norm() -> None:
    for W in hostile():
        n = W.shape[-1]
        norms = [FromCurvature(icm.Power(p)) for p in (1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 100.0)]
        values, duals = torch.stack([N.norm(W) for N in norms]), torch.stack([N.dual(W) for N in norms])
        assert bool((values.diff(dim=0) >= -1e-13 * values[1:]).all())
        assert bool((duals.diff(dim=0) <= 1e-12 * duals[1:]).all())
        spectral = torch.linalg.matrix_norm(W, 2)
        assert bool((values <= spectral * (1 + 1e-13)).all())
        torch.testing.assert_close(values[2], torch.linalg.matrix_norm(W) / math.sqrt(n), rtol=1e-15, atol=0)
        # The limit is least near at rank one: E|ζ₁|^p = Γ(n/2)Γ((p+1)/2)/(√π Γ((n+p)/2)).
        log = math.lgamma(n / 2) + math.lgamma(50.5) - math.lgamma(50 + n / 2) - math.log(math.pi) / 2
        assert bool((values[-1] >= math.exp(log / 100) * spectral * (1 - 1e-13)).all())


def test_the_norm_by_other_integrals() -> None:
    """mpmath, n = 2: r² = σ₁² cos² + σ₂² sin² over the circle; r⁴ by its power sums; one column exactly."""
    a, b = 1.7, 0.4
    W = torch.tensor([[a, 0.0], [0.0, b]], dtype=torch.float64)

    def mean(H):
        def at(angle):
            return H(mpmath.sqrt((a * mpmath.cos(angle)) ** 2 + (b * mpmath.sin(angle)) ** 2))

        return mpmath.quad(at, mpmath.linspace(0, mpmath.pi / 2, 9)) * 2 / mpmath.pi

    for p in (1, 1.5, 3, 7.3):
        exact = mean(lambda r, p=p: r**p) ** (mpmath.mpf(1) / p)
        assert abs(float(FromCurvature(icm.Power(p)).norm(W)) / float(exact) - 1) < 1e-14
    for text, H in (("r^2 + r^4", lambda r: r**2 + r**4), ("exp(2)", lambda r: mpmath.exp(2 * r) - 1 - 2 * r)):
        t = mpmath.findroot(lambda t, H=H: mean(lambda r: H(r / t)) - 1, 1.0)
        assert abs(float(FromCurvature(text).norm(W)) / float(t) - 1) < 1e-13
    column = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    assert float(FromCurvature("r^3 + 7*kink(2)").norm(column)) == pytest.approx(5.0, rel=1e-14)  # H(1) = 1
    assert float(FromCurvature("r^3 + 7*kink(2)").dual(column)) == pytest.approx(5.0, rel=1e-14)


@pytest.mark.parametrize("g", [(3.0, 2.0, 1.0), (1.0, 1.0, 0.0), (5.0, 0.1, 0.01)])
def test_the_quartic_dual_against_cvxpy(g: tuple[float, ...]) -> None:
    """E‖Wζ‖⁴ = ((Σσ²)² + 2Σσ⁴)/(n(n+2)) ≤ 1 in cvxpy, for matrices with more and with fewer inputs than outputs."""
    for n in (3, 6):
        v, s = cvxpy.Variable(3), cvxpy.Variable(3)
        budget = cvxpy.square(cvxpy.sum(s)) + 2 * cvxpy.sum_squares(s) <= n * (n + 2)
        problem = cvxpy.Problem(cvxpy.Maximize(np.array(g) @ v), [cvxpy.square(v) <= s, budget])
        problem.solve(solver=cvxpy.CLARABEL)
        found = FromCurvature("r^4").dual(with_values(3, 7, n, list(g)))
        assert float(found) == pytest.approx(problem.value, rel=1e-7)


@pytest.mark.parametrize("H", ["r^2 + r^4", "r^1.5 + 2*kink(0.8) + wall(1.3)"])
def test_the_dual_against_cvxpy_on_the_full_matrix(H: str) -> None:
    """One n = 2 circle by equally spaced directions, on which smooth means converge geometrically (kinks like 1/N²);
    alignment with G not assumed."""
    G, N, curvature = normal(1, 3, 2), 200, icm.parse(H)
    angle = (np.arange(N) + 0.5) * (2 * np.pi / N)
    zeta = np.stack([np.cos(angle), np.sin(angle)])
    W, t = cvxpy.Variable((3, 2)), cvxpy.Variable(N)
    finite = [part for part in curvature.parts if not isinstance(part, icm.Wall)]
    level = sum(cvxpy.sum(part.cvxpy(t)) for part in finite) / N
    rules = [cvxpy.norm(W @ zeta, axis=0) <= t, level <= 1]
    if math.isfinite(curvature.wall):
        rules.append(cvxpy.sigma_max(W) <= curvature.wall)
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.sum(cvxpy.multiply(G.numpy(), W))), rules)
    problem.solve(solver=cvxpy.CLARABEL)
    assert float(FromCurvature(H).dual(G)) == pytest.approx(problem.value, rel=1e-6 if "kink" not in H else 1e-4)


@pytest.mark.parametrize("p", [1.5, 3.0, 4.0, 6.5])
def test_solved_updates_of_powers_are_steepest_descent_in_their_norm(p: float) -> None:
    """argmin −⟨G, Q⟩ + E‖Qζ‖^p = (N†/p)^{1/(p−1)} dualize(G), at every scale of G; Q from `icm.solve`."""
    N = FromCurvature(icm.Power(p))
    for size in (1e-3, 1.0, 1e3):
        G = size * normal(2, 5, 4)
        Q = icm.solve(G, icm.Power(p), method="newton").Q
        wanted = (N.dual(G) / p) ** (1 / (p - 1)) * N.dualize(G)
        assert float((Q - wanted).norm() / wanted.norm()) < 1e-7
        torch.testing.assert_close(N.steepest(G, 2.0), -N.dual(G) / 2 * N.dualize(G), rtol=1e-14, atol=0)


def test_other_curvatures_have_no_single_norm_for_all_scales() -> None:
    """H = r² + r⁴, g = (4, 2, 1, ½): the shape of the solved update moves with G's size, .500, .661, .693 (σ₂/σ₁); that
    of dualize does not, and is the solved one's where E H(‖Qζ‖) = 1."""
    H, G = icm.parse("r^2 + r^4"), with_values(3, 4, 4, [4.0, 2.0, 1.0, 0.5])
    shapes = []
    for size in (1e-3, 1.0, 1e3):
        sigma = icm.solve(size * G, H).sigma
        shapes.append(float(sigma[1] / sigma[0]))
        own = torch.linalg.svdvals(FromCurvature(H).dualize(size * G))
        level = FromCurvature((1 / float(icm.sphere.mean(H, sigma, 4))) * H).dualize(size * G)
        torch.testing.assert_close(torch.linalg.svdvals(level), sigma, rtol=1e-6, atol=0)
        torch.testing.assert_close(own, torch.linalg.svdvals(FromCurvature(H).dualize(G)), rtol=1e-12, atol=0)
    assert shapes == pytest.approx([0.500, 0.661, 0.693], abs=6e-4)


def test_a_kink_on_the_unit_sphere_holds_matrices_near_enough_to_orthogonal() -> None:
    """H(1) = 1 at the kink: UVᵀ is the answer for g of a small spread, and not for one that no multiplier between the
    slopes 2 and 5 provides (5/2 < cond G); the bounds say so for both."""
    N = FromCurvature("r^2 + 3*kink(1)")
    G = torch.stack([with_values(1, 3, 3, [1.0, 0.97, 0.9]), with_values(3, 3, 3, [1.0, 0.5, 0.2])])
    values, duals, (low, high) = torch.linalg.svdvals(N.dualize(G)), N.dual(G), N.bounds(G)
    assert float((values[0] - 1).abs().max()) < 1e-14
    assert float(duals[0]) == pytest.approx(2.87, rel=1e-14)
    assert float(values[1, 0]) > 1.01
    assert float(duals[1]) > 1.7
    assert bool(((low <= duals * (1 + 1e-15)) & (duals <= high) & (high - low <= 1e-12 * duals)).all())


def test_batches_shapes_and_dtypes() -> None:
    for H in ("r^3", "r^2 + r^4", "wall(1)"):
        N = FromCurvature(H)
        G = normal(4, 2, 3, 4, 5) * torch.tensor([1e-20, 1.0, 1e20])[:, None, None]
        G[0, 1] = 0
        T, dual, norm = N.dualize(G), N.dual(G), N.norm(G)
        assert T.shape == G.shape
        assert dual.shape == norm.shape == (2, 3)
        assert float(T[0, 1].abs().sum() + dual[0, 1] + norm[0, 1]) == 0
        torch.testing.assert_close(T[1, 2], N.dualize(G[1, 2]), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(dual[1, 0], N.dual(G[1, 0]), rtol=1e-12, atol=0)
        narrow = N.dualize(G.float())
        assert narrow.dtype == N.norm(G.float()).dtype == torch.float32
        torch.testing.assert_close(N.norm(narrow[1]), torch.ones(3), rtol=1e-6, atol=0)
        assert N.dualize(G.bfloat16()).dtype == torch.bfloat16


def test_float32_counts_as_zero_what_its_rounding_makes() -> None:
    """A wall raises every singular value to its radius; noise in a float32 matrix of rank 2 is not raised."""
    G = with_values(7, 6, 6, [2.0, 1.0]).float()
    values = torch.linalg.svdvals(FromCurvature("wall(1)").dualize(G).double())
    assert float((values - torch.tensor([1.0, 1, 0, 0, 0, 0])).abs().max()) < 1e-6


def test_projection_where_there_is_one() -> None:
    W = normal(5, 4, 3) * 3
    P = FromCurvature("wall(0.5)").project(W, radius=2.0)
    torch.testing.assert_close(torch.linalg.svdvals(P), torch.linalg.svdvals(W).clamp(max=1.0), rtol=1e-13, atol=0)
    P = FromCurvature("r^2").project(W, radius=0.1)
    torch.testing.assert_close(P, W / W.norm() * (0.1 * math.sqrt(3)), rtol=1e-13, atol=0)
    with pytest.raises(InputError, match="normalize"):
        FromCurvature("r^3").project(W)


def test_custom_curvatures_have_norms_too() -> None:
    H = icm.Custom(lambda r: r**3, name="cube")
    G = normal(6, 3, 2)
    torch.testing.assert_close(FromCurvature(H).norm(G), FromCurvature("r^3").norm(G), rtol=1e-9, atol=0)
    torch.testing.assert_close(FromCurvature(H).dual(G), FromCurvature("r^3").dual(G), rtol=1e-9, atol=0)


@pytest.mark.parametrize("H", ["0*r^2", "0*kink(1)", "1e-300*r"])
def test_what_never_reaches_one_is_refused(H: str) -> None:
    with pytest.raises(CurvatureError, match="reaches 1"):
        FromCurvature(H)
