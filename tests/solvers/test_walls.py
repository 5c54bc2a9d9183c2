"""`solve` at walls: min-norm polar factors, multipliers at the wall, and mixtures with powers and kinks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from icm import Exponential, Power, Program, Solution, Status, solve
from icm.curvature import Curvature, Kink, Wall
from icm.solvers.enclosure import enclose
from icm.solvers.flat import Reason
from icm.sphere import mean, slopes
from tests.oracles import exact_mean, tensor, worst
from tests.solvers.problems import distance, matrix, rotation, seeds

few = settings(max_examples=15)


def assembled(g: Tensor, m: int, n: int, seed: int = 0) -> Tensor:
    """U diag(g) Vᵀ (m, n)."""
    return rotation(seed, m)[:, : len(g)] * g @ rotation(seed + 1, n)[: len(g)]


def check_multipliers(solution: Solution, H: Curvature, tol: float = 1e-7) -> None:
    """0 ≤ σ ≤ r̃, g = ∇f inside and g ≥ ∇f at the wall, ∇f to 25 digits: no more is needed for a convex program."""
    g, sigma, dim = solution.g, solution.sigma, solution.dim
    assert bool((sigma >= 0).all())
    assert bool((sigma <= H.wall).all())
    residual = g - torch.as_tensor(exact_mean(H, sigma.numpy(), dim)[1])
    inside = sigma < H.wall
    scale = float(g.amax())
    assert bool((residual[inside & (sigma > 0)].abs() <= tol * scale).all())
    assert bool((residual >= -tol * scale).where(~inside, True).all())


# --- a wall alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (1, 4), (4, 1), (1, 1)])
def test_a_wall_alone_orthogonalises(shape: tuple[int, int]) -> None:
    """H = wall(r̃): Q = r̃ UVᵀ for every shape, F* = −r̃ Σg, and Newton and Schulz's iteration agrees on UVᵀ."""
    G, radius = matrix(1, *shape), 0.3
    solution = solve(G, Wall(radius))
    assert solution.status is Status.OPTIMAL
    assert bool(solution.orthogonal)
    assert solution.orthogonality is not None
    assert solution.orthogonality.reasons == (Reason.WALL,)
    assert bool((solution.sigma == radius).all())
    assert worst(solution.value, -radius * float(solution.g.sum())) < 1e-14
    X = G / torch.linalg.matrix_norm(G, 2)
    for _ in range(60):
        X = 1.5 * X - 0.5 * X @ X.T @ X if shape[0] <= shape[1] else 1.5 * X - 0.5 * X @ (X.T @ X)
    assert distance(solution.Q, radius * X) < 1e-12
    reduced = Program(G, Wall(radius)).reduce()
    assert torch.equal(solution.Q, radius * reduced.lift(torch.ones_like(reduced.g)))


@pytest.mark.parametrize(("g", "n"), [((2.0, 0.5, 0.0), 3), ((1.0, 0.0), 4), ((1.0, 1e-17), 2)])
def test_zeros_stay_zeros(g: tuple[float, ...], n: int) -> None:
    """Of the many optima of a rank-deficient G the one of least norm: σ_i = 0 where g_i = 0, F* = −r̃ Σg."""
    G = torch.diag(tensor(*g))
    G = torch.cat([G, torch.zeros(len(g), n - len(g), dtype=torch.float64)], 1)
    solution = solve(G, Wall(2.0))
    assert solution.sigma.tolist() == [2.0 if x > 1e-15 else 0.0 for x in g]
    assert bool(solution.orthogonal)
    assert worst(solution.value, -2 * sum(g)) < 1e-14


def test_no_gradient() -> None:
    """G = 0 under a wall is answered by 0."""
    solution = solve(torch.zeros(2, 3, dtype=torch.float64), Wall(1.0) + Kink(0.5, 2.0))
    assert solution.status is Status.OPTIMAL
    assert bool((solution.Q == 0).all())
    assert float(solution.gap) == 0.0


# --- walls and smooth curvatures ------------------------------------------------------------------------------

BOUNDED = {
    "r^1.5": Power(1.5, 0.4),
    "r^2": Power(2.0, 0.4),
    "r^2.39": Power(2.39, 0.4),
    "r^4 + exp": Power(4.0, 0.4) + Exponential(0.5),
    "r": Power(1.0, 0.4),
    "kink": Power(2.0, 0.1) + Kink(0.6, 0.7),
    "late kink": Power(2.0, 0.1) + Kink(0.95, 40.0),
}


