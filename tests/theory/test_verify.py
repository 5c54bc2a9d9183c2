"""Runs over many instances: counts, budgets, seeds, workers, and what comes out of them."""

from __future__ import annotations

import json
import math

import pytest
import torch

import icm
from icm.errors import FileError, InputError
from icm.theory import Ball, Claim, Expected, Rigour, draw, replay, search, verify
from icm.theory.curvatures import smooth
from icm.theory.workers import Workers

halves = Claim(
    name="half",
    statement="no curvature brings a condition number below half of the gradient's",
    margin=lambda case: (case.sigma[:, 0] / case.sigma[:, -1]) / (case.g[:, 0] / case.g[:, -1]) - 0.5,
    hypotheses={"full rank": lambda case: case.drawn[:, -1] > 1e-6 * case.drawn[:, 0]},
)
positive = Claim("positive", "σ is not negative", lambda case: case.sigma.amin(-1))


def test_a_counterexample_in_ten_lines():
    """The README's claim: refuted by a steep power, with a witness that is small and comes back from its file."""
    found = search(halves, instances=500)
    assert found.grade is Rigour.REFUTED
    assert not found.as_expected
    witness = found.witness
    assert witness is not None
    assert witness.margin + witness.error < 0
    assert witness.instance.m * witness.instance.n <= 4
    assert replay(witness, halves).rigour is Rigour.REFUTED


def test_a_witness_survives_its_file(tmp_path):
    witness = search(halves, instances=300).witness
    assert witness is not None
    path = witness.save(tmp_path / "half.json")
    again = replay(path, halves)
    assert (again.rigour, again.margin, again.error) == (Rigour.REFUTED, witness.margin, witness.error)
    with pytest.raises(InputError, match="'half' is not among those of icm"):
        replay(path)
    (tmp_path / "bad.json").write_text('{"claim": 3}')
    with pytest.raises(FileError, match="holds no witness"):
        replay(tmp_path / "bad.json")
    with pytest.raises(FileError, match="cannot be read"):
        replay(tmp_path / "none.json")


def test_what_holds_is_not_refuted():
    result = search(positive, instances=200)
    assert (result.grade, result.witness, result.as_expected) == (Rigour.CERTIFIED, None, True)
    assert result.met >= 200


def test_a_claim_that_is_expected_to_fail():
    failing = Claim("fails", "", halves.margin, hypotheses=halves.hypotheses, expected=Expected.FAILS)
    assert verify(failing, 300).as_expected
    assert not verify(Claim("holds", "", positive.margin, expected=Expected.CORRECTS), 100).as_expected


def test_hypotheses_that_nothing_meets_leave_it_open():
    never = Claim("never", "", positive.margin, hypotheses={"impossible": lambda case: case.drawn[:, 0] < 0})
    result = verify(never, 40).results[0]
    assert result.grade is Rigour.INCONCLUSIVE
    assert not result.as_expected
    assert result.met == 0
    assert result.tried >= 40
    assert result.missed == {"impossible": result.tried}
    assert "meets the hypotheses" in result.headline.note


def test_margins_that_say_nothing_leave_it_open():
    vague = Claim("vague", "", lambda case: Ball(torch.zeros(len(case)), torch.ones(len(case))))
    assert verify(vague, 20).results[0].grade is Rigour.INCONCLUSIVE
    broken = Claim("broken", "", lambda case: torch.full((len(case),), math.nan))
    assert verify(broken, 20).results[0].grade is Rigour.INCONCLUSIVE


def test_enough_instances_meet_the_hypotheses():
    """More are drawn where many do not."""
    rare = Claim("rare", "", positive.margin, hypotheses={"wide": lambda case: case.m < case.n})
    result = verify(rare, 150).results[0]
    assert result.met >= 150
    assert result.tried > result.met


def figures(report) -> dict:
    record = report.to_dict()
    for row in record["claims"]:
        row.pop("seconds")
    return record


def test_a_seed_is_a_run(tmp_path):
    first, again, other = (verify(["homogenisation", "order"], 30, seed, proofs=False) for seed in (3, 3, 4))
    assert figures(first) == figures(again) != figures(other)
    path = first.save(tmp_path / "report.json")
    record = json.loads(path.read_text())
    assert [row["name"] for row in record["claims"]] == ["homogenisation", "order"]
    assert {"name", "grade", "expected", "scope", "margin"} <= set(record["claims"][0])
    assert "not public" in record["left_out"]


@pytest.mark.long
def test_workers_change_nothing():
    alone = verify(["homogenisation", "order"], 200, proofs=False)
    shared = verify(["homogenisation", "order"], 200, proofs=False, workers=2)
    assert figures(alone) == figures(shared)


def test_a_rigorous_run_encloses_twenty():
    result = verify("homogenisation", 50, rigorous=True, proofs=False).results[0]
    enclosed = [e for e in result.evidence if e.rigour is Rigour.ENCLOSED]
    assert len(enclosed) == 1
    assert enclosed[0].instances >= 20


