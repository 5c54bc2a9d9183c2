"""The verifier itself: false claims are refuted, true ones are not, and what nothing meets stays open.

One seed here; `python -m benchmarks claims` takes a hundred.
"""

from __future__ import annotations

import pytest

from benchmarks.claims import INSTANCES, one
from icm.theory import CLAIMS, Expected, Rigour, replay, search, verify
from icm.theory.claims import equivalences, equivalences_signs, equivalences_spectral
from proofs_check import PROOFS
from tests.theory.mutants import MUTANTS, impossible

TRUE = [name for name, claim in CLAIMS.items() if claim.expected is Expected.HOLDS]
FOLLOWED = (*equivalences.CLAIMS, *equivalences_signs.CLAIMS, *equivalences_spectral.CLAIMS)
FALSE = [*MUTANTS, *(name for name, claim in CLAIMS.items() if claim.expected is not Expected.HOLDS)]


def can_be_tried(name):
    """Skip what needs a package that is not installed."""
    claim = CLAIMS.get(name) or MUTANTS[name]
    if claim.missing:
        pytest.skip(claim.missing)


def test_there_are_enough_false_claims():
    assert len(MUTANTS) >= 12


@pytest.mark.parametrize("name", FALSE)
def test_a_false_claim_is_refuted_by_what_refutes_it_again(name):
    can_be_tried(name)
    assert one((name, 7)) == (True, True)


@pytest.mark.parametrize("name", TRUE)
def test_a_true_claim_is_not_refuted(name):
    can_be_tried(name)
    assert one((name, 7), 20) == (False, False)


@pytest.mark.parametrize("name", ["homogenisation-of-any-H", "cap-of-half-alpha", "alignment-permuted"])
def test_a_witness_is_small_and_comes_back(name, tmp_path):
    result = search(MUTANTS[name], INSTANCES)
    assert result.grade is Rigour.REFUTED
    assert result.as_expected
    witness = result.witness
    assert witness is not None
    assert witness.instance.m * witness.instance.n == 4
    again = replay(witness.save(tmp_path / "witness.json"), MUTANTS[name])
    assert (again.rigour, again.margin) == (Rigour.REFUTED, witness.margin)


def test_what_nothing_meets_is_not_held():
    result = verify(impossible, INSTANCES, rigorous=True).results[0]
    assert result.grade is Rigour.INCONCLUSIVE
    assert result.met == 0
    assert not result.as_expected


def test_every_claim_has_a_proof_that_says_what_is_expected_of_it():
    """But for those about other people's programs, which are tried and not proved."""
    for claim in CLAIMS.values():
        if claim in FOLLOWED:
            assert claim.proof is None
            continue
        assert claim.proof is not None, claim.name
        assert PROOFS[claim.proof].refutes == (claim.expected is not Expected.HOLDS), claim.name
