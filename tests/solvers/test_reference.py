"""cvxpy on sampled ζ: it solves the sampled program it states, and agrees with the exact one as sampling allows."""

from __future__ import annotations

import math
import sys

import cvxpy
import pytest
import torch
from torch import Tensor

from icm.curvature import Curvature, Custom, Power, parse
from icm.errors import CurvatureError, MissingPackageError, SolveError
from icm.program import Program
from icm.solvers import Status, solve
from icm.solvers.reference import solve_reference
from icm.sphere.sampling import directions

SAMPLES = 300
# Clarabel stops at 1e−8 in the value, which is 1e−4 in Q.


@pytest.fixture
def G(rng: torch.Generator) -> Tensor:
    return torch.randn(4, 3, generator=rng, dtype=torch.float64)


def sampled_objective(Q: Tensor, G: Tensor, H: Curvature, samples: int, seed: int) -> float:
    lengths = (directions(samples, G.shape[-1], seed) @ Q.mT).norm(dim=-1)
    return float(H(lengths).mean() - (Q * G).sum())


@pytest.mark.parametrize("shape", [(4, 3), (2, 3), (1, 3), (3, 1), (1, 1)], ids=str)
def test_quadratic_in_closed_form(shape: tuple[int, int], rng: torch.Generator):
    """H = r²: the sampled optimum is Q = ½ G S⁻¹, S = (1/N) Σ ζζᵀ."""
    G = torch.randn(*shape, generator=rng, dtype=torch.float64)
    zeta = directions(SAMPLES, shape[1], seed=3)
    expected = 0.5 * G @ torch.linalg.inv(zeta.mT @ zeta / SAMPLES)
    found = solve_reference(Program(G, "r^2"), samples=SAMPLES, seed=3)
    assert found.status is Status.SAMPLED
    torch.testing.assert_close(found.Q, expected, rtol=0, atol=1e-4 * float(expected.norm()))
    torch.testing.assert_close(found.sigma, torch.linalg.svdvals(found.Q))


def test_spectral_quadratic_in_closed_form(G: Tensor):
    """H = r², reduced: σ_i = g_i / (2 mean ζ_i²), and Q is aligned with G."""
    found = solve_reference(Program(G, "r^2"), samples=SAMPLES, seed=3, spectral=True)
    expected = found.g / (2 * directions(SAMPLES, 3, seed=3).square().mean(0))
    torch.testing.assert_close(found.sigma, expected, rtol=0, atol=1e-4 * float(expected.norm()))
    torch.testing.assert_close(found.Q, Program(G, "r^2").reduce().lift(found.sigma))
    assert found.method == "spectral-reference"


@pytest.mark.parametrize("text", ["r^1.5", "r^2.39", "r^4", "exp(1)", "r^2 + r"])
def test_the_sampled_optimum_is_one(text: str, G: Tensor):
    """No other Q does better on the same samples, and the exact gap covers the exact loss."""
    G, H = 3 * G, parse(text)
    exact = solve(G, H)
    found = solve_reference(Program(G, H), samples=SAMPLES, seed=1)
    best = sampled_objective(found.Q, G, H, SAMPLES, 1)
    slack = 1e-6 * float((G * found.Q).sum())
    for other in (exact.Q, 1.01 * found.Q, 0.99 * found.Q, found.Q + 0.01 * found.Q.flip(0), found.Q - 0.01 * G):
        assert best <= sampled_objective(other, G, H, SAMPLES, 1) + slack
    loss = float(found.value - exact.value)
    assert loss >= -float(exact.gap)
    assert loss <= float(found.gap)
    assert float(found.relative_gap) < 0.5
    torch.testing.assert_close(found.value, Program(G, H).objective(found.Q))


