"""Orthogonal answers: the thresholds of a kink against other derivations, and what `solve` returns on either side."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from icm import Power, Program, Status, solve
from icm.curvature import Curvature, Kink, Wall
from icm.errors import InputError
from icm.solvers.flat import Reason
from icm.solvers.orthogonal import orthogonal_bounds, orthogonal_region, orthogonal_threshold
from tests.oracles import tensor, worst
from tests.solvers.problems import matrix, rotation

Array = NDArray[np.float64]
few = settings(max_examples=10)
spectra_of_g = st.lists(st.floats(0.05, 1.0), min_size=2, max_size=5)


def kinked(left: float, right: float, radius: float = 1.0) -> Curvature:
    """An H with these slopes left and right of the kink, growing beyond it."""
    return Power(2.0, left / (2 * radius)) + Kink(radius, right - left)


# --- thresholds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.3, 1.0, 1.5, 1.57])
@pytest.mark.parametrize("A", [0.0, 0.7, 30.0])
def test_two_dimensions_in_closed_form(A: float, angle: float) -> None:
    """n = 2: ξ = A + J·1{|θ| < θ₀} has averages A/2 + J(θ₀ ± ½ sin 2θ₀)/π, so those g have the threshold A + J."""
    J = 2.5
    # θ − ½ sin 2θ loses all digits for small θ: its series.
    less = angle**3 * (2 / 3 - 2 / 15 * angle**2) if angle < 0.01 else angle - math.sin(2 * angle) / 2
    g = A / 2 + J / math.pi * tensor(2 * angle - less, less)
    # B − A is J to the digits that g − A/2 has left.
    lost = float((g / (g - A / 2)).amax()) * 4e-16
    assert worst(orthogonal_threshold(g, A, 2) - A, J) < 1e-11 + 3 * lost


def cells(n: int, size: int) -> Array:
    """Averages of ζ_i² (n, N) over N cells of equal mass of the positive orthant of the sphere, n = 2, 3 or 4."""
    edges = np.linspace(0, 1, size + 1)
    angle = edges * math.pi / 2
    # The mean of cos² over [a, b] is ½ + (sin 2b − sin 2a)/4(b − a).
    cos = 0.5 + np.diff(np.sin(2 * angle)) / (4 * np.diff(angle))
    pair = np.stack([cos, 1 - cos])
    if n == 2:
        return pair
    if n == 3:  # ζ₃ is uniform on [−1, 1]
        top = np.diff(edges**3) / (3 * np.diff(edges))
        rest = (1 - top)[:, None] * pair[:, None, :]
        return np.concatenate([rest.reshape(2, -1), np.repeat(top, size)[None]])
    share = (edges[1:] + edges[:-1]) / 2  # ζ₁² + ζ₂² is uniform on [0, 1]
    first = share[:, None, None] * pair[:, None, :, None] * np.ones(size)
    second = (1 - share)[:, None, None] * pair[:, None, None, :] * np.ones((size, 1))
    return np.concatenate([first.reshape(2, -1), second.reshape(2, -1)])


def programme(g: Any, A: float, size: int) -> float:
    """min B over ξ constant on cells, A ≤ ξ ≤ B, E[ξζ_i²] = g_i: such ξ are some of all, so it is never too small."""
    average = cells(len(g), size)
    N = average.shape[1]
    below = sparse.hstack([sparse.identity(N), -np.ones((N, 1))]).tocsr()
    equal = np.hstack([average / N, np.zeros((len(g), 1))])
    bounds = [(A, None)] * (N + 1)
    cost = np.append(np.zeros(N), 1.0)
    found = linprog(
        cost, A_ub=below, b_ub=np.zeros(N), A_eq=equal, b_eq=np.asarray(g), bounds=bounds, method="highs-ipm"
    )
    assert found.status == 0, found.message
    return float(found.fun)


@pytest.mark.parametrize(
    ("g", "A", "sizes"),
    [
        ((1.0, 0.4), 0.0, (100, 400)),
        ((1.0, 0.4), 0.5, (100, 400)),
        ((1.0, 0.7, 0.4), 0.0, (15, 45)),
        ((1.0, 0.9, 0.5), 1.0, (15, 45)),
        ((1.0, 0.8, 0.6, 0.5), 0.0, (6, 12)),
        ((1.0, 0.8, 0.6, 0.5), 0.8, (6, 12)),
    ],
)
def test_linear_programmes(g: tuple[float, ...], A: float, sizes: tuple[int, int]) -> None:
    """HiGHS on a discretised sphere, n = 2, 3, 4: never below the threshold, and closer the finer."""
    threshold = float(orthogonal_threshold(tensor(*g), A, len(g)))
    coarse, fine = (programme(g, A, size) / threshold - 1 for size in sizes)
    assert fine > -1e-7
    assert fine < 0.5 * coarse
    assert fine < {2: 1e-4, 3: 2e-3, 4: 3e-2}[len(g)]


@few
@given(values=spectra_of_g, share=st.floats(0, 0.99))
def test_between_the_bounds(values: list[float], share: float) -> None:
    """necessary ≤ threshold ≤ sufficient, at A = share·n min g; necessary is n max g and sufficient the greatest value
    of ξ(ζ) = (n/2) Σ ((n+2)g_i − Σg) ζ_i², where its least is ≥ A."""
    g, n = tensor(*values), len(values)
    A = share * n * min(values)
    exact = float(orthogonal_threshold(g, A, n))
    necessary, sufficient = (float(x) for x in orthogonal_bounds(g, A, n))
    assert worst(necessary, max(n * max(values), sum(values))) < 1e-14
    assert necessary <= exact * (1 + 1e-12)
    assert exact <= sufficient * (1 + 1e-12)
    if n / 2 * ((n + 2) * min(values) - sum(values)) > A:
        assert worst(sufficient, n / 2 * ((n + 2) * max(values) - sum(values))) < 1e-13
        assert math.isfinite(sufficient)


@few
@given(values=spectra_of_g, c=st.floats(1e-9, 1e9), seed=st.integers(0, 99))
def test_convex_homogeneous_symmetric(values: list[float], c: float, seed: int) -> None:
    """B(A) is convex, (cg, cA) has cB, and the order of g does not matter."""
    g, n = tensor(*values), len(values)
    A = n * g.min() * torch.linspace(0, 0.98, 5, dtype=torch.float64)
    B = orthogonal_threshold(g, A, n)
    assert bool((B[1:-1] <= (B[:-2] + B[2:]) / 2 * (1 + 1e-11)).all())
    assert worst(orthogonal_threshold(c * g, c * A, n), c * B) < 1e-11
    at = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(orthogonal_threshold(g[at], A, n), B)


@pytest.mark.parametrize("spread", [1e-8, 1e-5, 1e-2])
def test_nearly_equal_singular_values(spread: float) -> None:
    """Between n max g and the closed form, which are (n/2)·(n+1)·spread apart; equal ones need B = A = n g alone."""
    g = 1 + spread * tensor(0.0, 0.3, 1.0)
    B = orthogonal_threshold(g, [0.0, 1.0, 2.5], 3)
    necessary, sufficient = orthogonal_bounds(g, [0.0, 1.0, 2.5], 3)
    assert bool((necessary * (1 - 1e-15) <= B).all())
    assert bool((sufficient * (1 + 1e-15) >= B).all())
    assert float((sufficient - necessary).amax()) < 8 * spread
    equal = orthogonal_threshold(torch.full((3,), 0.4).double(), [0.0, 0.5, 1.2 * (1 - 1e-15), 1.3], 3)
    assert worst(equal[:3], 1.2) < 1e-7
    assert float(equal[3]) == math.inf


def test_where_none_is_enough() -> None:
    """∞ for k < n, for zeros among g, and from A = n min g on (with unequal g); finite just below it."""
    for g, n in (((1.0, 0.6), 3), ((1.0, 0.0), 2), ((1.0, 0.5, 0.0), 4)):
        assert bool((orthogonal_threshold(g, [0.0, 0.1], n) == math.inf).all())
        assert all(bool((x == math.inf).all()) for x in orthogonal_bounds(g, [0.0, 0.1], n))
        with pytest.raises(InputError, match="positive singular values"):
            orthogonal_region(g, n)
    B = orthogonal_threshold([1.0, 0.5], [0.5, 0.99, 1 - 1e-9, 1.0, 1.5], 2)
    assert bool((B[:3].diff() > 0).all())
    assert B[2] > 1e3
    assert B[3:].tolist() == [math.inf] * 2


def test_bad_arguments() -> None:
    """A negative or non-finite g or slope, too many g, and one-point regions are refused with the value named."""
    for g, A, words in (
        ([1.0, -0.5], 0.0, "-0.5"),
        ([1.0, math.nan], 0.0, "index"),
        ([1.0, 0.5], -1.0, "-1.0"),
        ([1.0, 0.5], math.inf, "slope"),
        ([1.0, 0.5, 0.3], 0.0, "dim=2"),
        ([[1.0, 0.5]], 0.0, "shape"),
    ):
        for function in (orthogonal_threshold, orthogonal_bounds):
            with pytest.raises(InputError, match=words):
                function(g, A, 2)
    with pytest.raises(InputError, match="points=1"):
        orthogonal_region([1.0, 0.5], 2, points=1)


def test_shapes_and_order() -> None:
    """The result has the shape of the left slopes, scalars among them, and takes lists and any order of g."""
    grid = torch.linspace(0, 0.9, 6).reshape(2, 3)
    B = orthogonal_threshold([0.5, 1.0], grid, 2)
    assert B.shape == (2, 3)
    assert B.dtype == torch.float64
    assert worst(orthogonal_threshold([1.0, 0.5], float(grid[1, 2]), 2), B[1, 2]) < 1e-14


@pytest.mark.parametrize("g", [(1.0, 0.5), (1.0, 0.8, 0.5)])
def test_the_region_is_what_solve_says(g: tuple[float, ...]) -> None:
    """`contains` and `solve(...).orthogonal` agree on a grid of slopes and 1e-6 to either side of the boundary; the
    region's fields are its bounds; and `contains` broadcasts."""
    n = len(g)
    region = orthogonal_region(g, n, points=9)
    assert worst(region.largest_left, n * min(g)) < 1e-15
    assert worst(region.least_right, n * max(g)) < 1e-15
    assert worst(region.threshold, orthogonal_threshold(g, region.left, n)) < 1e-12
    G = rotation(3, n) * tensor(*g) @ rotation(4, n)
    pairs = [(A, B) for A in (0.2, 0.6, 0.95, 1.4, 1.6) for B in (1.9, 2.2, 3.5, 9.0)]
    for A in (0.1, 0.9):
        edge = float(orthogonal_threshold(g, A, n))
        pairs += [(A, edge * (1 - 1e-6)), (A, edge * (1 + 1e-6))]
    expected = region.contains(*(torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True)))
    for (A, B), inside in zip(pairs, expected.tolist(), strict=True):
        solution = solve(G, kinked(A, B, 0.8))
        assert bool(solution.orthogonal) == inside, f"A = {A}, B = {B}"
    assert expected[-4:].tolist() == [False, True] * 2
    assert region.contains([[0.1], [0.9]], [1.0, 100.0, 0.5]).shape == (2, 3)


