"""A proof as a list of steps, and what came of checking them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec

from proofs_check.step import CHECKED, Failed, Kind, Step, joined

EVERY_CASE = "every case"
NO_FLINT = "skipped: python-flint is not installed (pip install python-flint)"


class Status(Enum):
    """What came of a step."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CITED = "cited"
    ARGUED = "in words"


@dataclass(frozen=True)
class Outcome:
    """What came of one step; `detail` is what its check looked at, or why it failed."""

    step: Step
    status: Status
    seconds: float = 0.0
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Checked and found to hold, or cited."""
        return self.status in (Status.PASSED, Status.CITED)

    def to_dict(self) -> dict[str, object]:
        step = self.step
        return {
            "name": step.name,
            "kind": step.kind.name.lower(),
            "statement": step.statement,
            "scope": step.scope,
            "source": step.source,
            "confirms": step.confirms,
            "status": self.status.value,
            "seconds": self.seconds,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Proof:
    """`statement` follows from `steps` and from the statements of the proofs that it `needs`, by name. Steps that are
    given twice, as theorems share lemmas, count once. A proof that `refutes` shows that the statement is false."""

    name: str
    statement: str
    source: str
    steps: tuple[Step, ...]
    refutes: bool = False
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", joined(*self.steps))
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise ValueError(f"proof {self.name!r} has two steps of one name among {names}")
        # One exact counterexample refutes all there is; anything else that is looked at on a few cases says which.
        for step in self.steps:
            if step.kind in (Kind.EXACT, Kind.ENCLOSED) and not step.scope and not self.refutes:
                raise ValueError(f"step {step.name!r} of proof {self.name!r} does not say what it looks at")

    @property
    def scope(self) -> str:
        """`every case`, or the cases to which the steps that carry the proof are limited."""
        return _scopes(step.scope for step in self.steps if step.limits)


@dataclass(frozen=True)
class ProofOutcome:
    """What came of all steps of a proof, and of the proofs that it needs."""

    proof: Proof
    outcomes: tuple[Outcome, ...]
    needs: tuple[ProofOutcome, ...] = ()

    @property
    def checked(self) -> bool:
        """Every step that a program can check passed, those of the proofs needed included."""
        own = all(outcome.passed for outcome in self.outcomes if outcome.step.kind in CHECKED)
        return own and all(needed.checked for needed in self.needs)

    @property
    def failed(self) -> bool:
        own = any(outcome.status is Status.FAILED for outcome in self.outcomes)
        return own or any(needed.failed for needed in self.needs)

    @property
    def complete(self) -> bool:
        """Checked, nothing left in words, no step that carries the proof limited to a few cases, and every proof that
        it needs complete."""
        own = all(outcome.passed for outcome in self.outcomes) and self.scope == EVERY_CASE
        return own and all(needed.complete for needed in self.needs)

    @property
    def scope(self) -> str:
        """`every case`, or the cases that the proof, or one that it needs, is limited to."""
        scopes = (self.proof.scope, *(needed.scope for needed in self.needs))
        return _scopes(scope for scope in scopes if scope != EVERY_CASE)

    @property
    def summary(self) -> str:
        """The verdict, how many steps there are of each kind, and what other proofs are needed."""
        needs = f"; needs {', '.join(self.proof.needs)}" if self.proof.needs else ""
        return f"{self.verdict} ({count_kinds(self.outcomes)}{needs})"

    @property
    def seconds(self) -> float:
        """Of its own steps."""
        return sum(outcome.seconds for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        """One line."""
        if self.failed:
            own = [outcome.step.name for outcome in self.outcomes if outcome.status is Status.FAILED]
            return f"failed: {', '.join(own + [f'proof of {n.proof.name}' for n in self.needs if n.failed])}"
        if self.complete:
            return "complete: refuted by a counterexample" if self.proof.refutes else f"complete: {EVERY_CASE}"
        left: list[str] = []
        for status, words in ((Status.SKIPPED, "skipped"), (Status.ARGUED, "in words")):
            if count := sum(outcome.status is status for outcome in self.outcomes):
                left.append(f"{count} step{'s' * (count > 1)} {words}")
        open_proofs = [needed.proof.name for needed in self.needs if not needed.complete]
        rests = f", needs {', '.join(open_proofs)}, not complete" if open_proofs else ""
        limits = f" ({self.scope})" if self.scope != EVERY_CASE else ""
        return "checked" + (f" except {' and '.join(left)}" if left else "") + rests + limits

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.proof.name,
            "statement": self.proof.statement,
            "source": self.proof.source,
            "refutes": self.proof.refutes,
            "needs": [{"name": needed.proof.name, "complete": needed.complete} for needed in self.needs],
            "scope": self.scope,
            "checked": self.checked,
            "complete": self.complete,
            "verdict": self.verdict,
            "seconds": self.seconds,
            "steps": [outcome.to_dict() for outcome in self.outcomes],
        }


def count_kinds(outcomes: Iterable[Outcome]) -> str:
    """3 symbolic, 2 cited, …"""
    counts = Counter(outcome.step.kind for outcome in outcomes)
    return ", ".join(f"{counts[kind]} {kind.name.lower()}" for kind in Kind if counts[kind])


def _scopes(scopes: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(scopes)) or EVERY_CASE


def run(proof: Proof, needs: Sequence[ProofOutcome] = ()) -> ProofOutcome:
    """Check every step of a proof, also those after one that fails; `needs` is what came of the proofs it needs."""
    if tuple(needed.proof.name for needed in needs) != proof.needs:
        raise ValueError(f"proof {proof.name!r} needs {proof.needs}")
    return ProofOutcome(proof, tuple(run_step(step) for step in proof.steps), tuple(needs))


def run_step(step: Step) -> Outcome:
    """Check one step. What ball arithmetic cannot enclose counts as failed."""
    if step.check is None:
        return Outcome(step, Status.CITED if step.kind is Kind.CITED else Status.ARGUED)
    if step.kind is Kind.ENCLOSED and find_spec("flint") is None:
        return Outcome(step, Status.SKIPPED, detail=NO_FLINT)
    start = time.perf_counter()
    try:
        detail, status = step.check(), Status.PASSED
    except (Failed, ArithmeticError) as error:
        detail, status = str(error), Status.FAILED
    return Outcome(step, status, time.perf_counter() - start, detail)
