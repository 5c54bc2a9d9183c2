"""Every proof goes through, and says of itself no more than its steps carry."""

from __future__ import annotations

import pytest

from proofs_check import PROOFS, Kind, Proof, ProofOutcome, Status, UnknownProof, check
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
    "certificate-matrix",
    "cap-attained",
    "concentration-extremes",
    "concentration-turn",
    "concentration-steep",
    "ratios-angle",
    "homogenisation-range",
    "converse-all",
    "homogenisation-converse",
    "quartic-with-square",
    "norm-triangle",
    "norm-limit",
    "norm-length",
    "level-set",
    "uniqueness",
    "aligned-factors",
    "wall-uniqueness",
    "wall-clips",
    "threshold-diverges",
    "orthogonal-region-convex",
    "wide-distance",
    "wide-radius",
    "concentration-spread-steep",
    "a-wall-has-one-optimum",
    "one-norm-for-all-scales",
    "norm-duality",
    "steepest-step",
    "modular-norm",
    "luxemburg-duality",
    "muon-limit",
    "schatten-to-muon",
    "max-entry-operator",
    "columns-operator",
    "rows-operator",
    "polar-nearest",
    "polar-ties",
    "square-loss-bound",
}
REFUTED = {
    "homogenisation-converse",
    "newton-schulz-monotone",
    "concentration-spread-steep",
    "a-wall-has-one-optimum",
    "one-norm-for-all-scales",
}


@pytest.fixture(scope="module")
def known() -> dict[str, ProofOutcome]:
    return {}


@pytest.mark.parametrize("name", PROOFS)
def test_every_step_passes(name: str, known: dict[str, ProofOutcome]) -> None:
    result = check(name, known)
    failed = [f"{o.step.name}: {o.detail}" for o in result.outcomes if not o.passed and o.step.kind in CHECKED]
    assert not failed
    assert result.checked
    assert not result.failed
    assert all(o.detail for o in result.outcomes if o.status is Status.PASSED), "a check says what it looked at"


def test_the_theorems() -> None:
    assert set(PROOFS) == NAMES
    assert {name for name, proof in PROOFS.items() if proof.refutes} == REFUTED


def test_what_is_needed_is_there_and_needs_nothing_back() -> None:
    """Every chain of needs ends, and no proof needs one that refutes."""

    def above(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, f"a circle: {chain}"
        assert name in PROOFS
        for needed in PROOFS[name].needs:
            assert not PROOFS[needed].refutes
            above(needed, (*chain, name))

    for name in PROOFS:
        above(name, ())


def test_no_step_cites_a_proof_of_this_package() -> None:
    """What rests on another proof needs it, and is complete only if that is."""
    for proof in PROOFS.values():
        for step in proof.steps:
            assert step.kind is not Kind.CITED or "proof of" not in step.statement + step.source, step.name


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS)
def test_what_carries_a_proof_holds_in_every_case(proof: Proof) -> None:
    """Steps on a few instances confirm; a proof has at least one symbolic step, or one exact counterexample."""
    assert proof.scope == "every case"
    assert proof.source
    assert proof.steps
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
