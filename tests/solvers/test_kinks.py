"""`solve` at kinks: optimal by proofs that are not the solver's own, continuous, and unbounded where it has to be."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize, root_scalar
from torch import Tensor

from benchmarks.spectra import spectra
from icm import Exponential, Power, Program, Solution, Status, parse, solve
from icm.curvature import Curvature, Kink, Wall
from icm.solvers.enclosure import enclose
from icm.solvers.flat import Reason
from icm.solvers.spectrum import solve_spectrum
from icm.sphere.sampling import directions
from tests.oracles import exact_mean, tensor, worst
from tests.solvers.problems import distance, matrix, rotation, seeds

Array = NDArray[np.float64]
JUMPS = (0.1, 1.0, 10.0, 100.0, 1e4)


def lower_bound(g: Array, sigma: Array, dim: int, H: Curvature) -> float:
    """A lower bound of F* from 25-digit slopes at σ: F(σ) + min ⟨∇f(σ) − g, y − σ⟩ over 0 ≤ y ≤ wall, ‖y‖ ≤ ρ, where
    H(κ_n ρ) = ‖g‖ρ, as f(y) ≥ H(κ_n ‖y‖) by Jensen's inequality, κ_n = E|ζ₁|."""
    value, slopes = exact_mean(H, sigma, dim)
    residual, size = g - slopes, float(np.linalg.norm(g))
    up = np.maximum(residual, 0)
    gain = math.inf
    if math.isfinite(H.wall):
        gain = float(up.sum() * H.wall)
    kappa = math.exp(math.lgamma(dim / 2) - math.lgamma((dim + 1) / 2)) / math.sqrt(math.pi)
    if H.recession_slope * kappa > size and H.wall == math.inf:
        high = 1.0
        while float(H(kappa * high)) <= size * high:
            high *= 2
        low = high
        while low > 1e-300 and float(H(kappa * low)) > size * low:
            low /= 2
        root = root_scalar(lambda t: float(H(kappa * t)) - size * t, bracket=(low, high), xtol=1e-14 * high).root
        rho = root * (1 + 1e-10)
        gain = min(gain, rho * float(np.linalg.norm(up)))
    return value - float(g @ sigma) - (gain - float(residual @ sigma))


def fits(solution: Solution) -> None:
    """Status OPTIMAL, and the enclosure of F* in ball arithmetic lies within [value − gap, value], that of F(Q) around
    value; neither but for rounding of 4 eps of what value is the difference of."""
    assert solution.status is Status.OPTIMAL
    found, value, gap = enclose(solution), float(solution.value), float(solution.gap)
    rounding = 1e-15 * (abs(value) + float(solution.gain))
    assert value - gap - rounding <= found.optimum.upper
    assert found.optimum.lower <= value + rounding
    assert found.value.lower <= value + gap + rounding
    assert value - gap - rounding <= found.value.upper


def grid(n: int) -> list[Tensor]:
    """The named spectra of dimension n, those with n values in one batch."""
    named = list(spectra(n).values())
    full = [g for g in named if len(g) == n]
    return [torch.tensor(np.stack(full)), *(torch.tensor(g)[None] for g in named if len(g) < n)]


# --- the grid -------------------------------------------------------------------------------------------------


def check_grid(n: int, b: float, scales: tuple[float, ...]) -> None:
    """gap ≤ 1e-9 |F| for H = r²/2 + b(r − 1)₊ at every spectrum and scale."""
    H = Power(2.0, 0.5) + Kink(1.0, b)
    for g in grid(n):
        g = torch.cat([scale * g for scale in scales])
        found = solve_spectrum(g, n, H, tol=1e-9)
        assert set(found.status) == {Status.OPTIMAL}
        share = found.gap / found.value.abs()
        assert bool((share <= 1e-9).all()), f"n = {n}, b = {b}: {float(share.max()):.1e} at {int(share.argmax())}"
        assert bool((found.value < 0).all())
        rise = found.sigma.diff() / found.sigma[:, :1]
        assert bool((rise <= 0).where(g.diff() < 0, rise <= 1e-9).all()), "σ is not ordered like g"


