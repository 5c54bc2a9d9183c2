"""Outcomes as a tree to read."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from proofs_check.proof import Outcome, Proof, ProofOutcome, Status, count_kinds

_STYLES = {
    Status.PASSED: "green",
    Status.FAILED: "bold red",
    Status.SKIPPED: "yellow",
    Status.CITED: "cyan",
    Status.ARGUED: "yellow",
}
_WIDTH = 120  # where there is no terminal


def console() -> Console:
    """A terminal as wide as it is, or plain text."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDTH, color_system=None)


def mark(outcome: Outcome) -> str:
    """✓ symbolic / ✓ exact n ≤ 6 / ✓ enclosed 3 instances / · cited: Birkhoff / – in words."""
    step = outcome.step
    if outcome.status is Status.CITED:
        return f"· cited: {step.source}"
    if outcome.status is Status.ARGUED:
        return "– in words"
    sign = {Status.PASSED: "✓", Status.FAILED: "✗", Status.SKIPPED: "?"}[outcome.status]
    words = f"{sign} {step.kind.name.lower()}" + (f" {step.scope}" if step.scope else "")
    if outcome.status is Status.SKIPPED:
        return words
    return f"{words} {outcome.seconds:.2f} s" + (", confirms" if step.confirms else "")


def tree(result: ProofOutcome) -> Tree:
    """The statement, its steps, and the verdict."""
    proof = result.proof
    head = Text(proof.name, style="bold")
    head.append(f"  {'refutes: ' if proof.refutes else ''}{proof.statement}", style="not bold")
    node = Tree(head)
    for outcome in result.outcomes:
        line = Text(mark(outcome), style=_STYLES[outcome.status])
        line.append(f"\n{outcome.step.name}: {outcome.step.statement}", style="default")
        if outcome.status in (Status.FAILED, Status.SKIPPED):
            line.append(f"\n{outcome.detail}", style=_STYLES[outcome.status])
        node.add(line)
    for needed in result.needs:
        style = "cyan" if needed.complete else "yellow"
        node.add(Text(f"→ needs {needed.proof.name}: {needed.verdict}", style=style))
    node.add(Text(result.verdict, style="bold red" if result.failed else "bold"))
    return node


def summary(results: Sequence[ProofOutcome]) -> str:
    """How many proofs are complete, and how many steps of each kind there were."""
    count = len(results)
    complete, failed = sum(r.complete for r in results), sum(r.failed for r in results)
    outcomes = [outcome for result in results for outcome in result.outcomes]
    seconds = sum(result.seconds for result in results)
    steps = f"{len(outcomes)} steps: {count_kinds(outcomes)}"
    return f"{complete} of {count} proofs complete, {failed} failed; {steps}; {seconds:.1f} s"


def listing(proofs: Sequence[Proof]) -> Text:
    """Names and statements, nothing checked."""
    width = max(len(proof.name) for proof in proofs)
    lines = (f"{p.name:{width}}  {'refutes: ' if p.refutes else ''}{p.statement}" for p in proofs)
    return Text("\n".join(lines))