@pytest.mark.parametrize("size", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("name", BOUNDED)
def test_multipliers(name: str, size: float) -> None:
    """g − ∇f is 0 inside the wall and ≥ 0 at it, to 25 digits, for answers inside, at, and partly at the wall."""
    H = BOUNDED[name] + Wall(1.0)
    for g in ((1.0, 0.5, 0.1), (1.0, 0.95, 0.9)):
        solution = solve(assembled(size * tensor(*g), 3, 3), H)
        assert float(solution.relative_gap) <= 1e-9
        if name == "late kink" and float((solution.sigma - 0.95).abs().max()) < 1e-3:
            assert enclose(solution).gap <= float(solution.gap) + 1e-15  # slopes of a float beside a kink say nothing
        else:
            check_multipliers(solution, H)


@pytest.mark.parametrize("p", [1.3, 2.0, 3.0])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_flat_at_the_wall_exactly_from_its_slope(n: int, p: float) -> None:
    """H = r^p up to r̃: r̃UVᵀ is optimal exactly if n min g ≥ H'(r̃−), for 1e-12 to either side."""
    radius = 0.8
    slope = p * radius ** (p - 1)
    for factor, flat in ((1 + 1e-12, True), (1 - 1e-9, False), (3.0, True), (0.7, False)):
        g = torch.linspace(2, 1, n, dtype=torch.float64) * slope / n * factor if n > 1 else tensor(slope * factor)
        solution = solve(torch.diag(g), Power(p) + Wall(radius))
        assert bool(solution.orthogonal) == flat
        assert bool((solution.sigma == radius).all()) == flat
        assert solution.orthogonality is not None
        assert solution.orthogonality.reasons == (Reason.WALL if flat else Reason.LOOSE,)


@pytest.mark.parametrize("c", [0.1, 0.5, 2.0])
def test_a_quadratic_is_cut_off(c: float) -> None:
    """H = c r² up to 1: f = c Σσ²/n, so σ_i = min(n g_i/2c, 1) in closed form, for any shape."""
    for m, n in ((3, 3), (2, 5), (5, 2)):
        g = tensor(1.0, 0.4, 0.1)[: min(m, n)]
        solution = solve(assembled(g, m, n), Power(2.0, c) + Wall(1.0))
        sigma = (n * g / (2 * c)).clamp(max=1)
        assert worst(solution.sigma, sigma) < 1e-9
        assert worst(solution.value, float((c * sigma.square() / n - g * sigma).sum())) < 1e-11


@few
@given(seed=seeds, size=st.floats(-1, 1), name=st.sampled_from(sorted(BOUNDED)))
def test_scipy_finds_nothing_lower(seed: int, size: float, name: str) -> None:
    """SciPy's L-BFGS-B in the box 0 ≤ σ ≤ r̃ is not below value − gap, and the solver not above SciPy by more."""
    H = BOUNDED[name]
    G = 10**size * matrix(seed, 3, 4)
    solution = solve(G, H + Wall(1.0))
    g = solution.g
    found = minimize(
        lambda s: (float(mean(H, s, 4) - g @ torch.as_tensor(s)), (slopes(H, s, 4) - g).numpy()),
        [0.5, 0.45, 0.4],
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, 1)] * 3,
        tol=1e-13,
    )
    assert float(found.fun) >= float(solution.value - solution.gap) - 1e-14
    assert float(solution.value - solution.gap) <= float(found.fun) + 1e-14


@pytest.mark.parametrize("radius", [0.1, 0.11, 0.113])
def test_free_singular_values_leave_a_corner(radius: float) -> None:
    """From r̃·1, where Newton's method can land, the small σ_i come back: a step beyond 0 is none that stays put."""
    H = Power(2.0, 4.7) + Kink(radius, 9.9) + Wall(0.118)
    solution = solve(torch.diag(tensor(47.7, 1.36, 0.58)), H)
    assert float(solution.sigma[0]) == 0.118
    check_multipliers(solution, H)


# --- walls and kinks ------------------------------------------------------------------------------------------


def test_a_kink_at_the_wall_is_none() -> None:
    """wall(1) + kink(1), and kinks beyond the wall, are wall(1)."""
    G = matrix(2, 3, 3)
    for H in (Power(2.0, 0.5) + Wall(1.0), Wall(1.0), Power(2.0, 0.1) + Kink(0.5, 1.0) + Wall(1.0)):
        for late in (Kink(1.0, 5.0), Kink(2.0, 100.0), Kink(1.0, 5.0) + Kink(1.5, 3.0)):
            base, other = solve(G, H), solve(G, H + late)
            assert distance(other.Q, base.Q) < 1e-9
            assert worst(other.value, base.value) < 1e-11
            assert bool(other.orthogonal) == bool(base.orthogonal)


def test_a_wall_out_of_reach_is_none() -> None:
    """A wall beyond ‖Q*‖₂ changes nothing."""
    G = matrix(3, 3, 4)
    for H in (Power(2.5), Power(2.0, 0.5) + Kink(1.0, 2.0)):
        base = solve(G, H)
        assert distance(solve(G, H + Wall(1.001 * float(base.sigma[0]))).Q, base.Q) < 1e-7