@pytest.mark.parametrize(("n", "b"), [*((n, b) for n in (1, 3, 8) for b in JUMPS), *((2, b) for b in JUMPS[:3])])
def test_named_spectra(n: int, b: float) -> None:
    """r²/2 + b(r − 1)₊ over the named spectra: gap ≤ 1e-9 |F|, and σ in the order of g."""
    check_grid(n, b, (1.0,))


@pytest.mark.long
@pytest.mark.parametrize("b", JUMPS)
@pytest.mark.parametrize("n", [16, 64, 128, 256])
def test_named_spectra_large(n: int, b: float) -> None:
    """The same up to n = 256, at three scales of G."""
    check_grid(n, b, (0.3, 1.0, 10.0))


@pytest.mark.long
@pytest.mark.parametrize("b", JUMPS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
def test_named_spectra_at_scales(n: int, b: float) -> None:
    """The same in small dimensions at four scales of G."""
    check_grid(n, b, (0.3, 1.0, 3.0, 10.0))


@pytest.mark.parametrize("b", [1.0, 100.0])
@pytest.mark.parametrize("n", [3, 6])
def test_no_room_below(n: int, b: float) -> None:
    """g_i = 1/i and A = n min g = 1 exactly: no B holds them all, however large, and the answer next to it is found."""
    g = 1 / torch.arange(1, n + 1, dtype=torch.float64)
    H = Power(2.0, 0.5) + Kink(1.0, b)
    solution = solve(torch.diag(g), H)
    assert not bool(solution.orthogonal)
    assert float(solution.gap) <= 1e-9 * abs(float(solution.value))
    assert solution.orthogonality is not None
    if float(g.sum()) <= 1 + b:
        assert solution.orthogonality.reasons == (Reason.DESCENT,)
    if n == 3 and b <= 100:
        fits(solution)


# --- optimality from scratch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["marchenko-pastur", "condition-1e4", "zeros", "short"])
@pytest.mark.parametrize("b", [0.1, 10.0])
def test_lower_bound_from_25_digits(name: str, b: float) -> None:
    """F(σ) by ball arithmetic is within 1e-9 of a bound of F* that only uses slopes by ball arithmetic."""
    H, n = Power(2.0, 0.5) + Kink(1.0, b), 4
    g = 2 * spectra(n)[name]
    sigma = solve_spectrum(torch.tensor(g)[None], n, H, tol=1e-9)
    at = sigma.sigma[0].numpy()
    value = exact_mean(H, at, n)[0] - float(g @ at)
    assert worst(sigma.value[0], value) < 1e-12
    assert value - lower_bound(g, at, n, H) <= 1e-9 * abs(value)


@pytest.mark.parametrize("b", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("g", [(1.0, 0.6), (3.0, 0.2), (1.0, 1.0, 0.3), (2.0, 1.5, 1.0)])
def test_scipy_finds_nothing_lower(g: tuple[float, ...], b: float) -> None:
    """Nelder and Mead's search of F by midpoints over the angles of ζ is never below value − gap, and comes close."""
    n, H = 2 if len(g) == 2 else 3, Power(2.0, 0.5) + Kink(1.0, b)
    solution = solve(torch.diag(tensor(*g)), H)
    objective = circle_objective if n == 2 else sphere_objective
    found = minimize(
        lambda s: objective(H, np.abs(s)) - float(np.dot(g, np.abs(s))),
        solution.sigma.numpy() * np.linspace(1.05, 0.9, n),
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 400},
    )
    assert float(found.fun) >= float(solution.value - solution.gap) - 1e-6
    assert float(found.fun) <= float(solution.value) + 1e-4


def circle_objective(H: Curvature, sigma: Array) -> float:
    """E H for n = 2 over 4000 angles, midpoints."""
    angle = (np.arange(4000) + 0.5) * math.pi / 8000
    r = np.sqrt((sigma[0] * np.cos(angle)) ** 2 + (sigma[1] * np.sin(angle)) ** 2)
    return float(H(torch.tensor(r)).mean())


def sphere_objective(H: Curvature, sigma: Array) -> float:
    """E H for n = 3: ζ₃ uniform on [0, 1], the angle about it on a quarter turn, midpoints."""
    angle, z = (np.arange(300) + 0.5) * math.pi / 600, (np.arange(300) + 0.5)[:, None] / 300
    around = (sigma[0] * np.cos(angle)) ** 2 + (sigma[1] * np.sin(angle)) ** 2
    return float(H(torch.tensor(np.sqrt((1 - z**2) * around + (z * sigma[2]) ** 2))).mean())


@pytest.mark.parametrize(
    ("g", "A", "B"),
    [((1.0, 0.1), 0.5, 9.0), ((1.0, 0.5), 0.2, 1.9), ((1.0, 0.8, 0.3), 0.5, 3.1), ((2.0, 0.5), 0.9, 9.0)],
)
def test_f_falls_along_v(g: tuple[float, ...], A: float, B: float) -> None:
    """DESCENT: F(r̃(1 + tv)) < F(r̃·1) for small t > 0, by 25 digits, at the rate that convexity allows."""
    H, n = Power(2.0, A / 2) + Kink(1.0, B - A), len(g)
    why = solve(torch.diag(tensor(*g)), H).orthogonality
    assert why is not None
    assert why.reasons == (Reason.DESCENT,)
    assert float(why.v.abs().amax()) > 0
    v = (why.v / why.v.abs().amax()).numpy()
    flat = A / 2 - sum(g)
    falls = []
    for t in (1e-3, 1e-5):
        sigma = 1 + t * v
        falls.append((exact_mean(H, sigma, n)[0] - float(np.dot(g, sigma)) - flat) / t)
    assert falls[0] < 0
    assert falls[1] < 0
    assert falls[1] <= falls[0] + 1e-9


# --- closed forms ---------------------------------------------------------------------------------------------


def test_one_input() -> None:
    """n = 1: H'(σ−) ≤ g ≤ H'(σ+), so σ* is radius_at_slope, exactly c within a jump; 1 × 1 and m × 1."""
    H = Power(2.0, 0.5) + Kink(1.0, 2.0) + Kink(2.0, 5.0)
    for g, sigma in ((0.25, 0.25), (1.5, 1.0), (2.9, 1.0), (3.5, 1.5), (4.0, 2.0), (8.9, 2.0), (19.0, 12.0)):
        for G in ([[g]], [[0.6 * g], [-0.8 * g]]):
            solution = solve(G, H)
            assert worst(solution.sigma, sigma) < 1e-10
            assert worst(solution.value, float(H(sigma)) - g * sigma) < 1e-12


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("b", [1.0, 100.0])
def test_one_row(b: float, share: float) -> None:
    """1 × 2, H = b(r − c)₊: f' = (2b/π)√(1 − c²/σ²), so σ* = c/√(1 − (πg/2b)²)."""
    c = 0.7
    g = share * 2 * b / math.pi
    solution = solve([[0.6 * g, 0.8 * g]], Kink(c, b))
    assert worst(solution.sigma, c / math.sqrt(1 - share**2)) < 1e-7
    assert float(solution.relative_gap) <= 1e-10


@pytest.mark.parametrize("share", [1e-2, 1e-3])
def test_one_row_far_out(share: float) -> None:
    """The same with σ* barely above c, where f' rises like a square root."""
    c, b = 0.7, 100.0
    g = share * 2 * b / math.pi
    solution = solve([[0.6 * g, 0.8 * g]], Kink(c, b), max_iterations=25)
    assert worst(solution.sigma, c / math.sqrt(1 - share**2)) < 1e-9


def test_one_row_of_three() -> None:
    """1 × 3, H = b(r − c)₊: |ζ₁| is uniform, f = b(σ − c)²/2σ and f' = b(1 − c²/σ²)/2, so σ* = c/√(1 − 2g/b)."""
    for b, g in ((1.0, 0.4), (10.0, 0.1), (100.0, 30.0)):
        solution = solve([[0.6 * g, 0.0, 0.8 * g]], Kink(0.7, b))
        assert worst(solution.sigma, 0.7 / math.sqrt(1 - 2 * g / b)) < 1e-7


def test_quadratic_and_a_kink_in_two_dimensions() -> None:
    """2 × 2, r²/2 + b(r − 1)₊ far off the kink: g_i = ∂_i f(σ*) by Legendre's incomplete integrals (mpmath)."""
    b, g = 0.5, (2.0, 0.4)
    solution = solve(torch.diag(tensor(*g)), Power(2.0, 0.5) + Kink(1.0, b))
    s1, s2 = (mpmath.mpf(float(x)) for x in solution.sigma)
    assert s1 > 1 > s2
    m = 1 - s2**2 / s1**2
    angle = mpmath.asin(mpmath.sqrt((s1**2 - 1) / (s1**2 * m)))
    E, F = mpmath.ellipe(angle, m), mpmath.ellipf(angle, m)
    first = s1 / 2 + b * 2 / mpmath.pi * (E - (1 - m) * F) / m
    second = s2 / 2 + b * 2 / mpmath.pi * (s2 / s1) * (F - E) / m
    assert worst([float(first), float(second)], g) < 1e-7


@pytest.mark.parametrize("H", [Power(1.0, 0.1), Power(2.0, 0.05)])
@pytest.mark.parametrize("columns", [2, 3])
def test_fewer_outputs_than_inputs(columns: int, H: Curvature) -> None:
    """2 × 3 has no atom: slopes 0.1 and 20 at r = 1 and g = (1, 0.6) give an answer beside the polar factor, not it:
    σ* ≈ (1.006, 1.0004); the same for 3 × 3 of rank 2."""
    G = torch.zeros(columns, 3, dtype=torch.float64)
    G[0, 0], G[1, 1] = 1.0, 0.6
    solution = solve(G, H + Kink(1.0, 19.9), max_iterations=25)
    assert not bool(solution.orthogonal)
    assert solution.orthogonality is not None
    assert solution.orthogonality.reasons == (Reason.SHAPE,)
    assert float((solution.sigma[:2] - tensor(1.006, 1.0004)).abs().max()) < 1e-3
    assert float(solution.sigma[0] - solution.sigma[1]) > 1e-3
    fits(solution)


@settings(max_examples=6)
@given(seed=seeds, b=st.floats(0.5, 50))
def test_wide_matrices_are_never_orthogonal(seed: int, b: float) -> None:
    """m < n and a generic G: no kink makes the singular values equal."""
    G = matrix(seed, 2, 4)
    solution = solve(G, Power(2.0, 0.5) + Kink(1.0, b))
    assert not bool(solution.orthogonal)
    assert float(solution.sigma[0] - solution.sigma[1]) > 0


# --- continuity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("g", [(0.6, 0.5, 0.4), (3.0, 1.0)])
def test_from_the_gradient_to_the_polar_factor(g: tuple[float, ...]) -> None:
    """a r²/2 + b(r − 1)₊ from b = 0, where σ* ∝ g, to beyond the threshold, where it is flat: ordered like g, and the
    largest jump between neighbouring b at least halves where they are four times as close."""
    n, a = len(g), 0.3 * len(g) * min(g)
    G, end = torch.diag(tensor(*g)), 4 * n * max(g) + 2
    jumps = []
    for points in (9, 33):
        sigma = torch.stack(
            [
                solve(G, Power(2.0, a / 2) + Kink(1.0, float(b))).sigma
                for b in end * torch.linspace(0, 1, points, dtype=torch.float64).square()
            ]
        )
        assert bool((sigma.diff(dim=1) <= 0).all())
        assert worst(sigma[0], n * tensor(*g) / a) < 1e-9
        assert bool((sigma[-1] == 1).all())
        assert bool((sigma.diff(dim=0).sum(-1) <= 1e-9).all())  # a larger kink makes no update longer in all
        jumps.append(float(sigma.diff(dim=0).abs().amax()))
    assert jumps[1] < 0.5 * jumps[0]


def test_a_kink_that_grows_like_a_quartic() -> None:
    """r⁴ + 7(r − 1)₊ has H'/r rising, so Su's theorem holds: 1 ≤ σ_i/σ_j ≤ g_i/g_j, from 25-digit weights as well."""
    H = Power(4.0) + Kink(1.0, 7.0)
    assert H.is_superquadratic()
    for size in (0.3, 1.0, 3.0, 10.0):
        solution = solve(size * torch.diag(tensor(3.0, 2.0, 0.5)), H)
        g, sigma = solution.g, solution.sigma
        assert bool((sigma.diff() <= 0).all())
        assert bool((sigma[:-1] / sigma[1:] <= g[:-1] / g[1:] * (1 + 1e-8)).all())


def test_a_kink_can_spread() -> None:
    """r²/2 + (r − 1)₊ is not super-quadratic, and there are G for which σ_i/σ_j > g_i/g_j: far beyond the kink H is
    nearly r²/2 + r, whose H'/r falls."""
    H = Power(2.0, 0.5) + Kink(1.0, 1.0)
    assert not H.is_superquadratic()
    solution = solve(torch.diag(tensor(5.0, 3.0)), H)
    assert float(solution.sigma[0] / solution.sigma[1]) > 5 / 3 + 1e-3


# --- invariance -----------------------------------------------------------------------------------------------

MIXED = Power(2.0, 0.5) + Kink(1.0, 3.0) + Kink(0.4, 0.5)


@pytest.mark.parametrize("c", [1e-30, 1e-8, 1e8, 1e30])
@pytest.mark.parametrize("size", [0.3, 1.0, 5.0])
def test_units_of_the_loss(c: float, size: float) -> None:
    """(cG, cH) has the same Q, c times the value, and the same verdict."""
    G = size * matrix(2, 3, 3)
    base, scaled = solve(G, MIXED), solve(c * G, c * MIXED)
    assert distance(scaled.Q, base.Q) < 1e-7
    assert worst(scaled.value, c * base.value) < 1e-10
    assert bool(scaled.orthogonal) == bool(base.orthogonal)


@pytest.mark.parametrize("a", [1e-20, 1e20])
@pytest.mark.parametrize("size", [0.3, 1.0, 5.0])
def test_units_of_length(a: float, size: float) -> None:
    """(aG, H(a·)) has Q/a and the same value."""
    G = size * matrix(2, 3, 3)
    base, scaled = solve(G, MIXED), solve(a * G, MIXED.dilate(a))
    assert distance(a * scaled.Q, base.Q) < 1e-7
    assert worst(scaled.value, base.value) < 1e-10


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (1, 3), (3, 1)])
def test_rotations(shape: tuple[int, int]) -> None:
    """Q*(AGBᵀ) = A Q*(G) Bᵀ."""
    G, A, B = matrix(3, *shape), rotation(4, shape[0]), rotation(5, shape[1])
    Q = solve(G, MIXED).Q
    assert distance(solve(A @ G @ B.T, MIXED).Q, A @ Q @ B.T) < 1e-7
    assert distance(solve(-G, MIXED).Q, -Q) < 1e-7