def test_a_budget_ends_the_run():
    report = verify(None, 10_000, budget=1.0, proofs=False)
    assert all(0 <= result.tried < 10_000 for result in report.results)
    assert any(result.tried for result in report.results)


def test_progress_is_told():
    told = []
    verify(positive, 100, progress=lambda done, total, what: told.append((done, total, what)))
    done, total, _ = told[-1]
    assert done == total > 1
    assert {what for _, _, what in told} == {"positive"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"claims": "homogenization"}, "did you mean homogenisation"),
        ({"claims": "xyz"}, "choose among .*homogenisation"),
        ({"claims": [positive, positive]}, "named twice"),
        ({"claims": positive, "instances": 0}, "instances=0"),
        ({"claims": positive, "seed": -1}, "seed=-1"),
        ({"claims": positive, "workers": 0}, "workers=0"),
        ({"claims": positive, "budget": 0.0}, "budget=0.0"),
    ],
)
def test_what_cannot_be_is_named(options, words):
    with pytest.raises(InputError, match=words):
        verify(**options)


def test_the_room_is_loaded_when_named():
    assert icm.theory.verify is verify
    with pytest.raises(AttributeError, match="nothing"):
        _ = icm.nothing


def test_witnesses_are_written_for_what_is_refuted(tmp_path):
    failing = Claim("fails", "", lambda case: -case.sigma[:, 0], draw=draw(smooth), expected=Expected.FAILS)
    report = verify([failing, positive], 100)
    paths = report.save_witnesses(tmp_path / "witnesses")
    assert [path.name for path in paths] == ["fails.json"]
    assert "refuted" in str(report)
    assert report["fails"].witness is not None


def test_a_violation_without_a_text_is_told_all_the_same(tmp_path):
    """A Custom H cannot be saved, and an extra may hold integers or infinities; the search survives both."""
    custom = icm.Custom(lambda r: r**2, name="mine")
    failing = Claim(
        "fails", "", lambda case: -case.G.square().sum((-2, -1)), draw=draw(custom), expected=Expected.FAILS
    )
    report = verify(failing, 10)
    assert report["fails"].grade is Rigour.REFUTED
    record = report.to_dict()["claims"][0]["witness"]
    assert "no text" in record["not saved"]
    json.dumps(report.to_dict(), allow_nan=False)

    def extra(rng, made):
        size = len(made)
        return {"i": torch.zeros(size, dtype=torch.int64), "x": torch.full((size,), math.inf, dtype=torch.float64)}

    indexed = Claim(
        "indexed", "", lambda case: -case.drawn.gather(1, case["i"][:, None])[:, 0], draw=draw("r^3", extra=extra)
    )
    witness = search(indexed, 10).witness
    assert witness is not None
    again = replay(witness.save(tmp_path / "indexed.json"), indexed)
    assert again.rigour is Rigour.REFUTED


def test_a_violation_that_shows_in_a_batch_only_refutes_nothing():
    batched = Claim("batched", "", lambda case: torch.full((len(case),), 1.0 if len(case) == 1 else -1.0))
    result = verify(batched, 20).results[0]
    assert result.grade is Rigour.INCONCLUSIVE
    assert result.witness is None
    assert "none of them by an instance alone" in result.headline.note


def test_mostly_open_margins_leave_it_open():
    vague = Claim(
        "vague", "", lambda case: Ball(torch.ones(len(case)), torch.where(torch.arange(len(case)) < 1, 0.0, 2.0))
    )
    result = verify(vague, 60).results[0]
    assert result.grade is Rigour.INCONCLUSIVE
    assert "margins are known well enough" in result.headline.note


def test_a_proof_does_not_hold_what_no_instance_meets():
    never = Claim("never", "", positive.margin, hypotheses={"impossible": lambda case: False}, proof="quadratic")
    result = verify(never, 20).results[0]
    assert result.grade is Rigour.INCONCLUSIVE
    assert any(e.rigour is Rigour.PROVED for e in result.evidence)


def test_a_rank_that_fails_is_told_to_the_others(monkeypatch):
    def others(parts, mine):
        parts[:] = [mine, ([], "rank 1: ValueError('there')")]

    monkeypatch.setattr(torch.distributed, "all_gather_object", others)
    team = Workers(1)
    team.ranks = 2
    with pytest.raises(RuntimeError, match="rank 1: ValueError"):
        team.gather([1])
    assert team.run(lambda job: 1 // job, [0, 0], math.inf) == []
    with pytest.raises(ZeroDivisionError):
        team.gather([])


@pytest.mark.parametrize("name", ["a/b", "", "two words"])
def test_a_name_is_one_of_a_file(name):
    with pytest.raises(InputError, match="files are named after it"):
        Claim(name, "", positive.margin)
