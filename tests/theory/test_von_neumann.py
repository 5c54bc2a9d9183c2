"""Von Neumann's trace inequality as a property test."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from icm.theory.claims.von_neumann import partners, von_neumann
from tests.theory.strategies import instances, smooth
from tests.theory.strategies_matrices import batch, with_extra


@settings(max_examples=60)
@given(with_extra(instances(smooth, rotated=True), partners))
def test_no_trace_exceeds_the_product_of_the_spectra(instance):
    checked = von_neumann.check(instance)
    assert not checked.violated.any()
    assert not checked.open.any()


def test_spectra_paired_in_opposite_order_are_no_bound():
    def opposed(case):
        return (case.spectrum(case["Q"]) * case.spectrum(case.G)[:, range(case.k)[::-1]]).sum() - case.inner(
            case["Q"], case.G
        )

    assert any(replace(von_neumann, margin=opposed).check(batch(von_neumann, seed)).violated.any() for seed in range(8))


def test_aligned_factors_attain_it():
    assert von_neumann.check(batch(von_neumann, 1, 200)).tied.any()