def test_a_kink_without_a_jump_is_none() -> None:
    """H + 0·kink has the answer of H."""
    G = matrix(6, 3, 3)
    for H in (Power(2.5), Power(2.0, 0.5) + Kink(1.0, 2.0)):
        assert distance(solve(G, H + Kink(0.8, 0.0)).Q, solve(G, H).Q) < 1e-9


def test_a_split_kink_is_one() -> None:
    """Two kinks at one radius, and a kink out of reach, change nothing."""
    G = matrix(6, 3, 3)
    base = solve(G, Power(2.0, 0.5) + Kink(1.0, 3.0))
    assert distance(solve(G, Power(2.0, 0.5) + Kink(1.0, 1.0) + Kink(1.0, 2.0)).Q, base.Q) < 1e-12
    assert distance(solve(G, Power(2.0, 0.5) + Kink(1.0, 3.0) + Kink(100.0, 50.0)).Q, base.Q) < 1e-7


def test_neighbouring_kinks_hold_like_one() -> None:
    """Kinks at 1 and 1 + ε hold their σ between the radii, and F* moves by O(ε) from that of one."""
    G = torch.diag(tensor(1.0, 0.9, 0.8))
    one = solve(G, Power(2.0, 0.1) + Kink(1.0, 8.0))
    assert bool(one.orthogonal)
    for epsilon in (1e-3, 1e-6, 1e-9):
        two = solve(G, Power(2.0, 0.1) + Kink(1.0, 1.0) + Kink(1 + epsilon, 7.0))
        assert bool((two.sigma >= 1 - 1e-12).all())
        assert bool((two.sigma <= 1 + 3 * epsilon + 1e-12).all())
        assert 0 <= float(one.value - two.value) <= 8 * epsilon


