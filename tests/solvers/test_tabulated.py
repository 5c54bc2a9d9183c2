"""`solve` with measured curvatures: like what they measure, bounded or not as their last slope says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from icm import Power, Program, Status, solve
from icm.curvature import Kink, Tabulated, Wall
from icm.solvers.enclosure import enclose
from icm.sphere.sampling import directions
from tests.oracles import exact_mean, tensor, worst
from tests.solvers.problems import distance, matrix

SQUARE = Tabulated([0.0, 0.5, 1.0, 2.0, 4.0], [0.0, 0.25, 1.0, 4.0, 16.0])


def points(H: Power, radii: Tensor) -> Tabulated:
    """A table of H."""
    return Tabulated(radii, H(radii))


# --- like what is measured ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (1, 1)])
def test_a_table_of_a_square(shape: tuple[int, int]) -> None:
    """A table of r² at any radii is r² up to half way past the last but one, so σ* = n g/2 in closed form."""
    G, n = 0.3 * matrix(1, *shape) / shape[1], shape[1]
    H = points(Power(2.0), torch.linspace(0, 3, 13, dtype=torch.float64))
    solution = solve(G, H)
    assert float(solution.sigma[0]) < 2.75
    assert worst(solution.sigma, n * solution.g / 2) < 1e-8
    assert worst(solution.value, -n / 4 * float(solution.g.square().sum())) < 1e-10


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_a_finer_table_is_closer(p: float) -> None:
    """Tables of r^p approach it: Q within 1/100 for 33 points, and closer for 129 by 4 at least."""
    G = 0.5 * matrix(2, 3, 3)
    exact = solve(G, Power(p)).Q
    errors = []
    for count in (9, 33, 129):
        H = points(Power(p), 4 * torch.linspace(0, 1, count, dtype=torch.float64).square())
        errors.append(distance(solve(G, H).Q, exact))
    assert errors[1] < 0.01
    assert errors[2] < errors[1] / 4 < errors[0] / 16


@pytest.mark.parametrize("size", [0.05, 0.3, 1.0])
def test_stationary_to_25_digits(size: float) -> None:
    """g = ∇f(σ*), slopes by ball arithmetic, with pieces of either curvature and a kink among them."""
    H = Tabulated((0.5, 1.0, 1.4, 2.0), (0.1, 0.5, 1.2, 3.0)) + Kink(0.8, 0.5)
    solution = solve(size * torch.diag(tensor(1.0, 0.6, 0.2)), H)
    value, slopes = exact_mean(H, solution.sigma.numpy(), 3)
    assert worst(slopes, solution.g) < 1e-7
    assert worst(solution.value, value - float(solution.g @ solution.sigma)) < 1e-12


def test_straight_runs_are_kinks() -> None:
    """Points on two lines have a kink where they meet, which holds singular values like a Kink does."""
    r = torch.arange(0.25, 3.01, 0.25, dtype=torch.float64)
    lines = Tabulated(r, 0.2 * r + 5 * (r - 1).clamp(min=0))
    assert lines.kinks == ((1.0, 5.0),) or worst(torch.tensor(lines.kinks), [[1.0, 5.0]]) < 1e-12
    polar = torch.linalg.svd(matrix(3, 3, 3))
    held = []
    for size in (0.1, 0.5, 1.85):
        G = size * polar.U * tensor(1.0, 0.9, 0.8) @ polar.Vh
        one, two = solve(G, lines), solve(G, Power(1.0, 0.2) + Kink(1.0, 5.0))
        assert distance(one.Q, two.Q) < 1e-7
        assert bool(one.orthogonal) == bool(two.orthogonal)
        held.append(bool(one.orthogonal))
    assert held == [True, True, False]


def random_table(seed: int) -> Tabulated:
    """Five random radii with rising chords."""
    generator = torch.Generator().manual_seed(seed)
    r = torch.rand(5, generator=generator, dtype=torch.float64).add(0.1).cumsum(0)
    slope = torch.rand(5, generator=generator, dtype=torch.float64).cumsum(0)
    return Tabulated(r, (slope * torch.cat([r[:1], r.diff()])).cumsum(0))


@pytest.mark.parametrize(
    ("seed", "shape"), [(1, (3, 3)), *((seed, (1 + seed % 3, 1 + seed // 3 % 3)) for seed in (0, 4, 5, 8))]
)
def test_enclosed(seed: int, shape: tuple[int, int]) -> None:
    """For random convex tables that end in a wall F* is proved to lie within [value − gap, value]."""
    table = random_table(seed)
    solution = solve(matrix(seed, *shape), table + Wall(table.radii[-1]))
    assert float(solution.relative_gap) <= 1e-9
    found, value, gap = enclose(solution), float(solution.value), float(solution.gap)
    assert found.optimum.upper >= value - gap
    assert found.optimum.lower <= value + gap  # both ends to rounding, which the gap holds


# --- the ends -------------------------------------------------------------------------------------------------


def test_a_table_ends_in_a_line() -> None:
    """Beyond the last point H is linear: large G are unbounded, along a direction on which F falls, by samples; with a
    wall or a power they are not."""
    G = matrix(4, 2, 3)
    last = float(SQUARE.recession_slope)
    solution = solve(100 * G, SQUARE)
    assert solution.status is Status.UNBOUNDED
    assert solution.margin is not None
    assert float(solution.margin) > 0
    assert solution.direction is not None
    zeta = directions(20_000, 3, 1)
    r = (zeta @ solution.direction.T).norm(dim=-1)
    pull = 100 * float((G * solution.direction).sum())
    F = [float(SQUARE(t * r).mean()) - t * pull for t in (1e2, 1e3, 1e4)]
    assert 0 > F[0] > F[1] > F[2]
    assert worst(F[2] - F[1], 9e3 * (last * float(r.mean()) - pull)) < 1e-2
    bounded = solve(100 * G, SQUARE + Wall(4.0))
    assert bool((bounded.sigma == 4.0).all())
    assert bool(bounded.orthogonal)
    assert solve(100 * G, SQUARE + Power(3.0, 0.1)).status is Status.OPTIMAL


def test_bounded_exactly_below_the_last_slope() -> None:
    """1 × 1: bounded for g below the last slope, unbounded above, and H'(σ*) = g in between."""
    last = float(SQUARE.recession_slope)
    inside = solve([[0.999 * last]], SQUARE)
    assert inside.status is Status.OPTIMAL
    assert worst(SQUARE.slope(inside.sigma), 0.999 * last) < 1e-9
    assert solve([[1.001 * last]], SQUARE).status is Status.UNBOUNDED


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (2, 3)])
def test_nothing_at_first(shape: tuple[int, int]) -> None:
    """H = 0 up to 1: however small G, ‖Q‖₂ ≥ 1, and Q tends to the polar factor as G → 0 where m ≥ n."""
    H = Tabulated((0.5, 1.0, 1.5, 2.0), (0.0, 0.0, 0.5, 2.0)) + Power(2.0, 1e-12)
    free = Tabulated((0.5, 1.0, 1.5, 2.0), (0.0, 0.0, 0.5, 2.0))
    assert float(free(1.0)) == 0.0
    G = torch.diag(tensor(1.0, 0.9, 0.8)[: shape[0]])
    G = torch.cat([G, torch.zeros(shape[0], shape[1] - shape[0], dtype=torch.float64)], 1)
    spreads = []
    for size in (0.1, 0.01, 1e-3):
        solution = solve(size * G, free)
        assert float(solution.relative_gap) <= 1e-9
        assert float(solution.sigma[0]) >= 1
        assert float(solution.value) <= -size * float(torch.diagonal(G).sum()) * (1 - 1e-9)
        spreads.append(float((solution.sigma - 1).abs().max()))
    assert spreads[0] > spreads[1] > spreads[2]
    assert distance(solve(0.1 * G, H).Q, solve(0.1 * G, free).Q) < 1e-6


