"""Inputs with a second moment: closed forms, sampled inputs, cvxpy on the unwhitened program, and the certificate."""

from __future__ import annotations

import math
from pathlib import Path

import mpmath
import pytest
import torch
from torch import Tensor

import icm
from icm.errors import InputError, SolveError
from icm.program import Program
from icm.program.ellipsoidal import Ellipsoid
from icm.solvers import Status
from icm.solvers.solve import Method, solve_program

SHAPES = [(5, 4), (4, 7), (6, 6), (1, 3), (3, 1)]
CURVATURES = ["r^3", "r^2 + r^4", "wall(0.5)", "r^2 + wall(0.1)", "0.5*r^2 + 5*kink(0.3)", "r^3 + 2*r", "exp(1)"]


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def moment(rng: torch.Generator, n: int, condition: float, *batch: int) -> Tensor:
    """A random C (…, n, n) of this condition number, of no particular trace."""
    V = torch.linalg.qr(normal(rng, *batch, n, n)).Q
    C = (V * torch.logspace(0.7, 0.7 - math.log10(condition), n, dtype=torch.float64)) @ V.mT
    return 0.5 * (C + C.mT)


def at_trace(C: Tensor) -> Tensor:
    return C * (C.shape[-1] / C.diagonal(dim1=-2, dim2=-1).sum(-1))[..., None, None]


def inputs(rng: torch.Generator, C: Tensor, samples: int) -> Tensor:
    """ζ = C^{1/2} ζ₀ (samples, n), by Cholesky."""
    zeta = torch.nn.functional.normalize(normal(rng, samples, len(C)), dim=-1)
    return zeta @ torch.linalg.cholesky(at_trace(C)).mT


def given(x: Tensor | None) -> Tensor:
    assert x is not None
    return x