# --- answers --------------------------------------------------------------------------------------------------

REASONS = {
    "exact": (kinked(0.3, 6.0, 0.7), Reason.EXACT),
    "sufficient": (kinked(0.3, 9.0, 0.7), Reason.SUFFICIENT),
    "wall": (Power(3.0, 0.1) + Wall(0.7), Reason.WALL),
}
SPECTRUM = {"exact": (1.2, 0.7, 0.4), "sufficient": (1.0, 0.9, 0.8), "wall": (1.2, 0.7, 0.4)}


@pytest.mark.parametrize("shape", [(3, 3), (5, 3)])
@pytest.mark.parametrize("name", REASONS)
def test_bit_for_bit_the_polar_factor(name: str, shape: tuple[int, int]) -> None:
    """Q is radius × UVᵀ to the last bit, alone and in a batch of any shape, with the reason and σ = radius."""
    H, reason = REASONS[name]
    g = tensor(*SPECTRUM[name])
    G = torch.stack([rotation(seed, shape[0])[:, :3] * g @ rotation(seed + 9, 3) for seed in range(4)])
    for given_G in (G[0], G, G.reshape(2, 2, *shape)):
        solution = solve(given_G, H)
        reduced = Program(given_G, H).reduce()
        assert torch.equal(solution.Q, 0.7 * reduced.lift(torch.ones_like(reduced.g)))
        assert bool(solution.orthogonal.all())
        assert bool((solution.sigma == 0.7).all())
        assert solution.orthogonality is not None
        assert set(solution.orthogonality.reasons) == {reason}
        assert all(s is Status.OPTIMAL for s in solution.statuses)
        assert worst(solution.value, float(H(0.7)) - 0.7 * float(g.sum())) < 1e-13


