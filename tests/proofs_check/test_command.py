"""`python -m proofs_check`: what it prints, its exit codes, and how little it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

import proofs_check
import proofs_check.__main__ as command
from proofs_check import PROOFS, Proof
from proofs_check.step import Failed, argued, symbolic

ROOT = Path(proofs_check.__file__).parents[1]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, encoding="utf-8", env=environment, cwd=ROOT
    )


def test_a_pipe_gets_plain_text() -> None:
    done = python("-m", "proofs_check", "ratios-angle", "newton-schulz-monotone")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "✓ symbolic" in done.stdout
    assert "· cited" in done.stdout
    assert "complete: every case" in done.stdout
    assert "2 of 2 proofs complete, 0 failed" in done.stdout


def test_importing_loads_neither_sympy_nor_flint() -> None:
    heavy = "{'sympy', 'flint', 'mpmath', 'torch', 'icm', 'rich', 'numpy'}"
    done = python("-c", f"import sys, proofs_check; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["cap", "cup"]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert "unknown: cup" in shown.err
    assert "homogenisation" in shown.err


def test_a_failure_exits_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> str:
        raise Failed("x [y] should vanish")

    steps = (symbolic("bad", "x [y] = 0.", fails), argued("words", "It is clear."))
    false = MappingProxyType({"false": Proof("false", "False [sic].", "nowhere", steps)})
    monkeypatch.setattr(proofs_check, "PROOFS", false)
    monkeypatch.setattr(command, "PROOFS", false)
    assert command.main([]) == 1
    shown = capsys.readouterr().out
    assert "✗ symbolic" in shown
    assert "x [y] should vanish" in shown
    assert "– in words" in shown
    assert "failed: bad" in shown
    assert "0 of 1 proofs complete, 1 failed" in shown


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["ratios-angle", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["name"] == "ratios-angle"
    assert found["complete"] is True
    assert found["needs"] == []
    assert {step["status"] for step in found["steps"]} == {"passed", "cited"}


def test_what_is_needed_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["norm-steepest"]) == 0
    assert "→ needs norm-family: complete: every case" in capsys.readouterr().out
    assert command.main(["norm-steepest", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["needs"] == [{"name": "norm-family", "complete": True}]


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in PROOFS)
    assert command.main(["--list", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == list(PROOFS)