def polar(X: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    return U @ Vh


def distance(Q: Tensor, wanted: Tensor) -> float:
    size = float(torch.linalg.norm(wanted.double()))
    return float(torch.dist(Q.double(), wanted.double())) / (size or 1.0)


@pytest.mark.parametrize("H", CURVATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_identity_gives_the_isotropic_solution(rng: torch.Generator, shape: tuple[int, int], H: str) -> None:
    """To the last digit, asked for as much: a quarter of tol is what the whitened program is solved to."""
    G, identity = normal(rng, *shape), torch.eye(shape[-1], dtype=torch.float64)
    found = icm.solve(G, H, tol=1e-10, input_moment=2.0**9 * identity)
    plain = icm.solve(G, H, tol=0.25e-10)
    assert distance(found.Q, plain.Q) <= 1e-15
    assert float((found.value - plain.value).abs()) <= 1e-14 * float(plain.gain)
    torch.testing.assert_close(found.sigma, plain.sigma, rtol=1e-15, atol=0.0)
    assert plain.input_moment is None
    assert torch.equal(given(found.input_moment), identity)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_quadratic_curvature_gives_the_preconditioned_gradient(rng: torch.Generator, shape: tuple[int, int]) -> None:
    """Q = (n/2c) G C⁻¹."""
    G, C, n = normal(rng, *shape), moment(rng, shape[-1], 1e3), shape[-1]
    found = icm.solve(G, "0.7*r^2", input_moment=C)
    assert distance(found.Q, n / 1.4 * torch.linalg.solve(at_trace(C), G, left=False)) <= 1e-12


@pytest.mark.parametrize("shape", [(5, 4), (4, 7), (6, 6)])
def test_a_wall_gives_the_polar_factor_by_any_factor_of_c(rng: torch.Generator, shape: tuple[int, int]) -> None:
    """Q = r̃ msgn(G L⁻ᵀ) L⁻¹ for LLᵀ = C; Newton-Muon's msgn(G C⁻¹) is another matrix."""
    G, C = normal(rng, *shape), moment(rng, shape[-1], 1e3)
    found = icm.solve(G, "wall(0.5)", input_moment=C)
    L = torch.linalg.cholesky(at_trace(C))
    white = torch.linalg.solve_triangular(L, G.mT, upper=False).mT
    assert distance(found.Q, 0.5 * torch.linalg.solve_triangular(L, polar(white), upper=False, left=False)) <= 1e-12
    assert bool(found.orthogonal)
    newton_muon = polar(torch.linalg.solve(at_trace(C), G, left=False))
    cosine = (newton_muon * found.Q).sum() / (newton_muon.norm() * found.Q.norm())
    assert float(cosine) < 0.95
    longest = newton_muon * (0.5 / torch.linalg.matrix_norm(newton_muon @ L, 2))  # what of it the wall allows
    assert float(Program(G, "wall(0.5)", C).objective(longest)) > float(found.value) + 0.05 * float(found.gain)


@pytest.mark.parametrize("H", ["r^3", "r^2 + 3*kink(0.5)", "exp(1)"])
def test_the_objective_is_a_mean_over_inputs_of_that_moment(rng: torch.Generator, H: str) -> None:
    G, C, Q = normal(rng, 5, 4), moment(rng, 4, 100.0), normal(rng, 5, 4)
    lengths = (inputs(rng, C, 400_000) @ Q.mT).norm(dim=-1)
    values = icm.parse(H)(lengths)
    error = float(values.std()) / math.sqrt(len(values))
    exact = float(Program(G, H, C).objective(Q) + (Q * G).sum())
    assert abs(float(values.mean()) - exact) <= 4.5 * error
    isotropic = float(Program(G, H).objective(Q) + (Q * G).sum())
    assert abs(isotropic - exact) > 20 * error


def test_samples_of_the_moment_have_the_moment(rng: torch.Generator) -> None:
    """E ζζᵀ = C/n at trace n."""
    C = moment(rng, 4, 100.0)
    zeta = inputs(rng, C, 400_000)
    torch.testing.assert_close(4 * zeta.mT @ zeta / len(zeta), at_trace(C), rtol=0.0, atol=0.02)


@pytest.mark.parametrize("H", ["r^3", "wall(0.5)", "r^2 + 3*kink(0.2)"])
def test_cvxpy_on_samples_in_q_itself_comes_to_the_same_optimum(rng: torch.Generator, H: str) -> None:
    """The oracle knows nothing of whitening: it samples ζ and moves Q."""
    pytest.importorskip("cvxpy")
    G, C = normal(rng, 4, 3), moment(rng, 3, 30.0)
    exact = icm.solve(G, H, input_moment=C)
    sampled = icm.solve(G, H, method="reference", samples=1500, seed=1, input_moment=C)
    assert sampled.status is Status.SAMPLED
    assert distance(sampled.Q, exact.Q) <= (1e-4 if "wall" in H else 0.08)
    loss = float(sampled.value - exact.value)
    assert -float(exact.gap) <= loss <= min(0.01 * float(exact.gain), float(sampled.gap))
    isotropic = icm.solve(G, H)
    assert distance(isotropic.Q, exact.Q) > 0.3


@pytest.mark.parametrize("H", CURVATURES)
@pytest.mark.parametrize("condition", [1e2, 1e8])
def test_no_perturbation_does_better_than_the_gap_allows(rng: torch.Generator, H: str, condition: float) -> None:
    G, C = normal(rng, 5, 4), moment(rng, 4, condition)
    found = icm.solve(G, H, input_moment=C)
    program = Program(G, H, C)
    assert float(found.relative_gap) <= 1e-9
    assert float((program.objective(found.Q) - found.value).abs()) <= float(found.gap)
    back = torch.linalg.inv(torch.linalg.cholesky(at_trace(C)))
    size = torch.linalg.norm(found.sigma)
    for scale in (1e-7, 1e-4, 1e-2):
        for basis in (torch.eye(4, dtype=torch.float64), back):
            deltas = normal(rng, 40, 5, 4) @ basis
            deltas = deltas * (scale * size / torch.linalg.matrix_norm(deltas @ torch.linalg.inv(back)))[:, None, None]
            for start in (1.0, 1 - scale):  # under a wall only what is shortened can stay finite
                moved = program.objective(start * found.Q + deltas)
                assert float(moved.min()) >= float(found.value - found.gap)


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8, 1e10])
def test_the_whitener_is_as_exact_as_its_floats(rng: torch.Generator, condition: float) -> None:
    """‖S C Sᵀ − I‖_F ≤ δ in 50 digits, δ of the order of ε√cond and not of ε·cond; R is C Sᵀ."""
    C = moment(rng, 6, condition)
    found = Ellipsoid.of(C, torch.zeros(2, 6, dtype=torch.float64))
    with mpmath.workdps(50):
        S, R, exact = (mpmath.matrix(x.tolist()) for x in (found.S, found.R, found.C))
        left = float(mpmath.norm(list(S * exact * S.T - mpmath.eye(6))))
        apart = float(mpmath.norm(list(S * (R - exact * S.T))))
    assert left + apart <= float(found.delta) <= 2e-15 * 6 + 8e-16 * condition**0.5


