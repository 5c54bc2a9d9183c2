"""The derivative of a solve against differences of solves, closed forms, and torch's own autograd."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import icm
from icm.errors import InputError, SolveError
from icm.solvers import Reason, Status, pullback
from tests.solvers.problems import distance, matrix, rotation

SQUARE = icm.Power(2.0, scale=0.5)
TABLE = icm.Tabulated([0.5, 1.0, 2.0, 3.0], [0.1, 0.5, 2.0, 5.0])
FAMILIES: dict[str, icm.Curvature] = {
    "r^3": icm.Power(3.0),
    "r^1.5": icm.Power(1.5),
    "r^2": icm.Power(2.0, scale=0.7),
    "r^2 + r^4": icm.Power(2.0) + icm.Power(4.0),
    "exp": icm.Exponential(1.0),
    "kink": SQUARE + icm.Kink(1.0, 5.0),
    "wall": icm.Power(2.0) + icm.Wall(1.0),
    "wall alone": icm.Wall(2.0),
    "kink and wall": SQUARE + icm.Kink(0.4, 20.0) + icm.Wall(0.5),
    "table": TABLE + icm.Power(3.0, scale=0.1),
    "custom": icm.Custom(lambda r: r**2 + torch.cosh(r) - 1),
    "initial slope": icm.Power(1.0, scale=0.1) + icm.Power(2.0),
}
SLOW = ("custom", "table", "kink and wall")


def tracked(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def solved(G: Tensor, H: icm.Curvature) -> icm.Solution:
    """As closely as float64 allows, and as a Custom H is worth."""
    return icm.solve(G, H, tol=1e-12 if "custom" not in str(H) else 1e-10, on_failure="return")


STEPS = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64)


def slope(values: Tensor, h: float) -> float:
    """f'(0) from f (4,) at h·STEPS, by central differences of fourth order."""
    return float((values @ torch.tensor([1.0, -8.0, 8.0, -1.0], dtype=torch.float64)) / (12 * h))


def mixed(solution: icm.Solution, W: Tensor) -> Tensor:
    """A number for each element (…) that depends on every differentiable part of a solution."""
    weights = torch.arange(1.0, solution.sigma.shape[-1] + 1, dtype=torch.float64)
    both = (solution.sigma * weights).sum(-1) + 0.5 * (solution.g * weights.flip(0)).sum(-1)
    return of_Q(solution, W) + both + 0.7 * solution.value - 0.3 * solution.gain


def of_Q(solution: icm.Solution, W: Tensor) -> Tensor:
    return (solution.Q * W).sum((-2, -1))


def mismatch(G: Tensor, H: icm.Curvature, seed: int = 0, h: float = 1e-4, of: Any = mixed) -> float:
    """How far the derivative along a random direction is from differences of solves, relative to its size."""
    W, D = matrix(seed + 1, *G.shape), matrix(seed + 2, *G.shape)
    variable = G.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(of(icm.solve(variable, H), W), variable)
    expected = slope(of(solved(G + h * STEPS[:, None, None] * D, H), W), h)
    return abs(float((gradient * D).sum()) - expected) / (abs(expected) + 1e-3 * float(W.norm()))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name == "custom" else name for name in FAMILIES]
)
def test_gradients_in_G_are_those_of_differences(name):
    for seed, shape in enumerate([(2, 3)] if name in SLOW else [(3, 3), (2, 3), (3, 2), (1, 1)]):
        G = matrix(seed, *shape) + 0.3 * torch.eye(*shape, dtype=torch.float64)
        assert mismatch(G, FAMILIES[name], seed) < 2e-8, shape


def test_forgetting_how_singular_values_act_on_each_other_is_caught(monkeypatch):
    def uncoupled(hessian: Tensor, right: Tensor, held: Tensor) -> Tensor:
        return (right / hessian.diagonal(dim1=-2, dim2=-1)).masked_fill(held, 0.0)

    G = matrix(0, 4, 4)
    assert mismatch(G, icm.Power(3.0)) < 2e-8
    monkeypatch.setattr(pullback, "_solve", uncoupled)
    assert mismatch(G, icm.Power(3.0)) > 1e-3
    assert mismatch(G, icm.Power(2.0)) < 2e-8  # the one H that couples nothing


