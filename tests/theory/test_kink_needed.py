"""Proposition 3.4 as a property test, and that its margin sees a kink."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.theory.claims.kink_needed import kink_needed
from icm.theory.claims.orthogonalisation import orthogonalisation
from tests.theory.strategies import instances, kinked, smooth


@settings(max_examples=20)
@given(instances(smooth | kinked, least=2, positive=True), st.floats(-1, 1))
def test_without_a_kink_f_falls_beside_the_polar_factor(instance, decades):
    radius = torch.tensor([instance.H.length_scale * 10**decades], dtype=torch.float64)
    assert not kink_needed.check(replace(instance, extra={"radius": radius})).violated.any()


def test_at_a_kink_it_need_not():
    blind = replace(kink_needed, hypotheses={"g not all equal": kink_needed.hypotheses["g not all equal"]})
    made = next(
        made
        for seed in range(20)
        if (made := orthogonalisation.draw(np.random.default_rng(seed), 30)).n > 1 and made.H.kinks[0][0] > 0
    )
    radius = torch.full((30,), made.H.kinks[0][0], dtype=torch.float64)
    assert blind.check(replace(made, extra={"radius": radius})).violated.any()
