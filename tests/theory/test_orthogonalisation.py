"""Theorem 2 and its thresholds as property tests, each with a mutilated version that is refuted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.solvers.gauge import hinge
from icm.solvers.orthogonal import orthogonal_threshold
from icm.theory.case import Case
from icm.theory.claims.orthogonalisation import (
    CLAIMS,
    exact,
    kink,
    least_jump,
    necessary,
    orthogonalisation,
    sufficient,
)
from icm.theory.instances import Instances, diagonal
from tests.theory.strategies import instances, kinked

entries = st.floats(0.05, 1)


@st.composite
def beside_threshold(draw: st.DrawFn, least: float, most: float) -> Instances:
    """H with a kink, and a g on the ray through a gradient at the threshold."""
    H, n = draw(kinked), draw(st.integers(2, 4))
    radius = H.kinks[0][0]
    A, B = (float(H.slope(radius, side)) for side in ("left", "right"))
    v = torch.tensor([sorted([1.0, *draw(st.lists(st.floats(-2, 1), min_size=n - 2, max_size=n - 2)), -draw(entries)])])
    slope = hinge(v.double().flip(-1))[1]
    centre = (A + B) / (2 * n)
    g = centre + draw(st.floats(least, most)) * (A / n + (B - A) * slope - centre)
    G = diagonal(g.clamp(min=1e-3 * float(g.max())), n + draw(st.integers(0, 2)), n)
    ends = torch.tensor([[draw(st.lists(st.floats(0, 2), min_size=n, max_size=n)) for _ in range(2)]])
    return Instances(G, H, {"spectra": radius * ends.double()})


@settings(max_examples=12)
@given(beside_threshold(0.0, 1.0))
def test_above_the_threshold_the_polar_factor_is_optimal(instance):
    assert not orthogonalisation.check(instance).violated.any()


@settings(max_examples=12)
@given(beside_threshold(1.0, 3.0))
def test_below_the_threshold_f_falls(instance):
    assert not exact.check(instance).violated.any()


@settings(max_examples=12)
@given(beside_threshold(0.0, 3.0) | instances(kinked, shape="tall", positive=True))
def test_the_bounds_are_bounds(instance):
    assert not necessary.check(instance).violated.any()
    assert not sufficient.check(instance).violated.any()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_decided_on_both_sides(claim):
    checked = claim.check(claim.draw(np.random.default_rng(1), 30))
    assert checked.met.any()
    assert not checked.violated.any()
    assert int(checked.open.sum()) <= 1


def test_the_threshold_is_the_library_s():
    case = Case(exact.draw(np.random.default_rng(1), 5))
    _, A, _ = kink(case)
    for i in range(5):
        g = case.G[i].diagonal()
        threshold = orthogonal_threshold(g, A.middle[i], case.n)
        np.testing.assert_allclose(A.middle[i] + least_jump(case)[0][i], threshold, rtol=1e-10)


@pytest.mark.parametrize(
    ("claim", "wrong"),
    [
        (orthogonalisation, exact),  # at less than the threshold
        (exact, orthogonalisation),  # at more than it
        (necessary, orthogonalisation),  # between the bounds
        (sufficient, exact),
        (sufficient, necessary),
    ],
    ids=lambda claim: claim.name,
)
def test_on_the_wrong_side_each_is_refuted(claim, wrong):
    blind = replace(claim, hypotheses={})
    assert any(blind.check(wrong.draw(np.random.default_rng(seed), 10)).violated.any() for seed in range(4))


def test_half_the_threshold_is_refuted():
    def half(case: Case) -> torch.Tensor:
        _, A, B = kink(case)
        return B.middle >= 0.5 * (A.middle + least_jump(case)[0])

    eager = replace(orthogonalisation, hypotheses={"B ≥ B(A)/2": half})
    assert any(eager.check(exact.draw(np.random.default_rng(seed), 10)).violated.any() for seed in range(4))