def test_kink_or_wall() -> None:
    """A kink at 0.5 and a wall at 1: as G grows Q is ∝ G, held at 0.5, between, and held at 1, with its reason."""
    H = Power(2.0, 0.2) + Kink(0.5, 6.0) + Wall(1.0)
    G = assembled(tensor(1.0, 0.9), 2, 2)
    reasons, radii = [], []
    for size in (0.05, 1.0, 3.25, 10.0):
        solution = solve(size * G, H)
        assert solution.orthogonality is not None
        reasons.append(solution.orthogonality.reasons[0].orthogonal)
        radii.append(float(solution.sigma[0]))
        check_multipliers(solution, H) if not reasons[-1] else None
    assert reasons == [False, True, False, True]
    assert radii[1] == 0.5
    assert radii[3] == 1.0
    assert radii[0] < 0.5 < radii[2] <= 1.0


def test_a_batch_of_all_kinds() -> None:
    """Free, partly and wholly held, kinked and zero members of a batch are what they are alone."""
    H = Power(2.0, 0.2) + Kink(0.5, 6.0) + Wall(1.0)
    g = tensor(1.0, 0.9, 0.4)
    G = torch.stack([assembled(c * g, 3, 3) for c in (0.0, 0.05, 1.0, 3.0, 10.0, 100.0)])
    together = solve(G, H)
    for i, one in enumerate(G):
        alone = solve(one, H)
        assert float((together.Q[i] - alone.Q).abs().max()) < 1e-8
        assert bool(together.orthogonal[i]) == bool(alone.orthogonal)
    assert together.orthogonal.tolist()[-1] is True


# --- invariance, number types ---------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1e-30, 1e30])
@pytest.mark.parametrize("name", ["r^2.39", "kink", "r"])
def test_units_of_the_loss(name: str, c: float) -> None:
    """(cG, cH) has the same Q: a wall is its own multiple."""
    for size in (0.3, 1.0, 4.0):
        G, H = size * matrix(4, 3, 3), BOUNDED[name] + Wall(1.0)
        assert distance(solve(c * G, c * H).Q, solve(G, H).Q) < 1e-7


@pytest.mark.parametrize("a", [1e-20, 1e20])
@pytest.mark.parametrize("name", ["r^2.39", "kink", "r"])
def test_units_of_length(name: str, a: float) -> None:
    """(aG, H(a·)) has Q/a and the same value."""
    for size in (0.3, 1.0, 4.0):
        G, H = size * matrix(4, 3, 3), BOUNDED[name] + Wall(1.0)
        base, scaled = solve(G, H), solve(a * G, H.dilate(a))
        assert distance(a * scaled.Q, base.Q) < 1e-7
        assert worst(scaled.value, base.value) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["alone", "r^2.39", "kink"])
def test_narrow_numbers(name: str, dtype: torch.dtype) -> None:
    """float32 and 16 bits reach OPTIMAL at a wall, and ‖Q‖₂ of the rounded Q does not exceed it: F(Q) is finite."""
    H = Wall(0.7) if name == "alone" else BOUNDED[name] + Wall(0.7)
    for seed, shape in enumerate([(3, 3), (5, 3), (3, 5), (1, 4), (8, 8)]):
        G = matrix(seed, *shape).to(dtype)
        solution = solve(G, H)
        assert solution.status is Status.OPTIMAL
        assert solution.Q.dtype == dtype
        assert bool(torch.isfinite(solution.value))
        assert float(torch.linalg.matrix_norm(solution.Q.double(), 2)) <= 0.7 * (1 + 1e-15)
        exact = solve(G.double(), H)
        assert bool(solution.orthogonal) == bool(exact.orthogonal)
        assert float(solution.value) >= float(exact.value - exact.gap) - 1e-15
        assert float(solution.value - exact.value) <= float(solution.gap) + 1e-15


# --- both sides of the proof ----------------------------------------------------------------------------------


@settings(max_examples=8, phases=[Phase.generate])
@given(seed=seeds, size=st.floats(-1, 1.5), name=st.sampled_from(sorted(BOUNDED)), rank=st.integers(2, 3))
def test_enclosed(seed: int, size: float, name: str, rank: int) -> None:
    """F* is proved, in ball arithmetic, to lie within [value − gap, value], with a zero of G and without."""
    G = 10**size * matrix(seed, 3, rank) @ matrix(seed + 1, rank, 4)
    solution = solve(G, BOUNDED[name] + Wall(1.0))
    found, value, gap = enclose(solution), float(solution.value), float(solution.gap)
    rounding = 1e-15 * (abs(value) + float(solution.gain))
    assert found.optimum.upper >= value - gap - rounding
    assert found.optimum.lower <= value + rounding
    assert found.shrink < 1e-13
    assert math.isfinite(found.value.upper)


@pytest.mark.parametrize("name", ["r^1.5", "r^4 + exp"])
def test_enclosed_at_rank_one(name: str) -> None:
    """A rank-one G whose one singular value is at the wall: F* is enclosed, in seconds."""
    G = 10 * matrix(14518, 3, 1) @ matrix(14519, 1, 4)
    solution = solve(G, BOUNDED[name] + Wall(1.0))
    found = enclose(solution)
    assert found.optimum.upper >= float(solution.value - solution.gap)
    assert found.optimum.lower <= float(solution.value + solution.gap)