@pytest.mark.parametrize("c", [1e-30, 1e30])
def test_units(c: float) -> None:
    """(cG, cH) has the same Q, and (aG, H(a·)) has Q/a, for tables too."""
    G = 0.3 * matrix(5, 3, 3)
    base = solve(G, SQUARE)
    assert distance(solve(c * G, c * SQUARE).Q, base.Q) < 1e-8
    a = c ** (2 / 3)
    assert distance(a * solve(a * G, SQUARE.dilate(a)).Q, base.Q) < 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_numbers(dtype: torch.dtype) -> None:
    """Narrow G reach OPTIMAL, near the float64 answer."""
    G = (0.3 * matrix(6, 3, 3)).to(dtype)
    solution, exact = solve(G, SQUARE), solve(G.double(), SQUARE)
    assert solution.status is Status.OPTIMAL
    assert distance(solution.Q, exact.Q) < 2 * torch.finfo(dtype).eps


def test_projected_data() -> None:
    """Noisy measurements, projected, solve; the answer is that of the projected values given as they are."""
    r = torch.linspace(0.25, 3, 12, dtype=torch.float64)
    noisy = r.square() + 0.05 * torch.sin(40 * r)
    H = Tabulated(r, noisy, project=True)
    assert H.distance > 0
    G = 0.3 * matrix(7, 3, 3)
    assert distance(solve(G, H).Q, solve(G, Tabulated(H.radii, H.values)).Q) < 1e-12
    program = Program(G, H)
    solution = program.solve()
    around = solution.Q + 1e-3 * matrix(8, 9, 3, 3)
    assert bool((program.objective(around) >= solution.value - solution.gap).all())
    assert math.isfinite(float(solution.value))
