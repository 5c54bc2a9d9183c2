"""A wall as property tests, with mutilated versions that are refuted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from icm.curvature import Wall
from icm.solvers import solve
from icm.theory.case import Case
from icm.theory.claims.wall import CLAIMS, above, clipped, held, loose, wall_polar
from tests.theory.strategies import instances, walled


@settings(max_examples=20)
@given(instances(st.builds(Wall, st.floats(0.1, 10)), rotated=True), st.integers(0, 2**32))
def test_a_wall_alone_gives_the_polar_factor(instance, seed):
    Q = torch.from_numpy(np.random.default_rng(seed).standard_normal(instance.G.shape))
    assert not wall_polar.check(replace(instance, extra={"Q": Q})).violated.any()


@settings(max_examples=20)
@given(instances(walled), st.floats(0, 1))
def test_the_criterion_at_a_wall(instance, share):
    assume(len(instance.H.parts) > 1)
    spectra = instance.H.wall * torch.linspace(share, 1, instance.k, dtype=torch.float64)[None, None]
    inside = replace(instance, extra={"spectra": spectra})
    assert not held.check(inside).violated.any()
    assert not loose.check(inside).violated.any()


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_a_wall_clips(seed):
    assert not clipped.check(clipped.draw(np.random.default_rng(seed), 3)).violated.any()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_decided(claim):
    checked = claim.check(claim.draw(np.random.default_rng(1), 30))
    assert checked.met.any()
    assert not (checked.violated | checked.open).any()


def test_a_shorter_answer_is_refuted(monkeypatch):
    def short(case):
        found = solve(case.G, case.H)
        return replace(found, Q=0.999 * found.Q)

    monkeypatch.setattr(Case, "solution", property(short))
    assert wall_polar.check(wall_polar.draw(np.random.default_rng(1), 5)).violated.any()


@pytest.mark.parametrize(("claim", "wrong"), [(held, loose), (loose, held)], ids=lambda claim: claim.name)
def test_on_the_wrong_side_each_is_refuted(claim, wrong):
    blind = replace(claim, hypotheses={})
    assert any(blind.check(wrong.draw(np.random.default_rng(seed), 10)).violated.any() for seed in range(4))


def test_a_pressure_below_0_is_refuted():
    blind = replace(clipped, hypotheses={}, margin=above)
    made = clipped.draw(np.random.default_rng(0), 10)
    assert blind.check(replace(made, G=0.5 * made.G)).violated.any()