REGIMES: dict[str, tuple[icm.Curvature, list[float], Reason]] = {
    "below the kink": (SQUARE + icm.Kink(1.0, 5.0), [0.2, 0.15, 0.1], Reason.SLOPE),
    "held by the kink, closed form": (SQUARE + icm.Kink(1.0, 9.0), [1.2, 1.1, 1.0], Reason.SUFFICIENT),
    "held by the kink, exactly": (SQUARE + icm.Kink(1.0, 50.0), [2.0, 1.2, 0.6], Reason.EXACT),
    "across the kink": (SQUARE + icm.Kink(1.0, 5.0), [2.0, 1.0, 0.5], Reason.DESCENT),
    "beyond the kink": (SQUARE + icm.Kink(1.0, 2.0), [9.0, 6.0, 4.0], Reason.SLOPE),
    "all at the wall": (SQUARE + icm.Wall(0.5), [2.0, 1.2, 0.6], Reason.WALL),
    "one at the wall": (SQUARE + icm.Wall(3.0), [2.0, 0.9, 0.5], Reason.LOOSE),
    "none at the wall": (SQUARE + icm.Wall(9.0), [2.0, 1.2, 0.6], Reason.LOOSE),
}


@pytest.mark.parametrize("name", REGIMES)
@pytest.mark.parametrize("rows", [3, pytest.param(5, marks=pytest.mark.long)])
def test_every_regime_of_kinks_and_walls(name, rows):
    H, g, reason = REGIMES[name]
    G = rotation(1, rows)[:, :3] @ torch.diag(torch.tensor(g, dtype=torch.float64)) @ rotation(2, 3)
    orthogonality = icm.solve(G, H).orthogonality
    assert orthogonality is not None
    assert orthogonality.reason is reason
    assert mismatch(G, H, h=2e-5) < 2e-7


EQUAL: dict[str, list[float]] = {
    "all equal": [1.0, 1.0, 1.0, 1.0],
    "two equal": [2.0, 1.0, 1.0, 0.5],
    "nearly equal": [1 + 1e-9, 1.0, 1 - 1e-7, 0.3],
    "a zero": [1.0, 0.5, 0.2, 0.0],
    "two zeros": [1.0, 0.5, 0.0, 0.0],
    "almost zero": [1.0, 0.5, 0.5, 1e-12],
}


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("H", ["r^3", "exp(1)", "0.5*r^2 + 5*kink(1)", "r^3 + r^2"])
@pytest.mark.parametrize("shape", [(4, 4), *(pytest.param(s, marks=pytest.mark.long) for s in ((4, 6), (6, 4)))])
def test_equal_and_vanishing_singular_values(name, H, shape):
    m, n = shape
    G = rotation(1, m)[:, :4] @ torch.diag(torch.tensor(EQUAL[name], dtype=torch.float64)) @ rotation(2, n)[:4]
    assert mismatch(G, icm.parse(H), h=1e-4, of=of_Q) < 1e-6  # Q alone: the singular values have kinks there


def test_limits_at_equal_singular_values():
    """The gradient is continuous through a coincidence, at distances where a quotient keeps no digit."""
    H, W = icm.Power(2.0) + icm.Power(4.0), matrix(3, 3, 3)
    U, V = rotation(1, 3), rotation(2, 3)

    def gradient(gap: float) -> Tensor:
        G = (U @ torch.diag(torch.tensor([1.0 + gap, 1.0, 0.4], dtype=torch.float64)) @ V).requires_grad_()
        return torch.autograd.grad((icm.solve(G, H).Q * W).sum(), G)[0]

    at = gradient(0.0)
    for gap in (1e-15, 1e-12, 1e-9, 1e-7):
        assert distance(gradient(gap), at) < 1e-9 + 10 * gap