@pytest.mark.parametrize("g", [(2.0, 2.0), (2.0, 2.0, 0.5), (2.0, 0.5, 0.5), (1.0, 1.0, 1.0, 1e-3)])
@pytest.mark.parametrize("b", [0.5, 20.0])
def test_equal_entries(g: tuple[float, ...], b: float) -> None:
    """Equal g_i have equal σ_i, to the rounding of one Newton step."""
    solution = solve(torch.diag(tensor(*g)), Power(2.0, 0.5) + Kink(1.0, b))
    for i in range(len(g) - 1):
        if g[i] == g[i + 1]:
            assert worst(solution.sigma[i], solution.sigma[i + 1]) < 1e-9
    fits(solution)


def test_a_batch_of_all_kinds() -> None:
    """Flat, below, above, beside and zero members of a batch are what they are alone."""
    H = Power(2.0, 0.5) + Kink(1.0, 9.0)
    g = tensor(1.0, 0.9, 0.8)
    G = torch.stack([torch.diag(c * g) for c in (0.0, 0.1, 0.9, 1.5, 3.3, 9.0)])
    together = solve(G, H)
    for i, one in enumerate(G):
        alone = solve(one, H)
        assert float((together.Q[i] - alone.Q).abs().max()) < 1e-9
        assert together.statuses[i] is alone.status
        assert bool(together.orthogonal[i]) == bool(alone.orthogonal)
        assert together.orthogonality is not None
        assert alone.orthogonality is not None
        assert together.orthogonality.reasons[i] is alone.orthogonality.reasons[0]
    assert together.orthogonal.tolist()[2] is True


