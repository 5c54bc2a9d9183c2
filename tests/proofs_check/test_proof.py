"""What a proof says of itself, on proofs made for the purpose."""

from __future__ import annotations

import pytest

import proofs_check.proof
from proofs_check.proof import NO_FLINT, Proof, Status, run
from proofs_check.step import Failed, Kind, Step, argued, cited, enclosed, exact, joined, symbolic


def holds() -> str:
    return "looked at"


def fails() -> str:
    raise Failed("x should vanish")


GOOD = symbolic("good", "1 = 1.", holds)
BAD = symbolic("bad", "1 = 0.", fails)
CITED = cited("cited", "A theorem.", "a book")
WORDS = argued("words", "It is clear.")


def proof(*steps: Step, refutes: bool = False) -> Proof:
    return Proof("name", "A statement.", "a source", steps, refutes)


def test_complete() -> None:
    result = run(proof(GOOD, CITED))
    assert result.checked
    assert result.complete
    assert result.verdict == "complete: every case"
    assert result.scope == "every case"
    assert result.summary == "complete: every case (1 symbolic, 1 cited)"


def test_words_leave_it_incomplete() -> None:
    result = run(proof(GOOD, WORDS))
    assert result.checked
    assert not result.complete
    assert result.verdict == "checked except 1 step in words"


def test_a_failure_is_kept_and_the_rest_goes_on() -> None:
    result = run(proof(BAD, GOOD))
    assert [o.status for o in result.outcomes] == [Status.FAILED, Status.PASSED]
    assert result.outcomes[0].detail == "x should vanish"
    assert not result.checked
    assert not result.complete
    assert result.verdict == "failed: bad"


def test_a_few_cases_do_not_carry_every_case() -> None:
    few = proof(GOOD, exact("few", "It holds.", holds, "n ≤ 6", confirms=False))
    assert few.scope == "n ≤ 6"
    assert not run(few).complete
    assert run(few).verdict == "checked (n ≤ 6)"
    assert run(proof(GOOD, exact("few", "It holds.", holds, "n ≤ 6"))).complete


def test_complete_only_if_what_it_needs_is() -> None:
    rests = Proof("rests", "A statement.", "a source", (GOOD,), needs=("name",))
    assert run(rests, [run(proof(GOOD))]).complete
    assert run(rests, [run(proof(GOOD))]).summary == "complete: every case (1 symbolic; needs name)"
    open_ = run(rests, [run(proof(WORDS))])
    assert open_.checked
    assert not open_.complete
    assert open_.verdict == "checked, needs name, not complete"
    failed = run(rests, [run(proof(BAD))])
    assert failed.failed
    assert not failed.checked
    assert failed.verdict == "failed: proof of name"
    few = run(rests, [run(proof(exact("few", "It holds.", holds, "n ≤ 6", confirms=False)))])
    assert not few.complete
    assert few.scope == "n ≤ 6"
    with pytest.raises(ValueError, match="needs"):
        run(rests)


def test_what_cannot_be_enclosed_fails() -> None:
    def unresolved() -> str:
        raise ArithmeticError("the integral diverges")

    result = run(proof(enclosed("ball", "It holds.", unresolved, "one instance")))
    assert result.failed


def test_without_flint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs_check.proof, "find_spec", lambda name: None)
    result = run(proof(GOOD, enclosed("ball", "It holds.", holds, "one instance")))
    assert result.outcomes[1].status is Status.SKIPPED
    assert result.outcomes[1].detail == NO_FLINT
    assert not result.failed
    assert not result.complete
    assert result.verdict == "checked except 1 step skipped"


def test_steps_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="has a check exactly if"):
        Step("bare", Kind.SYMBOLIC, "1 = 1.")
    with pytest.raises(ValueError, match="has a check exactly if"):
        Step("words", Kind.ARGUED, "Clear.", holds)
    with pytest.raises(ValueError, match="cites nothing"):
        cited("cited", "A theorem.", "")
    with pytest.raises(ValueError, match="two steps of one name"):
        proof(GOOD, symbolic("good", "2 = 2.", holds))
    with pytest.raises(ValueError, match="does not say what it looks at"):
        proof(Step("exact", Kind.EXACT, "It holds.", holds))


def test_one_counterexample_refutes() -> None:
    result = run(proof(Step("exact", Kind.EXACT, "A counterexample.", holds), refutes=True))
    assert result.complete
    assert result.verdict == "complete: refuted by a counterexample"


def test_joined() -> None:
    assert joined(GOOD, CITED, GOOD) == (GOOD, CITED)
    assert proof(GOOD, CITED, GOOD).steps == (GOOD, CITED)
