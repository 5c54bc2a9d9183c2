"""The figures that claims look at, against figures from elsewhere."""

from __future__ import annotations

import mpmath
import numpy as np
import torch

import icm
from icm.theory import Case, Instances
from icm.theory.instances import KINDS, diagonal, draw, rotate, spectra

rows = torch.tensor([[3.0, 1.0, 0.25], [1.0, 1.0, 1.0], [2.0, 1e-4, 0.0]], dtype=torch.float64)


def case(text: str = "r^3", m: int = 3, n: int = 4, rigorous: bool = False) -> Case:
    return Case(Instances(diagonal(rows, m, n), icm.parse(text)), rigorous)


def test_sigma_is_the_optimum_of_g():
    """g = ∇f(σ) exactly, for r⁴ by hand, and that is the drawn spectrum as far as the solver went."""
    n, pair = 4, case("r^4")
    x = pair.sigma.middle
    by_hand = 8 / (n * (n + 2)) * (x**3 + 0.5 * x.square().sum(-1, keepdim=True) * x)
    assert ((pair.g.middle - by_hand).abs() <= pair.g.radius).all()
    assert (pair.g.radius <= 1e-12 * by_hand).all()
    for text in ("r^3", "r^1.5", "r^2 + 0.1*exp(1)", "r^2 + wall(0.3)"):
        pair = case(text)
        again = icm.solve(diagonal(pair.g.middle, 3, 4), text)
        assert torch.allclose(again.sigma, pair.sigma.middle, rtol=1e-6)
        assert pair.usable.all()


def test_a_wall_holds_what_it_holds():
    pair = case("wall(0.3)", 4, 3)
    assert torch.equal(pair.g.middle[:2], rows[:2])
    assert (pair.sigma.middle[:2] == 0.3).all()


def test_expectations_are_those_of_mpmath():
    """E‖Qζ‖⁴ by hand, E‖Qζ‖³ for one singular value by the beta function; in floats and in balls."""
    sigma = torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.float64)
    lam = [4.0, 1.0, 0.25]
    exact = (sum(lam) ** 2 + 2 * sum(x * x for x in lam)) / (4 * 6)
    with mpmath.workdps(30):
        single = 8 * mpmath.gamma(2) * mpmath.gamma(2) / (mpmath.gamma(0.5) * mpmath.gamma(3.5))  # n = 4, p = 3
    for rigorous in (False, True):
        one = Case(Instances(diagonal(sigma, 3, 4), icm.Power(4.0)), rigorous)
        mean = one.mean(sigma)
        assert abs(float(mean.middle) - exact) <= float(mean.radius) < 1e-12
        only = one.mean(torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64), "r^3")
        assert abs(mpmath.mpf(float(only.middle)) - single) <= float(only.radius) < 1e-12


def test_the_optimum_lies_in_its_ball():
    """25 digits of the minimum of the quartic, from one scalar equation, in both kinds of ball."""
    g, n = [3.0, 1.0, 0.25], 4
    with mpmath.workdps(25):

        def sigma(D):
            return [
                mpmath.findroot(lambda x, b=n * (n + 2) * y / 8: x**3 + D * x - b, (mpmath.mpf(1e-6), 3)
                                , solver="anderson")
                for y in g
            ]  # fmt: skip

        D = mpmath.findroot(lambda D: sum(x * x for x in sigma(D)) / 2 - D, (0.5, 3), solver="anderson")
        s = sigma(D)
        lam = [x * x for x in s]
        mean = (sum(lam) ** 2 + 2 * sum(x * x for x in lam)) / (n * (n + 2))
        exact = mean - sum(a * b for a, b in zip(g, s, strict=True))
        for rigorous in (False, True):
            optimum = Case(Instances(diagonal(rows[:1], 3, 4), icm.Power(4.0)), rigorous).optimum
            assert abs(mpmath.mpf(float(optimum.middle)) - exact) <= mpmath.mpf(float(optimum.radius))
            assert float(optimum.radius) < 1e-9


def test_the_objective_of_any_update(rng):
    G = torch.randn(5, 3, 4, generator=rng, dtype=torch.float64)
    Q = torch.randn(5, 3, 4, generator=rng, dtype=torch.float64)
    for rigorous in (False, True):
        found = Case(Instances(G, icm.Power(3.0)), rigorous).objective(Q)
        expected = icm.Program(G, "r^3").objective(Q)
        assert ((found.middle - expected).abs() <= found.radius + 1e-13).all()
        assert (found.radius < 1e-11).all()


def test_an_unbounded_program_is_known_to_be_nothing():
    lost = Case(Instances(diagonal(rows, 3, 4), icm.Power(1.0, 0.01)))
    assert not lost.solved.any()
    assert torch.isinf(lost.sigma.radius).all()
    assert torch.isinf(lost.optimum.radius).all()


def test_batches_reach_the_corners_and_come_back():
    """Every kind of spectrum and shape turns up, sorted, and the same seed draws the same batch."""
    make = draw(icm.Power(3.0))
    met, shapes = set(), set()
    for number in range(60):
        batch = make(np.random.default_rng([1, number]), 20)
        again = make(np.random.default_rng([1, number]), 20)
        assert torch.equal(batch.G, again.G)
        met |= set(batch.origin)
        shapes.add((batch.m > batch.n) - (batch.m < batch.n))
        g = batch.G.diagonal(dim1=1, dim2=2)
        assert (g[:, :-1] >= g[:, 1:]).all()
        assert (g >= 0).all()
    assert met == set(KINDS)
    assert shapes == {-1, 0, 1}


def test_rotations_keep_the_spectrum():
    g, _ = spectra(np.random.default_rng(0), 8, 3, ("uniform",))
    G = rotate(np.random.default_rng(1), g, 5, 3)
    assert torch.allclose(torch.linalg.svdvals(G), g, atol=1e-13)


def test_what_leaves_the_floats_is_not_known():
    """1e60 to the 7.3 is beyond float64: no ball may pretend to hold it."""
    huge = Case(Instances(1e60 * torch.eye(2, dtype=torch.float64)[None], icm.Power(7.3)), rigorous=True)
    assert torch.isinf(huge.mean(torch.full((1, 2), 1e60, dtype=torch.float64)).radius).all()


def test_a_matrix_that_is_not_finite_has_no_known_spectrum():
    A = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, torch.inf]]], dtype=torch.float64)
    for rigorous in (False, True):
        found = Case(Instances(A[:1], icm.Power(3.0)), rigorous).spectrum(A)
        assert torch.isinf(found.radius).any(-1).tolist() == [False, True]