# --- boundedness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 3), (3, 2)])
def test_a_lone_kink(shape: tuple[int, int]) -> None:
    """H = b(r − c)₊ ends in slope b: bounded for b > N†(g), the largest ⟨g, v⟩/E‖diag(v)ζ‖, unbounded below it along a
    direction on which F falls, by samples."""
    G, n = matrix(7, *shape), shape[1]
    g = torch.linalg.svdvals(G).numpy()
    zeta = directions(20_000, n, 1).numpy()[:, : len(g)]

    def negative(v: Array) -> float:
        return -float(g @ np.abs(v)) / float(np.linalg.norm(zeta * v, axis=1).mean())

    dual = -minimize(negative, g, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).fun
    inside = solve(G, Kink(0.5, 1.1 * dual))
    assert inside.status is Status.OPTIMAL
    assert inside.margin is not None
    assert float(inside.margin) < 0
    assert float(inside.value) < 0
    outside = solve(G, Kink(0.5, 0.9 * dual))
    assert outside.status is Status.UNBOUNDED
    assert outside.margin is not None
    assert worst(outside.margin, 0.1 * dual) < 0.1
    assert outside.direction is not None
    assert worst(outside.direction.norm(), 1.0) < 1e-12
    v = torch.linalg.svdvals(outside.direction).numpy()
    pull = float((outside.direction * G).sum())
    r = np.linalg.norm(zeta * v, axis=1)
    F = [0.9 * dual * np.maximum(t * r - 0.5, 0).mean() - t * pull for t in (10.0, 100.0, 1000.0)]
    assert 0 > F[0] > F[1] > F[2]
    assert F[2] < 9 * F[1]