@pytest.mark.parametrize("g", [(1.0, 0.5), (1.0, 0.7, 0.4), (1.0, 0.9, 0.5, 0.45, 0.4)])
def test_either_side_of_the_threshold(g: tuple[float, ...]) -> None:
    """At B = threshold(1 + 1e-6) the answer is flat; at threshold(1 − ε) it is not, lies within 1e-3 of flat for
    ε = 1e-6 and moves away from it continuously: the distance falls with ε."""
    n, A = len(g), 0.3
    B = float(orthogonal_threshold(g, A, n))
    G = torch.diag(tensor(*g))
    above = solve(G, kinked(A, B * (1 + 1e-6)))
    assert bool(above.orthogonal)
    assert bool((above.sigma == 1).all())
    distances = []
    for epsilon in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        below = solve(G, kinked(A, B * (1 - epsilon)))
        assert not bool(below.orthogonal)
        distances.append(float((below.sigma - 1).abs().max()))
    assert distances[-1] < 1e-3
    assert all(far > near for far, near in pairwise(distances))
    assert distances[-1] > 0


def averages(xi: Any, n: int, samples: int = 400_000) -> tuple[Tensor, Tensor]:
    """E[ξ(ζ)ζ_i²] (n,) and its standard errors: by 2e5 angles for n = 2, by samples else."""
    if n == 2:
        angle = (torch.arange(200_000, dtype=torch.float64) + 0.5) * math.pi / 200_000
        zeta = torch.stack([angle.cos(), angle.sin()], -1)
        return (xi(zeta)[:, None] * zeta.square()).mean(0), torch.full((2,), 1e-5, dtype=torch.float64)
    z = torch.randn(samples, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    zeta = z / z.norm(dim=-1, keepdim=True)
    terms = xi(zeta)[:, None] * zeta.square()
    return terms.mean(0), terms.std(0) / samples**0.5


@pytest.mark.parametrize("g", [(1.0, 0.5), (1.0, 0.9), (1.0, 0.7, 0.4), (1.0, 0.9, 0.8), (1.0, 0.9, 0.5, 0.45, 0.4)])
def test_the_multiplier_proves_it(g: tuple[float, ...]) -> None:
    """A ≤ ξ ≤ B and E[ξζ_i²] = g_i for the multiplier of a flat answer, over angles or within five standard errors:
    then F* = H(r̃) − r̃Σg, whatever the solver says. Off the flat answers ξ is NaN."""
    n, A, radius = len(g), 0.3, 0.6
    threshold = float(orthogonal_threshold(g, A, n))
    for B in (threshold * 1.01, threshold * 3):
        solution = solve(torch.diag(tensor(*g)), kinked(A, B, radius))
        why = solution.orthogonality
        assert why is not None
        zeta = torch.nn.functional.normalize(matrix(5, 10_000, n), dim=-1)
        xi = why.multiplier(zeta)
        assert float(xi.min()) >= A * (1 - 1e-12)
        assert float(xi.max()) <= B * (1 + 1e-12)
        found, error = averages(why.multiplier, n)
        assert bool(((found - why.g).abs() <= 5 * error).all())
        assert worst(solution.value, A / 2 * radius - radius * sum(g)) < 1e-13
    off = solve(torch.diag(tensor(*g)), kinked(A, threshold * 0.9, radius)).orthogonality
    assert off is not None
    assert bool(off.multiplier(torch.eye(n, dtype=torch.float64)).isnan().all())


@pytest.mark.long
@pytest.mark.parametrize("g", [(1.0, 0.7, 0.4), (1.0, 0.95, 0.9)])
def test_finer_linear_programmes(g: tuple[float, ...]) -> None:
    """n = 3 on 150² cells: within 2e-4 of the threshold, from above."""
    threshold = float(orthogonal_threshold(tensor(*g), 0.2, 3))
    excess = programme(g, 0.2, 150) / threshold - 1
    assert -1e-7 < excess < 2e-4
