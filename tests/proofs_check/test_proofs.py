"""Every proof goes through, and says of itself no more than its steps carry."""

from __future__ import annotations

import pytest

from proofs_check import PROOFS, Kind, Proof, Status, UnknownProof, check
from proofs_check.step import CHECKED

NAMES = {
    "alignment",
    "von-neumann",
    "convexity",
    "one-function",
    "order",
    "homogenisation",
    "reversal",
    "quadratic",
    "quartic",
    "moments",
    "cap",
    "cap-elasticity",
    "cap-reversed",
    "concentration-variance",
    "concentration-spread",
    "concentration-angle",
    "orthogonalisation",
    "threshold-bounds",
    "threshold-exact",
    "kink-needed",
    "wide-never-orthogonal",
    "wall-polar",
    "wall-criterion",
    "norm-family",
    "norm-steepest",
    "map-monotone",
    "newton-schulz-monotone",
    "certificate",
}


@pytest.mark.parametrize("name", PROOFS)
def test_every_step_passes(name: str) -> None:
    result = check(name)
    failed = [f"{o.step.name}: {o.detail}" for o in result.outcomes if not o.passed and o.step.kind in CHECKED]
    assert not failed
    assert result.checked
    assert not result.failed
    assert all(o.detail for o in result.outcomes if o.status is Status.PASSED), "a check says what it looked at"


def test_the_theorems() -> None:
    assert set(PROOFS) == NAMES
    assert [name for name, proof in PROOFS.items() if proof.refutes] == ["newton-schulz-monotone"]


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS)
def test_what_carries_a_proof_holds_in_every_case(proof: Proof) -> None:
    """Steps on a few instances confirm; a proof has at least one symbolic step, or one exact counterexample."""
    assert proof.scope == "every case"
    assert proof.source
    kinds = [step.kind for step in proof.steps if not step.confirms]
    assert kinds.count(Kind.EXACT if proof.refutes else Kind.SYMBOLIC) >= 1
    assert all(step.scope for step in proof.steps if step.confirms)


def test_no_check_is_a_constant() -> None:
    """A check that is used under two names of one proof would count twice."""
    for proof in PROOFS.values():
        checks = [step.check for step in proof.steps if step.check is not None]
        twice = {c.__name__ for c in checks if checks.count(c) > 1}
        assert twice <= {"cauchy_schwarz"}, proof.name


def test_unknown() -> None:
    with pytest.raises(UnknownProof, match=r"'cup'.*\bcap\b"):
        check("cup")
