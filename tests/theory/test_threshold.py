"""The threshold as a function of the left slope, as property tests, with mutilated versions that are refuted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.curvature import Power
from icm.theory.claims.threshold import convex, diverges
from icm.theory.instances import Instances, diagonal
from tests.theory.strategies import spectra


@st.composite
def lefts(draw: st.DrawFn) -> Instances:
    """A spectrum and two left slopes below n min g."""
    n = draw(st.integers(2, 4))
    g = torch.tensor([draw(spectra(n, positive=True))], dtype=torch.float64)
    ends = torch.tensor([[draw(st.floats(0, 0.999)), draw(st.floats(0, 0.999))]], dtype=torch.float64)
    share = torch.tensor([draw(st.floats(0, 1))], dtype=torch.float64)
    return Instances(diagonal(g, n, n), Power(2.0), {"left": n * g[:, -1:] * ends, "share": share})


@settings(max_examples=8)
@given(lefts())
def test_it_is_convex_and_diverges(instance):
    assert not convex.check(instance).violated.any()
    assert not diverges.check(instance).violated.any()


def test_a_larger_bound_is_refuted():
    larger = replace(diverges, margin=lambda case: 1.001 * diverges.margin(case) - 0.001)
    assert any(larger.check(diverges.draw(np.random.default_rng(seed), 20)).violated.any() for seed in range(6))


def test_concavity_is_refuted():
    concave = replace(convex, margin=lambda case: -convex.margin(case))
    assert any(concave.check(convex.draw(np.random.default_rng(seed), 10)).violated.any() for seed in range(4))
