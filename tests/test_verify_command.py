"""`icm verify`: its table, files, exit codes, witnesses, and the same report on two ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer.testing

from icm.cli import app
from icm.theory import CLAIMS, draw
from icm.theory.curvatures import sub_quadratic

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--instances", "40", "--workers", "1", "--no-proofs"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(app, ["verify", *arguments])


def figures(text: str) -> dict:
    record = json.loads(text)
    for row in record["claims"]:
        row.pop("seconds")
    return record


def two_ranks(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "icm.cli"]
    return subprocess.run(
        [*command, "verify", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_table_has_both_coordinates():
    result = run("homogenisation", "newton-schulz-monotone", *QUICK)
    assert result.exit_code == 0, result.output
    assert "2 claims, all as expected" in result.stdout
    assert "certified 4" in result.stdout
    assert "refuted" in result.stdout
    assert "expected to fail" in result.stdout
    assert "--replay icm-witnesses/newton-schulz-monotone.json" in result.stdout
    assert "not public" in result.stdout


def test_a_witness_replays():
    assert run("newton-schulz-monotone", *QUICK).exit_code == 0
    again = run("--replay", "icm-witnesses/newton-schulz-monotone.json")
    assert again.exit_code == 0, again.output
    assert "refuted by this instance" in again.stdout
    record = json.loads(Path("icm-witnesses/newton-schulz-monotone.json").read_text())
    record["claim"] = "map-monotone"
    Path("other.json").write_text(json.dumps(record))
    assert run("--replay", "other.json").exit_code != 0


def test_proofs_are_told():
    result = run("homogenisation", "--instances", "10", "--workers", "1", "--json", "-")
    assert result.exit_code == 0
    row = json.loads(result.stdout)["claims"][0]
    assert row["grade"] == "proved"
    assert row["scope"] == "every case"
    assert [e["rigour"] for e in row["evidence"]] == ["proved", "certified"]


def test_json_goes_where_it_is_told():
    assert run("order", *QUICK, "--json", "report.json").exit_code == 0
    printed = run("order", *QUICK, "--json", "-")
    assert figures(printed.stdout) == figures(Path("report.json").read_text())
    assert figures(printed.stdout)["claims"][0]["hypotheses"] == list(CLAIMS["order"].hypotheses)


def test_an_unexpected_outcome_is_exit_code_1(monkeypatch):
    false = replace(CLAIMS["homogenisation"], hypotheses={}, draw=draw(sub_quadratic, shapes="square"), proof=None)
    monkeypatch.setitem(CLAIMS, "homogenisation", false)
    result = run("homogenisation", *QUICK)
    assert result.exit_code == 1, result.output
    assert "1 of 1 claims not as expected: homogenisation" in result.stdout
    assert Path("icm-witnesses/homogenisation.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["homogenization"], "no claim is named 'homogenization'"),
        (["order", "--instances", "0"], "instances=0"),
        (["order", "--budget", "-1"], "budget=-1"),
        (["order", "--json", "nowhere/report.json"], "create it first"),
        (["order", "--html", "report.txt"], "'.txt'"),
        (["--replay", "none.json"], "cannot be read"),
        (["--replay", "none.json", "order"], "leave out claims"),
        (["order", "--witnesses", "nowhere/folder"], "no folder nowhere"),
    ],
)
def test_bad_input_is_exit_code_2_and_writes_nothing(arguments, words, folder):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert list(folder.iterdir()) == []


def test_the_list_names_every_claim():
    result = run("--list")
    assert result.exit_code == 0
    assert [name for name in CLAIMS if name not in result.stdout] == []
    assert "Theorem 1" in result.stdout


def test_a_spent_budget_is_said():
    result = run("--budget", "0.2", "--instances", "2000", "--workers", "1", "--no-proofs")
    assert result.exit_code == 1  # not every claim was decided
    assert "The budget of 0.2 s ran out" in result.stdout


def test_two_ranks_write_the_report_of_one(folder):
    """torchrun splits the batches; the counts, margins and witnesses are the same to the last digit."""
    claims = ["homogenisation", "newton-schulz-monotone"]
    alone = run(*claims, *QUICK, "--json", "-")
    done = two_ranks(folder, *claims, *QUICK[:2], "--no-proofs", "--json", "two.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all as expected") == 1  # rank 0 alone prints
    assert figures(Path("two.json").read_text()) == figures(alone.stdout)


@pytest.mark.parametrize("variables", [{"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "many"}])
def test_half_a_launcher_is_bad_input(variables, monkeypatch, folder):
    """Without an address to meet at, or with a size that is no number: exit code 2 and the remedy."""
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = run("order", *QUICK)
    assert result.exit_code == 2
    assert "unset both to run one process" in " ".join(result.stderr.split())
    assert list(folder.iterdir()) == []


def test_an_unexpected_outcome_on_two_ranks_is_told(folder):
    """A launcher ends all ranks with the first that fails: the one that reports has to have reported by then."""
    done = two_ranks(folder, "order", "quadratic", *QUICK[:2], "--no-proofs", "--budget", "1e-6", "--json", "two.json")
    assert done.returncode == 1
    assert "2 of 2 claims not as expected: order, quadratic" in done.stdout
    assert not figures(Path("two.json").read_text())["as_expected"]