@pytest.mark.parametrize(
    ("text", "samples", "spectral"),
    [("r^1.5", 300, False), ("r^3", 300, False), ("exp(1)", 300, False), ("r^4", 2000, True)],
)
def test_agrees_with_the_exact_optimum_within_sampling_error(
    text: str, samples: int, spectral: bool, rng: torch.Generator
):
    """Over seeds, the mean of Q_ref lies within three of its standard errors of Q* (both as Frobenius norms)."""
    shape = (6, 6) if spectral else (4, 3)
    G = torch.randn(*shape, generator=rng, dtype=torch.float64)
    program, exact = Program(G, text), solve(G, text)
    found = [solve_reference(program, samples=samples, seed=100 + i, spectral=spectral) for i in range(6)]
    Q = torch.stack([solution.Q for solution in found])
    standard_error = float((Q.var(0).sum() / len(Q)).sqrt())
    assert float((Q.mean(0) - exact.Q).norm()) <= 3 * standard_error
    assert standard_error <= 0.05 * float(exact.Q.norm())
    assert all(0 <= float(s.value - exact.value) <= float(s.gap) for s in found)


KINK, BOTH = "0.5*r^2 + 2*kink(1)", "0.5*r^2 + 2*kink(1) + wall(1.3)"
TABLE = "tabulated(1, 0.5, 2, 2) + 0.1*r^2"


@pytest.mark.parametrize(
    ("text", "size", "shape", "spectral"),
    [
        (KINK, 1.0, (4, 3), False),
        (KINK, 1.0, (2, 4), True),
        (KINK, 0.4, (3, 3), False),
        (BOTH, 1.5, (4, 3), False),
        (BOTH, 1.5, (6, 5), True),
        ("wall(0.8)", 1.0, (4, 3), False),
        ("wall(0.8)", 1.0, (2, 4), True),
        (TABLE, 0.4, (4, 3), False),
        (TABLE, 0.4, (2, 3), True),
    ],
)
def test_kinks_walls_and_tables_within_sampling_error(
    text: str, size: float, shape: tuple[int, int], spectral: bool, rng: torch.Generator
):
    """As above; and Q is inside the wall for every ζ, not only for those sampled. Answers on a kink or wall do not vary
    with the samples: there Clarabel's own accuracy is what is left."""
    G = size * torch.randn(*shape, generator=rng, dtype=torch.float64)
    program, exact = Program(G, text), solve(G, text)
    found = [solve_reference(program, samples=SAMPLES, seed=100 + i, spectral=spectral) for i in range(6)]
    Q = torch.stack([solution.Q for solution in found])
    standard_error = float((Q.var(0).sum() / len(Q)).sqrt())
    assert float((Q.mean(0) - exact.Q).norm()) <= 3 * standard_error + 5e-4 * float(exact.Q.norm())
    assert standard_error <= 0.1 * float(exact.Q.norm())
    assert float(torch.linalg.svdvals(Q).max()) <= program.H.wall * (1 + 1e-14)
    for s in found:
        assert -float(exact.gap) <= float(s.value - exact.value) <= float(s.gap) < math.inf


@pytest.mark.parametrize("spectral", [False, True])
def test_a_wall_holds_between_the_samples(spectral: bool, rng: torch.Generator):
    """Two samples of six inputs bound nothing else: the answer is r̃UVᵀ, and its gap is Clarabel's accuracy."""
    G = torch.randn(4, 6, generator=rng, dtype=torch.float64)
    found = solve_reference(Program(G, "wall(3)"), 1e-6, samples=2, spectral=spectral)
    assert found.status is Status.OPTIMAL
    assert float(torch.linalg.svdvals(found.Q)[0]) <= 3 * (1 + 1e-14)
    torch.testing.assert_close(found.value, -3 * found.g.sum(), rtol=1e-6, atol=0)


def test_a_gap_beside_a_flat_optimum_is_that_of_the_flat_neighbour(rng: torch.Generator):
    """Clarabel leaves 1e−6 of spread around the kink, where gradients of F mean little; the gap stays small."""
    G = 0.1 * torch.randn(3, 3, generator=rng, dtype=torch.float64) + torch.eye(3, dtype=torch.float64)
    found, exact = (
        solve_reference(Program(G, "0.5*r^2 + 50*kink(1)"), samples=SAMPLES),
        solve(G, "0.5*r^2 + 50*kink(1)"),
    )
    assert bool(exact.orthogonal)
    assert float(found.value - exact.value) <= float(found.gap) <= 1e-3 * float(found.gain)


