"""Alignment, what misaligned factors lose, and when the optimum is the only one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.curvature import Power, Wall
from icm.theory.claims import alignment as room
from icm.theory.instances import Instances, diagonal
from tests.theory.strategies import instances, kinked, powers, scales, smooth, spectra
from tests.theory.strategies_matrices import batch, with_extra

walls = st.builds(Wall, scales)


@settings(max_examples=10)
@given(instances(smooth, rotated=True))
def test_quasi_newton_on_all_entries_finds_the_aligned_value(instance):
    assert not room.alignment.check(instance).violated.any()
    assert not room.not_beaten.check(instance).violated.any()


@settings(max_examples=15)
@given(instances(smooth, rotated=True))
def test_quasi_newton_on_all_entries_finds_aligned_factors(instance):
    assert not room.aligned_factors.check(instance).violated.any()


@settings(max_examples=30)
@given(with_extra(instances(st.one_of(smooth, kinked), rotated=True), room.turns))
def test_other_singular_vectors_gain_nothing(instance):
    assert not room.misaligned.check(instance).violated.any()


@settings(max_examples=25)
@given(with_extra(instances(smooth), room.steps))
def test_the_objective_grows_away_from_its_optimum(instance):
    assert not room.uniqueness.check(instance).violated.any()


@settings(max_examples=40)
@given(with_extra(instances(walls, positive=True), room.contractions))
def test_a_wall_has_one_optimum_at_full_rank(instance):
    checked = room.wall_uniqueness.check(instance)
    assert checked.met.all()
    assert not checked.violated.any()


@settings(max_examples=30)
@given(spectra(2, positive=True), scales, st.floats(-1, 0.9))
def test_and_many_otherwise(g, radius, rest):
    G = diagonal(torch.tensor([[*g, 0.0]], dtype=torch.float64), 3, 4)
    Q = diagonal(torch.tensor([[1.0, 1.0, rest]], dtype=torch.float64), 3, 4) * radius
    other = Instances(G, Wall(radius), {"Q": Q * (1 - 1e-12)})
    checked = room.a_wall_has_one_optimum.check(other)
    assert checked.met.all()
    assert checked.violated.all() or abs(rest) < 1e-3


def test_permuted_bases_are_not_optimal():
    """The spectrum in the opposite order has another value."""

    def permuted(case):
        k = range(case.k)[::-1]
        value = case.mean(case.sigma) - (case.sigma[:, k] * case.spectrum(case.G)).sum()
        return (value - case.optimum) / case.solution.gain

    G = torch.diag(torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64))
    assert str(replace(room.alignment, margin=permuted).on(G, "r^3").rigour) == "refuted"
    assert str(room.alignment.on(G, "r^3").rigour) == "certified"


def test_an_optimum_set_too_high_is_beaten():
    raised = replace(room.not_beaten, margin=lambda case: room.excess(case) - 1e-8)
    assert raised.check(batch(room.not_beaten, 0)).violated.any()


def test_factors_of_another_gradient_are_refuted(monkeypatch):
    G, right = torch.tensor([[1.0, 0.3], [0.1, 0.5]], dtype=torch.float64), room.asymmetry
    assert str(room.aligned_factors.on(G, "r^2 + r^4").rigour) == "certified"
    monkeypatch.setattr(room, "asymmetry", lambda G, Q: right(G + 1e-6 * G.flip(1), Q))
    assert str(room.aligned_factors.on(G, "r^2 + r^4").rigour) == "refuted"


def test_a_value_above_the_optimum_is_noticed():
    G, eye = torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64)), torch.eye(2, dtype=torch.float64)
    extra: dict[str, Any] = {"left": eye, "right": eye, "stretch": torch.ones((), dtype=torch.float64)}
    raised = replace(room.misaligned, margin=lambda case: room.losses(case) - 1e-10)
    assert str(room.misaligned.on(G, "r^3", **extra).rigour) == "certified"
    assert str(raised.on(G, "r^3", **extra).rigour) == "refuted"


@pytest.mark.parametrize(("exponent", "factor"), [(2.0, 1.0001), (4.0, 2.5), (1.5, 1.1)])
def test_a_larger_modulus_is_refuted(monkeypatch, exponent, factor):
    """p = 2: it is exact. p = 4: Q* + D = −2Q* attains 1/3, where 1/7 is claimed. p < 2: a small step is sharp."""
    G = torch.tensor([[1.0]], dtype=torch.float64)
    extra: dict[str, Any] = {"D": torch.tensor([[1e-3]]), "along": torch.tensor(-3.0 if exponent == 4 else 0.0)}
    right = room.claimed
    assert str(room.uniqueness.on(G, Power(exponent), **extra).rigour) == "certified"
    monkeypatch.setattr(room, "claimed", lambda *given: factor * right(*given))
    assert str(room.uniqueness.on(G, Power(exponent), **extra).rigour) == "refuted"


@settings(max_examples=12)
@given(instances(powers(2.0, 6.0), rotated=True))
def test_the_modulus_of_strong_convexity(instance):
    """μ > 0, and μ‖Q − Q*‖_F ≤ ‖∇F(Q)‖_F."""
    case = room.Case(instance)
    found = room.full(case, 1e-8)
    distance = torch.linalg.matrix_norm(found.Q - case.solution.Q)
    gradient = case.slopes(found.sigma)
    U, _, Vh = torch.linalg.svd(found.Q, full_matrices=False)
    residual = torch.linalg.matrix_norm((U * gradient.middle[:, None, :]) @ Vh - case.G)
    modulus = room.strong_convexity(case, found)
    assert (modulus > 0).all()
    noise = 1e-12 * torch.linalg.matrix_norm(case.G)
    assert (modulus * distance <= residual + noise).all()


def test_a_larger_modulus_of_a_wall_is_refuted():
    """Equal singular values and a rotation attain it."""
    angle = torch.tensor(0.3, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    G, Q = torch.eye(2, dtype=torch.float64), turn * (1 - 1e-12)
    raised = replace(
        room.wall_uniqueness, margin=lambda case: room.sharpness(case, 1.0001 * case.spectrum(case.G)[:, -1])
    )
    assert str(room.wall_uniqueness.on(G, Wall(1.0), Q=Q).rigour) == "certified"
    assert str(raised.on(G, Wall(1.0), Q=Q).rigour) == "refuted"