@pytest.mark.parametrize("H", ["r^3", "wall(0.5)", "r^3 + kink(0.3)"])
@pytest.mark.parametrize("condition", [10.0, pytest.param(1e8, marks=pytest.mark.long)])
def test_ball_arithmetic_proves_the_gap(rng: torch.Generator, H: str, condition: float) -> None:
    pytest.importorskip("flint")
    G, C = normal(rng, 4, 3), moment(rng, 3, condition)
    found = icm.solve(G, H, input_moment=C)
    proof = icm.enclose(found)
    assert proof.optimum.lower <= float(found.value)
    assert float(found.value) - float(found.gap) <= proof.optimum.upper
    assert proof.gap <= 1e-9 * float(found.gain)
    if not proof.shrink:
        assert proof.value.lower - float(found.gap) <= float(found.value) <= proof.value.upper + float(found.gap)


def test_the_enclosure_of_a_wrong_q_shows_a_large_gap(rng: torch.Generator) -> None:
    pytest.importorskip("flint")
    from dataclasses import replace

    G, C = normal(rng, 4, 3), moment(rng, 3, 100.0)
    found = icm.solve(G, "r^3", input_moment=C)
    proof = icm.enclose(replace(found, Q=icm.solve(G, "r^3").Q))
    assert proof.gap > 1e-2 * float(found.gain)


def test_batches_are_their_elements(rng: torch.Generator) -> None:
    G, C = normal(rng, 2, 3, 5, 4), moment(rng, 4, 1e3, 3)
    together = icm.solve(G, "r^3", input_moment=C)
    assert together.Q.shape == G.shape
    assert given(together.input_moment).shape == (3, 4, 4)
    for i in range(2):
        for j in range(3):
            alone = icm.solve(G[i, j], "r^3", input_moment=C[j])
            assert distance(together.Q[i, j], alone.Q) <= 1e-11
            assert float(together.value[i, j] - alone.value) == pytest.approx(0.0, abs=1e-12 * float(alone.gain))
    shared = icm.solve(G, "r^3", input_moment=C[0])
    assert distance(shared.Q[1, 0], together.Q[1, 0]) <= 1e-11


