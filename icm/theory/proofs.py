"""The bridge to `proofs_check`: a proof checked step by step as a piece of evidence."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from time import perf_counter

from icm.rigour import Rigour
from icm.theory.evidence import Evidence


@dataclass(frozen=True)
class Proven:
    """What became of a proof: `complete` if every step was checked or rests on a named standard fact, with the scope
    it covers; whether it `refutes` the statement, by a counterexample; `summary` says how many steps are of which kind,
    or why it was not checked."""

    name: str
    complete: bool
    scope: str
    summary: str
    seconds: float
    refutes: bool = False

    def evidence(self) -> Evidence:
        """PROVED or REFUTED if complete, otherwise INCONCLUSIVE with what is missing."""
        if not self.complete:
            return Evidence(Rigour.INCONCLUSIVE, "proof", note=self.summary)
        if self.refutes:
            return Evidence(Rigour.REFUTED, "by proof", note=self.summary)
        return Evidence(Rigour.PROVED, self.scope, note=self.summary)


def prove(name: str) -> Proven:
    """The proof of that name checked; says so where the package of proofs is not installed."""
    start = perf_counter()
    try:
        check = importlib.import_module("proofs_check").check
    except ImportError:
        return Proven(name, False, "", "the package proofs_check is not installed", 0.0)
    try:
        outcome = check(name)
    except LookupError:
        return Proven(name, False, "", f"proofs_check has no proof named {name}", 0.0)
    seconds = perf_counter() - start
    return Proven(name, outcome.complete, outcome.scope, outcome.summary, seconds, outcome.proof.refutes)