# --- number types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5)])
@pytest.mark.parametrize("b", [0.5, 20.0, 1e4])
def test_narrow_numbers(b: float, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """float32 and 16 bits reach OPTIMAL at kinks, with Q of that type near the float64 answer to the same G."""
    G = (0.4 * matrix(8, *shape)).to(dtype)
    H = Power(2.0, 0.05) + Kink(1.0, b)
    solution, exact = solve(G, H), solve(G.double(), H)
    assert solution.status is Status.OPTIMAL
    assert solution.Q.dtype == dtype
    assert bool(solution.orthogonal) == bool(exact.orthogonal)
    assert float((solution.value - exact.value).abs()) <= float(solution.gap + exact.gap) + 1e-15


# --- the stress test ------------------------------------------------------------------------------------------


@st.composite
def programs(draw: Any) -> tuple[tuple[int, int], list[float], int, Curvature]:
    """A diagonal or rotated G up to 5 × 5 with random, equal, near or vanishing g, and up to four kinks, with or
    without a power or exponential, and a wall."""
    m, n = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    k = min(m, n)
    radii = draw(st.lists(st.floats(0.1, 10.0), min_size=0, max_size=4))
    parts: list[Curvature] = [Kink(c, 10 ** draw(st.floats(-2, 3))) for c in radii]
    if draw(st.booleans()) or not radii:
        parts.append(draw(st.sampled_from([Power(1.5, 0.5), Power(2.0, 0.5), Power(3.3, 0.1), Exponential(0.7)])))
    if draw(st.integers(0, 2)) == 0:
        parts.append(Wall(draw(st.floats(0.1, 10.0))))
    size, share = 10 ** draw(st.floats(-1, 1)), draw(st.lists(st.floats(0.01, 1), min_size=k, max_size=k))
    kind = draw(st.sampled_from(["any", "any", "equal", "near", "zero"]))
    if kind == "equal":
        share = [1.0] * k
    if kind == "near":
        spread = 10 ** draw(st.floats(-8, -1))
        share = [1 + spread * x for x in share]
    if kind == "zero":
        share[-1] = 0.0
    H = parts[0]
    for part in parts[1:]:
        H = H + part
    return (m, n), [size * x for x in share], draw(seeds), H


def check_drawn(shape: tuple[int, int], g: list[float], seed: int, H: Curvature) -> None:
    """`check_program` for U diag(g) Vᵀ with random U and V."""
    U, V = (rotation(seed + i, size)[:, : len(g)] for i, size in enumerate(shape))
    check_program((U * tensor(*g)) @ V.T, H)


def check_program(G: Tensor, H: Curvature) -> None:
    """Unbounded, with F falling along the direction; or optimal within 1e-9, inside a proved enclosure."""
    solution = solve(G, H, max_iterations=50)
    if solution.status is Status.UNBOUNDED:
        assert H.recession_slope < math.inf
        assert solution.direction is not None
        far = Program(G, H).objective(tensor(1e4, 1e6)[:, None, None] * solution.direction)
        assert float(far[1]) < float(far[0])
        return
    if bool((G == 0).all()):
        assert bool((solution.Q == 0).all())
        return
    assert float(solution.relative_gap) <= 1e-9
    assert bool((solution.sigma <= H.wall).all())
    fits(solution)


FOUND = [  # by random search, each once a stalled solve
    ("608.96*kink(0.17868) + wall(0.26659)", (3, 2), [0.6543, 0.0]),
    ("142.04*kink(0.51808) + 0.12265*kink(3.3733) + 0.035*kink(0.79438) + wall(4.71)", (1, 2), [0.25383]),
    (
        "0.0487*kink(0.94) + 237.5*kink(0.3) + 30.5*kink(0.45) + 1.24*kink(0.477) + wall(0.94)",
        (3, 4),
        [2.22, 2.22, 2.22],
    ),
    ("848.25*kink(0.36542) + 884.16*kink(8.9977)", (2, 4), [0.17758, 0.17758]),
    ("118.49*kink(0.33723)", (4, 3), [1.1289, 0.58042, 0.0]),
    ("4.687*r^2 + 9.9456*kink(0.11123) + wall(0.11776)", (4, 3), [47.717, 1.362, 0.5782]),
]


@pytest.mark.parametrize(("H", "shape", "g"), FOUND)
def test_found_by_random_search(H: str, shape: tuple[int, int], g: list[float]) -> None:
    """Rare events, steep kinks after nothing at all, corners of a wall: proved optimal."""
    G = torch.zeros(*shape, dtype=torch.float64)
    G.diagonal()[: len(g)] = tensor(*g)
    check_program(G, parse(H))


@settings(max_examples=12, phases=[Phase.generate])
@given(program=programs())
def test_mixtures(program: tuple[tuple[int, int], list[float], int, Curvature]) -> None:
    """Whatever the kinks, powers and walls, F* is enclosed in ball arithmetic where the solver says it is."""
    check_drawn(*program)


@pytest.mark.long
@settings(max_examples=300, phases=[Phase.generate])
@given(program=programs())
def test_many_mixtures(program: tuple[tuple[int, int], list[float], int, Curvature]) -> None:
    """The same, many times."""
    check_drawn(*program)