@pytest.mark.parametrize("c", [1e4, 1e-8, 1e30])
@pytest.mark.parametrize("spectral", [False, True])
def test_any_scale(c: float, spectral: bool, G: Tensor):
    def run(G: Tensor, H: Curvature) -> Tensor:
        return solve_reference(Program(G, H), samples=100, seed=2, spectral=spectral).Q

    base = run(G, Power(3.0))
    torch.testing.assert_close(run(c * G, Power(3.0)) / c**0.5, base, rtol=0, atol=1e-5 * float(base.norm()))
    H = 0.5 * Power(2.0) + Power(4.0)
    base = run(G, H)
    torch.testing.assert_close(run(c * G, c * H), base, rtol=0, atol=1e-5 * float(base.norm()))


def test_batches_and_dtypes(G: Tensor):
    batch = torch.stack([G, torch.zeros_like(G), 2 * G]).float()
    found = solve_reference(Program(batch, "r^3"), samples=100, seed=0)
    assert found.statuses == (Status.SAMPLED, Status.OPTIMAL, Status.SAMPLED)
    assert found.Q.dtype is torch.float32
    assert not bool(found.Q[1].any())
    alone = solve_reference(Program(batch[2], "r^3"), samples=100, seed=0)
    torch.testing.assert_close(found.Q[2], alone.Q)
    assert found.iterations.tolist()[1] == 0


def test_tol_decides_the_status(G: Tensor):
    def status(tol: float) -> Status:
        return solve_reference(Program(G, "r^2"), tol, samples=SAMPLES).status

    assert status(0.9) is Status.OPTIMAL
    assert status(1e-6) is Status.STALLED


def test_reduced_accuracy_is_not_called_optimal(G: Tensor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cvxpy.Problem, "status", property(lambda self: "optimal_inaccurate"))
    assert solve_reference(Program(G, "r^2"), samples=SAMPLES).status is Status.INACCURATE
    # A tol is checked against the exact gap, which needs nobody's word.
    assert solve_reference(Program(G, "r^2"), 0.9, samples=SAMPLES).status is Status.OPTIMAL


def test_unbounded_and_zero_are_decided_before(G: Tensor):
    batch = torch.stack([100 * G, 0.001 * G])
    found = solve_reference(Program(batch, "r"), samples=SAMPLES)
    assert found.statuses == (Status.UNBOUNDED, Status.OPTIMAL)
    assert found.direction is not None
    assert not bool(found.Q[1].any())


def test_failure_names_clarabels_status_and_the_element(G: Tensor):
    """Two samples do not span three inputs: the sampled program is unbounded."""
    with pytest.raises(SolveError, match=r"'unbounded.*2 samples of dimension 3"):
        solve_reference(Program(G, "r^3"), samples=2)
    with pytest.raises(SolveError, match="batch element 1: Clarabel"):
        solve_reference(Program(torch.stack([torch.zeros_like(G), G]), "r^3"), samples=2)


def test_custom_needs_a_cvxpy_form(G: Tensor):
    with pytest.raises(CurvatureError, match="cvxpy_form"):
        solve_reference(Program(G, Custom(lambda r: r**3)), samples=50)
    G = G[:, :2]
    H = Custom(lambda r: r**3, cvxpy_form=lambda t: cvxpy.power(t, 3, approx=False))
    found, expected = (solve_reference(Program(G, each), samples=50).Q for each in (H, Power(3.0)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.norm()))


def test_missing_packages_are_named(G: Tensor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cvxpy, "installed_solvers", lambda: ["SCS"])
    with pytest.raises(MissingPackageError, match="pip install clarabel"):
        solve_reference(Program(G, "r^2"))
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(MissingPackageError, match="pip install cvxpy"):
        solve_reference(Program(G, "r^2"))