def quartic(G: Tensor, a: float, b: float) -> Tensor:
    """Q* of H = a r² + b r⁴ by matrix iterations that autograd follows: Q(QᵀQ) + D Q = n(n+2)G/8b, by Newton in Q."""
    n = G.shape[-1]
    right, base = n * (n + 2) / (8 * b) * G, a * (n + 2) / (4 * b)
    Q = icm.solve(G.detach(), icm.Power(2.0, a) + icm.Power(4.0, b)).Q

    def residual(Q: Tensor) -> Tensor:
        return Q @ Q.mT @ Q + (0.5 * Q.square().sum() + base) * Q - right

    jacobian: Any = torch.autograd.functional.jacobian(lambda Q: residual(Q).detach() * 0 + residual(Q), Q)
    return Q - torch.linalg.solve(jacobian.reshape(Q.numel(), -1).detach(), residual(Q).flatten()).reshape(Q.shape)


@pytest.mark.parametrize("g", [[1.3, 0.8, 0.3], [1.0, 1.0, 0.3], [1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
def test_quartic_against_autograd_through_its_matrix_equation(g):
    G = rotation(1, 4)[:, :3] @ torch.diag(torch.tensor(g, dtype=torch.float64)) @ rotation(2, 3)
    G, W = G.requires_grad_(), matrix(4, 4, 3)
    (ours,) = torch.autograd.grad((icm.solve(G, icm.Power(2.0, 0.6) + icm.Power(4.0, 0.2)).Q * W).sum(), G)
    (theirs,) = torch.autograd.grad((quartic(G, 0.6, 0.2) * W).sum(), G)
    assert distance(ours, theirs) < 1e-11


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_polar_factor_against_autograd_through_svd(shape):
    G, W = matrix(5, *shape).requires_grad_(), matrix(6, *shape)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    (theirs,) = torch.autograd.grad((U @ Vh * W).sum(), G)
    (ours,) = torch.autograd.grad((icm.solve(G, icm.Wall(1.0)).Q * W).sum(), G)
    assert distance(ours, theirs) < 1e-11


def test_quadratic_is_linear_whatever_the_singular_values():
    for G in (torch.zeros(3, 4), torch.eye(3, 4), torch.ones(3, 4), matrix(1, 2, 3, 4)):
        G = G.double().requires_grad_()
        W = matrix(2, *G.shape)
        (gradient,) = torch.autograd.grad((icm.solve(G, icm.Power(2.0, scale=0.25)).Q * W).sum(), G)
        assert distance(gradient, 8 * W) < 1e-12


def test_value_has_the_gradient_minus_Q_and_the_mean_of_dH():
    a, b = tracked(0.5), tracked(2.0)
    G = matrix(1, 4, 3).requires_grad_()
    solution = icm.solve(G, a * icm.Power(2.0) + b * icm.Power(4.0))
    found = torch.autograd.grad(solution.value, (G, a, b))
    sigma = solution.sigma.detach()
    assert distance(found[0], -solution.Q.detach()) < 1e-12
    assert distance(found[1], icm.sphere.mean("r^2", sigma, 3)) < 1e-12
    assert distance(found[2], icm.sphere.mean("r^4", sigma, 3)) < 1e-12


NUMBERS: dict[str, tuple[Callable[[Any], icm.Curvature], float]] = {
    "exponent": (lambda p: icm.Power(p), 3.0),
    "exponent below 2": (lambda p: icm.Power(p, 2.0), 1.7),
    "exponent at 2": (lambda p: icm.Power(p) + icm.Power(4.0), 2.0),
    "exponent near 1": (lambda p: icm.Power(p, 0.1) + icm.Power(2.0), 1.01),
    "scale": (lambda a: a * icm.Power(3.0), 0.7),
    "scale of a sum": (lambda a: icm.Power(3.0, a) + icm.Exponential(1.0, 2 * a), 0.7),
    "dilation": (lambda a: (icm.Power(3.0) + icm.Power(2.0)).dilate(a), 1.3),
    "rate": (lambda a: icm.Exponential(a, 0.5), 1.1),
    "jump, across": (lambda b: SQUARE + b * icm.Kink(1.0), 5.0),
    "radius, across": (lambda c: SQUARE + icm.Kink(c, 5.0), 1.0),
    "radius, held": (lambda c: 0.1 * SQUARE + icm.Kink(c, 300.0), 0.3),
    "jump, held": (lambda b: 0.1 * SQUARE + icm.Kink(0.3, b), 300.0),
    "slope left of a held kink": (lambda a: a * SQUARE + icm.Kink(0.3, 300.0), 0.1),
    "radius of the wall, some": (lambda c: icm.Power(3.0) + icm.Power(4.0) + icm.Wall(c), 1.0),
    "radius of the wall, all": (lambda c: SQUARE + icm.Wall(c), 0.2),
    "radius of the wall beside a kink": (lambda c: SQUARE + icm.Kink(0.4, 20.0) + icm.Wall(c), 0.5),
    "radius of a lone wall": (lambda c: icm.Wall(c), 2.0),
    "scale inside a wall": (lambda a: a * icm.Power(3.0) + icm.Power(2.0) + icm.Wall(1.0), 0.5),
    "dilation of everything": (lambda a: (icm.Power(4.0) + 0.3 * icm.Kink(0.4) + icm.Wall(0.7)).dilate(a), 1.2),
    "scale beside a table": (lambda a: a * icm.Power(3.0) + TABLE, 0.5),
    "initial slope": (lambda a: a * icm.Power(1.0) + icm.Power(2.0), 0.5),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("shape", [(3, 2), pytest.param((2, 3), marks=pytest.mark.long)])
def test_gradients_in_the_numbers_of_H_are_those_of_differences(name, shape):
    build, at = NUMBERS[name]
    G, W = matrix(7, *shape) + 2 * torch.eye(*shape, dtype=torch.float64), matrix(8, *shape)
    theta = tracked(at)
    solution, h = icm.solve(G, build(theta)), 3e-4 * at
    around = [solved(G, build(at + h * float(t))) for t in STEPS]
    for of in (mixed, lambda solution, W: solution.value):
        (found,) = torch.autograd.grad(of(solution, W), theta, retain_graph=True)
        expected = slope(torch.stack([of(there, W) for there in around]), h)
        assert float(found) == pytest.approx(expected, rel=3e-8, abs=1e-7)


def test_a_custom_curvature_has_the_gradients_of_the_family_it_copies():
    G, W, a, b = matrix(1, 2, 2).requires_grad_(), matrix(2, 2, 2), tracked(0.5), tracked(1.2)
    copied = icm.Custom(lambda r: torch.expm1(r) - r)
    ours = torch.autograd.grad(mixed(icm.solve(G, a * copied.dilate(b)), W), (G, a, b))
    theirs = torch.autograd.grad(mixed(icm.solve(G, a * icm.Exponential(1.0).dilate(b)), W), (G, a, b))
    for found, expected in zip(ours, theirs, strict=True):
        assert distance(found, expected) < 1e-9


def test_G_and_several_numbers_at_once_in_a_batch():
    G, W = matrix(1, 2, 2, 3, 2), matrix(2, 2, 2, 3, 2)
    a, c = tracked(0.5), tracked(0.8)
    variable = G.clone().requires_grad_()

    def of(G: Tensor, W: Tensor) -> Tensor:
        return (icm.solve(G, a * icm.Power(3.0) + icm.Kink(c, 2.0)).Q * W).sum()

    together = torch.autograd.grad(of(variable, W), (variable, a, c))
    total = [0.0, 0.0]
    for i in range(2):
        for j in range(2):
            one = G[i, j].clone().requires_grad_()
            alone = torch.autograd.grad(of(one, W[i, j]), (one, a, c))
            assert distance(together[0][i, j], alone[0]) < 1e-10
            total = [total[0] + float(alone[1]), total[1] + float(alone[2])]
    assert [float(together[1]), float(together[2])] == pytest.approx(total, rel=1e-10)


def test_blocks_of_a_batch_are_put_together_again(monkeypatch):
    G, W = matrix(1, 5, 3, 3).requires_grad_(), matrix(2, 5, 3, 3)
    whole = torch.autograd.grad((icm.solve(G, "r^3").Q * W).sum(), G)[0]
    monkeypatch.setattr(pullback, "_BLOCK", 18)
    assert distance(torch.autograd.grad((icm.solve(G, "r^3").Q * W).sum(), G)[0], whole) < 1e-14


def test_dtypes_and_the_gradient_reach_their_owner():
    exact, W = matrix(1, 4, 3).requires_grad_(), matrix(2, 4, 3)
    (expected,) = torch.autograd.grad((icm.solve(exact, "r^3").Q * W).sum(), exact)
    for dtype, error in ((torch.float32, 1e-6), (torch.bfloat16, 3e-2)):
        G = exact.detach().to(dtype).requires_grad_()
        scale = torch.tensor(1.0, dtype=torch.float32, requires_grad=True)
        solution = icm.solve(G, scale * icm.Power(3.0))
        (solution.Q.double() * W).sum().backward()
        assert G.grad is not None
        assert scale.grad is not None
        assert (G.grad.dtype, scale.grad.dtype) == (dtype, torch.float32)
        assert distance(G.grad, expected) < error


def test_no_graph_where_none_is_wanted(monkeypatch):
    G = matrix(1, 4, 3)
    H = icm.Power(tracked(3.0))
    with torch.no_grad():
        assert not icm.solve(G.clone().requires_grad_(), H).Q.requires_grad

    def never(*_: Any) -> None:
        raise AssertionError("a solve without gradients pays for them")

    monkeypatch.setattr(sys.modules["icm.solvers.solve"], "attach", never)
    assert not icm.solve(G, "r^3").Q.requires_grad


def test_a_solution_without_its_graph():
    G = matrix(1, 4, 3).requires_grad_()
    solution = icm.solve(G, "r^3")
    assert solution.Q.requires_grad
    assert not solution.gap.requires_grad
    assert not solution.relative_gap.requires_grad
    detached = solution.detach()
    assert not any(getattr(detached, name).requires_grad for name in ("Q", "sigma", "g", "gain", "value"))
    assert repr(detached) == repr(solution)
    assert not icm.compare(G, ["r^2", "r^3"]).solutions[0].Q.requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_not_differentiable_says_so():
    G = matrix(1, 3, 3).requires_grad_()
    for method in ("matrix", "reference", "spectral-reference"):
        with pytest.raises(InputError, match="not differentiable"):
            icm.solve(G, "r^3", method=method)
    for f in (lambda Q: Q.sum(), lambda Q: Q.square().sum()):
        (first,) = torch.autograd.grad(f(icm.solve(G, "r^3").Q), G, create_graph=True)
        with pytest.raises(SolveError, match="second derivative"):
            torch.autograd.grad(first.sum(), G)
    with pytest.raises(InputError, match="reverse mode"):
        torch.func.jvp(lambda X: icm.solve(X, "r^3").Q, (G.detach(),), (G.detach(),))
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda X: icm.solve(X, "r^3").Q.sum())(G.detach())


@pytest.mark.parametrize(
    ("H", "factor"),
    [("r^2", 2.0), ("0.5*r^2 + wall(1)", 4.0), ("exp(1)", 4.0), ("r^3", 0.0), ("r^1.5", 0.0), ("r + r^2", 0.0)],
)
def test_zero_gradients(H, factor):
    """Q ≈ nG/H''(0) at G = 0; fixed where H''(0) is 0, and where small gradients are answered by Q = 0."""
    G, W = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True), matrix(1, 3, 4)
    solution = icm.solve(G, H)
    (gradient,) = torch.autograd.grad((solution.Q * W).sum(), G, retain_graph=True)
    assert torch.equal(gradient, factor * W) or distance(gradient, factor * W) < 1e-12
    assert torch.equal(torch.autograd.grad(solution.value, G)[0], torch.zeros(3, 4, dtype=torch.float64))


def test_a_small_gradient_under_an_initial_slope_is_not_heard():
    G, a = (0.01 * matrix(1, 3, 3)).requires_grad_(), tracked(1.0)
    solution = icm.solve(G, a * icm.Power(1.0) + icm.Power(2.0))
    assert not solution.Q.any()
    gradients = torch.autograd.grad(solution.Q.sum() + solution.value, (G, a))
    assert not any(t.any() for t in gradients)


def test_zero_singular_values_behind_a_wall_count_as_fixed():
    """The directions that keep the rank have a derivative, that of the polar factor on the range of G."""
    left, right, W = matrix(1, 4, 2), matrix(2, 2, 5), matrix(3, 4, 5)
    left = left.requires_grad_()
    G = left @ right
    (found,) = torch.autograd.grad((icm.solve(G, icm.Wall(1.0)).Q * W).sum(), left)
    expected = torch.zeros(4, 2, dtype=torch.float64)
    for i in range(4):
        for j in range(2):
            step = torch.zeros(4, 2, dtype=torch.float64)
            step[i, j] = 1e-4
            moved = left.detach() + STEPS[:, None, None] * step
            expected[i, j] = slope(of_Q(icm.solve(moved @ right, icm.Wall(1.0)), W), 1e-4)
    assert distance(found, expected) < 1e-8


def test_ties_give_one_of_the_two_sides():
    """At a wall that a singular value just touches, the derivative is that of one side: held or free."""
    H, W = SQUARE + icm.Wall(1.0), torch.ones(1, 1, dtype=torch.float64)
    for g, side in ((1.0, None), (1.0 + 1e-6, 0.0), (1.0 - 1e-6, 1.0)):
        G = torch.full((1, 1), g, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad((icm.solve(G, H).Q * W).sum(), G)
        assert float(found) == pytest.approx(side, abs=1e-12) if side is not None else float(found) in (0.0, 1.0)


def test_what_is_asked_of_no_answer_is_not_a_number():
    G = torch.stack([0.5 * matrix(1, 3, 3), 50 * matrix(1, 3, 3)]).requires_grad_()
    a = tracked(0.1)
    solution = icm.solve(G, icm.Kink(1.0, 5.0) + a * icm.Exponential(1.0) * 0 + icm.Power(1.0, 0.01))
    assert solution.statuses[1] is Status.UNBOUNDED
    asked = torch.autograd.grad(solution.Q.sum(), G, retain_graph=True)[0]
    assert asked[1].isnan().all()
    assert asked[0].isfinite().all()
    spared = torch.autograd.grad(solution.Q[0].sum() + solution.value[0], G, retain_graph=True)[0]
    assert not spared[1].any()
    assert spared.isfinite().all()
    assert torch.autograd.grad(solution.g.sum(), G)[0].isfinite().all()


def test_gradients_scale_with_units():
    """For (cG, cH) Q is the same, so its gradient is 1/c of it, as far as float64 goes."""
    G, W = matrix(1, 4, 3), matrix(2, 4, 3)

    def gradient(c: float) -> Tensor:
        variable = (c * G).requires_grad_()
        return torch.autograd.grad((icm.solve(variable, c * (SQUARE + icm.Kink(1.0, 5.0))).Q * W).sum(), variable)[0]

    expected = gradient(1.0)
    for c in (1e-100, 1e12):
        assert distance(c * gradient(c), expected) < 1e-9


def test_a_jump_fitted_to_a_condition_number():
    """Bilevel: the strength of a kink for which the update has condition number 1.5, where that of G is 10/3."""
    G = rotation(1, 3) @ torch.diag(torch.tensor([2.0, 1.0, 0.6], dtype=torch.float64)) @ rotation(2, 3)
    log_jump = tracked(1.4)
    for _ in range(12):
        sigma = icm.solve(G, SQUARE + log_jump.exp() * icm.Kink(1.0)).sigma
        excess = (sigma[0] / sigma[-1]).log() - torch.tensor(1.5, dtype=torch.float64).log()
        (slope_of_excess,) = torch.autograd.grad(excess, log_jump)
        with torch.no_grad():
            log_jump -= (excess / slope_of_excess).clamp(-0.5, 0.5)
    sigma = icm.solve(G, SQUARE + float(log_jump.detach().exp()) * icm.Kink(1.0)).sigma
    assert float(sigma[0] / sigma[-1]) == pytest.approx(1.5, rel=1e-9)