@pytest.mark.parametrize("H", ["r^3", "wall(0.5)", "0.5*r^2 + 5*kink(0.1)"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types_are_certified_at_their_own_q(rng: torch.Generator, dtype: torch.dtype, H: str) -> None:
    G, C = normal(rng, 9, 7).to(dtype), moment(rng, 7, 1e2)
    found = icm.solve(G, H, input_moment=C.float())
    assert (found.Q.dtype, found.value.dtype) == (dtype, torch.float64)
    wide = icm.solve(G.double(), H, input_moment=C.float())
    value = Program(G.double(), H, C.float()).objective(found.Q.double())
    assert math.isfinite(float(value))
    assert float((value - found.value).abs()) <= 1e-12 * float(wide.gain)
    assert float(value - wide.value) <= float(found.gap)
    assert float(found.gain) == pytest.approx(float((found.Q.double() * G.double()).sum()), rel=1e-12)


def test_a_type_too_narrow_for_the_moment_is_told_by_the_gap(rng: torch.Generator) -> None:
    G, C = normal(rng, 9, 7).bfloat16(), moment(rng, 7, 1e8)
    with pytest.raises(SolveError, match="float64"):
        icm.solve(G, "wall(0.5)", input_moment=C)
    found = icm.solve(G, "wall(0.5)", input_moment=C, on_failure="return")
    wide = icm.solve(G.double(), "wall(0.5)", input_moment=C)
    loss = float(Program(G.double(), "wall(0.5)", C).objective(found.Q.double()) - wide.value)
    assert 0.02 * float(wide.gain) < loss <= float(found.gap)


@pytest.mark.parametrize("H", ["r^3", "wall(0.5)", "r^3 + kink(0.3)"])
def test_a_gradient_of_low_rank(rng: torch.Generator, H: str) -> None:
    """Q has the rank of G, and G's row space times C⁻¹."""
    G, C = normal(rng, 6, 2) @ normal(rng, 2, 5), moment(rng, 5, 1e3)
    found = icm.solve(G, H, input_moment=C)
    assert int(torch.linalg.matrix_rank(found.Q, rtol=1e-9)) == 2
    rows = torch.linalg.svd(torch.linalg.solve(at_trace(C), G, left=False)).Vh[:2]
    assert distance(found.Q @ rows.mT @ rows, found.Q) <= 1e-9
    assert float(icm.solve(0 * G, H, input_moment=C).Q.abs().max()) == 0.0


@pytest.mark.parametrize("method", ["newton", "matrix", "products", "spectral-reference"])
def test_every_method_takes_the_moment(rng: torch.Generator, method: Method) -> None:
    if method == "spectral-reference":
        pytest.importorskip("cvxpy")
    G, C = normal(rng, 6, 4), moment(rng, 4, 1e2)
    exact = icm.solve(G, "r^3", input_moment=C)
    tol = 1e-2 if method == "products" else None
    found = icm.solve(G, "r^3", method=method, tol=tol, input_moment=C)
    within = {"newton": 1e-12, "matrix": 1e-6, "products": 1e-2, "spectral-reference": 0.1}[method]
    assert (
        distance(found.Q @ torch.linalg.cholesky(at_trace(C)), exact.Q @ torch.linalg.cholesky(at_trace(C))) <= within
    )
    assert float(found.value - exact.value) <= float(found.gap) + 1e-8 * float(exact.gain)
    if method == "products":
        assert float(given(found.error)) <= 1e-2


def test_the_program_has_its_own_gradient(rng: torch.Generator) -> None:
    """Central differences of F, and zero at the optimum."""
    G, C, Q = normal(rng, 3, 4), moment(rng, 4, 50.0), normal(rng, 3, 4)
    program = Program(G, "r^3 + r^2", C)
    slope, step = program.gradient(Q), 1e-5
    for i in range(3):
        for j in range(4):
            e = torch.zeros(3, 4, dtype=torch.float64)
            e[i, j] = step
            difference = (program.objective(Q + e) - program.objective(Q - e)) / (2 * step)
            assert float(slope[i, j]) == pytest.approx(float(difference), rel=1e-6, abs=1e-6)
    assert float(program.gradient(program.solve().Q).norm()) <= 1e-8 * float(G.norm())


def test_the_reduction_leads_back_to_updates(rng: torch.Generator) -> None:
    G, C = normal(rng, 3, 4), moment(rng, 4, 50.0)
    program = Program(G, "r^3", C)
    reduced, found = program.reduce(), program.solve()
    assert distance(reduced.lift(found.sigma), found.Q) <= 1e-13
    assert float(reduced.objective(found.sigma)) == pytest.approx(float(program.objective(found.Q)), rel=1e-12)
    L = torch.linalg.cholesky(at_trace(C))
    torch.testing.assert_close(found.sigma, torch.linalg.svdvals(found.Q @ L), rtol=1e-11, atol=0.0)
    torch.testing.assert_close(found.g, torch.linalg.svdvals(G @ torch.linalg.inv(L).mT), rtol=1e-11, atol=0.0)
    assert torch.equal(solve_program(program, reduced=reduced).Q, found.Q)


@pytest.mark.parametrize("H", ["r^3", "r^2 + wall(0.2)"])
def test_solutions_are_differentiable_in_g(rng: torch.Generator, H: str) -> None:
    G, C, weight = normal(rng, 3, 4).requires_grad_(), moment(rng, 4, 50.0), normal(rng, 3, 4)

    def scalar(G: Tensor) -> Tensor:
        found = icm.solve(G, H, tol=1e-12, on_failure="return", input_moment=C)
        return (found.Q * weight).sum() + found.value + 0.3 * found.gain

    (slope,) = torch.autograd.grad(scalar(G), G)
    with torch.no_grad():
        for _ in range(4):
            e = 1e-5 * normal(rng, 3, 4)
            difference = scalar(G + e) - scalar(G - e)
            assert float(2 * (slope * e).sum()) == pytest.approx(float(difference), rel=2e-5)
    assert torch.equal(icm.solve(G, H, input_moment=C).Q.detach(), icm.solve(G.detach(), H, input_moment=C).Q)


def test_solutions_are_differentiable_in_the_numbers_of_h(rng: torch.Generator) -> None:
    G, C = normal(rng, 3, 4), moment(rng, 4, 50.0)
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    icm.solve(G, c * icm.Power(2.0), input_moment=C).Q.sum().backward()
    wanted = -(4 / (2 * 0.7**2)) * torch.linalg.solve(at_trace(C), G, left=False).sum()
    assert float(given(c.grad)) == pytest.approx(float(wanted), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-300, 1e300])
def test_the_scale_of_the_moment_does_not_matter(rng: torch.Generator, scale: float) -> None:
    G, C = normal(rng, 5, 4), moment(rng, 4, 1e2)
    for H in ("r^3", "wall(0.5)"):
        assert distance(icm.solve(G, H, input_moment=scale * C).Q, icm.solve(G, H, input_moment=C).Q) <= 1e-12


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_the_gradient_does_not_matter(rng: torch.Generator, scale: float) -> None:
    G, C = normal(rng, 5, 4), moment(rng, 4, 1e2)
    found = icm.solve(scale * G, scale * icm.Power(3.0), input_moment=C)
    assert distance(found.Q, icm.solve(G, "r^3", input_moment=C).Q) <= 1e-11


def test_a_normalised_moment_stays_as_it_is(rng: torch.Generator) -> None:
    for condition in (1.0, 1e3, 1e8):
        once = given(Program(torch.eye(7), "r^2", moment(rng, 7, condition)).input_moment)
        assert float(once.trace()) == pytest.approx(7.0, rel=1e-15)
        assert torch.equal(given(Program(torch.eye(7), "r^2", once).input_moment), once)


def test_an_unbounded_program_falls_along_its_direction(rng: torch.Generator) -> None:
    G, C = normal(rng, 5, 4), moment(rng, 4, 1e2)
    found = icm.solve(G, "0.01*r", input_moment=C)
    assert found.status is Status.UNBOUNDED
    assert float(found.value) == -math.inf
    assert float(given(found.direction).norm()) == pytest.approx(1.0, rel=1e-12)
    program = Program(G, "0.01*r", C)
    falls = [float(program.objective(t * given(found.direction))) for t in (1.0, 10.0, 100.0)]
    assert falls[0] < 0
    assert falls[2] == pytest.approx(100 * falls[0], rel=1e-9)


def test_comparisons_and_pictures(rng: torch.Generator, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    G, C = normal(rng, 5, 4), moment(rng, 4, 1e2)
    compared = icm.compare(G, ["r^2", "wall(1)"], input_moment=C)
    white = torch.linalg.svdvals(G @ torch.linalg.inv(torch.linalg.cholesky(at_trace(C))).mT)
    assert compared.gradient.condition == pytest.approx(float(white[0] / white[-1]), rel=1e-9)
    assert compared.summaries[0].cosine_gradient == pytest.approx(1.0, abs=1e-12)
    assert compared.summaries[1].condition == pytest.approx(1.0, abs=1e-9)
    assert distance(compared.solutions[1].Q, icm.solve(G, "wall(1)", input_moment=C).Q) == 0.0
    compared.plot(tmp_path / "a.svg")
    compared.solutions[0].plot(tmp_path / "b.svg")
    assert (tmp_path / "b.svg").stat().st_size > 1000


def bad_moments() -> dict[str, tuple[object, str]]:
    eye = torch.eye(3, dtype=torch.float64)
    return {
        "shape": (torch.eye(4), r"shape \(4, 4\).*3 inputs"),
        "vector": (torch.ones(3), r"shape \(3,\)"),
        "batch": (torch.eye(3).expand(2, 3, 3), "does not broadcast"),
        "singular": (torch.diag(torch.tensor([1.0, 1.0, 0.0])), "smallest eigenvalue is 0 .*ridge"),
        "indefinite": (torch.diag(torch.tensor([1.0, 1.0, -0.5])), "indefinite.*-0.5 .*ridge"),
        "zero": (0 * eye, "trace"),
        "nan": (eye.masked_fill(eye > 0, math.nan), "non-finite"),
        "asymmetric": (eye + torch.triu(torch.ones(3, 3), 1), "not symmetric"),
        "grad": (eye.clone().requires_grad_(), r"detach\(\)"),
    }


@pytest.mark.parametrize("name", list(bad_moments()))
def test_moments_that_cannot_be_used_are_refused(name: str) -> None:
    C, message = bad_moments()[name]
    with pytest.raises(InputError, match=message):
        icm.solve(torch.ones(2, 3, dtype=torch.float64), "r^3", input_moment=C)


def test_methods_without_derivatives_refuse_a_tracked_gradient(rng: torch.Generator) -> None:
    with pytest.raises(InputError, match="not differentiable"):
        icm.solve(normal(rng, 2, 3).requires_grad_(), "r^3", method="matrix", input_moment=torch.eye(3))


def test_a_q_beyond_the_wall_has_no_gradient(rng: torch.Generator) -> None:
    G, C = normal(rng, 3, 4), moment(rng, 4, 50.0)
    program = Program(G, "wall(0.5)", C)
    Q = program.solve().Q
    assert float(program.objective(1.001 * Q)) == math.inf
    with pytest.raises(InputError, match=r"multiply Q by 0\.999"):
        program.gradient(1.001 * Q)
