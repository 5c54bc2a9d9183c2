"""The proofs of icm's theorems, cut into steps that a program checks.

`PROOFS` holds them by name; `check(name)` goes through the steps of one, with sympy for what is symbolic and
python-flint for what is enclosed in balls, both loaded only then. `python -m proofs_check` prints all. A proof is
complete only if none of its steps is left to words, if what carries it holds in every case, and if the other proofs
that it needs are complete. That its steps make up the statement is for the reader to see: this is no proof assistant.
Source: docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from proofs_check import (
    alignment,
    attained,
    beside,
    cap,
    certificate,
    concentration,
    converse,
    convexity,
    extremes,
    homogenisation,
    kink,
    moments,
    newton_schulz,
    norms,
    quartic,
    refutations,
    regions,
    stationarity,
    steepest,
    threshold,
    uniqueness,
    wall,
    wide,
)
from proofs_check.proof import Outcome, Proof, ProofOutcome, Status, run
from proofs_check.step import Failed, Kind, Step

__all__ = ["PROOFS", "Failed", "Kind", "Outcome", "Proof", "ProofOutcome", "Status", "Step", "UnknownProof", "check"]

PROOFS: Mapping[str, Proof] = MappingProxyType(
    {
        proof.name: proof
        for theorems in (
            convexity,
            alignment,
            stationarity,
            homogenisation,
            converse,
            quartic,
            moments,
            cap,
            attained,
            concentration,
            extremes,
            kink,
            threshold,
            regions,
            wide,
            beside,
            wall,
            norms,
            steepest,
            uniqueness,
            newton_schulz,
            refutations,
            certificate,
        )
        for proof in theorems.PROOFS
    }
)


class UnknownProof(LookupError):
    """No proof has this name; the message lists those there are."""


def check(name: str, known: dict[str, ProofOutcome] | None = None) -> ProofOutcome:
    """Check every step of the proof `name`, and the proofs that it needs. What is in `known` is not checked again, and
    what is checked is put there. Raises UnknownProof."""
    if name not in PROOFS:
        raise UnknownProof(f"no proof is called {name!r}; there are {', '.join(PROOFS)}")
    known = {} if known is None else known
    if name not in known:
        known[name] = run(PROOFS[name], [check(needed, known) for needed in PROOFS[name].needs])
    return known[name]
