"""The command line: the library's own numbers, exit codes, and nothing written when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import icm
from icm import demo
from icm.cli import app
from icm.files import read_matrix, write_array

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def G(rng: torch.Generator) -> torch.Tensor:
    return torch.randn(5, 3, dtype=torch.float64, generator=rng)


@pytest.fixture
def gradient(tmp_path: Path, G: torch.Tensor) -> Path:
    write_array(tmp_path / "gradient.npy", G)
    return tmp_path / "gradient.npy"


def call(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])


def test_json_is_the_solution(gradient: Path, G: torch.Tensor):
    result = call("solve", gradient, "-c", "r^2.5", "-c", "r^2 + r^4", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert told["shape"] == [5, 3]
    for entry, H in zip(told["solutions"], ("r^2.5", "r^2 + r^4"), strict=True):
        solution = icm.solve(G, H)
        assert entry["curvature"] == str(icm.parse(H))
        assert entry["status"] == "optimal"
        assert entry["value"] == float(solution.value)
        assert entry["gap"] == float(solution.gap)
        assert entry["singular_values"] == solution.sigma.tolist()
    assert told["singular_values"] == pytest.approx(torch.linalg.svdvals(G).tolist(), rel=1e-14)


def test_input_moment_is_that_of_solve(gradient: Path, G: torch.Tensor):
    C = torch.tensor([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
    moment, out = gradient.parent / "c.npy", gradient.parent / "q.npy"
    write_array(moment, C)
    result = call("solve", gradient, "--input-moment", moment, "--out", out, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    solution = icm.solve(G, "r^3", input_moment=C)
    assert torch.equal(read_matrix(out), solution.Q)
    assert json.loads(result.stdout)["solutions"][0]["value"] == float(solution.value)
    wide = torch.eye(5, dtype=torch.float64) + 0.5
    write_array(moment, wide)
    assert call("solve", gradient, "--dim", 5, "--input-moment", moment, "--out", out).exit_code == 0
    padded = icm.solve(torch.nn.functional.pad(G, (0, 2)), "r^3", input_moment=wide).Q
    assert torch.equal(read_matrix(out), padded)  # all five columns: the inputs move together
    refused = call("solve", gradient, "--input-moment", moment)
    assert refused.exit_code == 2
    assert "(5, 5), G (5, 3) has 3 inputs" in refused.stderr.replace("input_moment has shape ", "").replace(";", ",")
    assert call("solve", gradient, "--input-moment", moment, "--out", moment).exit_code == 2


@pytest.mark.parametrize("suffix", ["npy", "pt", "safetensors"])
def test_out_is_q(gradient: Path, G: torch.Tensor, suffix: str):
    out = gradient.parent / f"q.{suffix}"
    result = call("solve", gradient, "--out", out)
    assert result.exit_code == 0
    assert f"wrote {out}" in result.stdout
    assert torch.equal(read_matrix(out), icm.solve(G, "r^3").Q)


def test_dim_pads_and_cuts(gradient: Path, G: torch.Tensor):
    out = gradient.parent / "q.npy"
    assert call("solve", gradient, "--dim", 8, "--out", out).exit_code == 0
    padded = icm.solve(torch.nn.functional.pad(G, (0, 5)), "r^3").Q
    assert torch.equal(read_matrix(out), padded[:, :3])
    assert float(padded[:, 3:].abs().max()) == 0
    assert call("solve", gradient, "--dim", 3, "--out", out).exit_code == 0
    assert torch.equal(read_matrix(out), icm.solve(G, "r^3").Q)


def test_table(gradient: Path):
    result = call("solve", gradient, "-c", "r^2", "-c", "0.01*r", "--plot", gradient.parent / "a.svg")
    assert result.exit_code == 0
    for words in ("gradient.npy: 5 × 3", "optimal", "unbounded", "→", "Rows G and polar", "value: the objective"):
        assert words in result.stdout
    assert (gradient.parent / "a.svg").exists()


def test_unbounded_is_an_answer_but_no_q(gradient: Path):
    result = call("solve", gradient, "-c", "0.01*r", "--json")
    assert result.exit_code == 0
    (entry,) = json.loads(result.stdout)["solutions"]
    assert (entry["status"], entry["value"], entry["gap"]) == ("unbounded", None, None)
    assert entry["singular_values"] == [None] * 3
    result = call("solve", gradient, "-c", "0.01*r", "--out", gradient.parent / "q.npy")
    assert result.exit_code == 1
    assert "no Q to write" in result.stderr
    assert not (gradient.parent / "q.npy").exists()


def test_a_missed_tolerance_is_exit_code_1(gradient: Path):
    places = "--out", gradient.parent / "q.npy", "--plot", gradient.parent / "a.png"
    result = call("solve", gradient, "--tol", "1e-300", *places)
    assert result.exit_code == 1
    assert "stalled" in result.stdout
    assert "raise --tol" in result.stderr
    assert os.listdir(gradient.parent) == [gradient.name]


BAD: list[tuple[list[object], str]] = [
    (["solve"], "Missing argument"),
    (["nosuch"], "nosuch"),
    (["--nosuch"], "--nosuch"),
    (["solve", "{g}", "--nosuch"], "--nosuch"),
    (["solve", "{g}", "--dim", "x"], "'--dim'"),
    (["solve", "{g}", "--dim", "2"], "--dim 2: G has 3 columns"),
    (["solve", "{g}", "--dim", "-4"], "--dim -4"),
    (["solve", "{g}", "-c", "r^2 + foo"], "unknown shape 'foo'\n  r^2 + foo\n        ^"),
    (["solve", "{g}", "-c", "r^0.5"], "0.5"),
    (["solve", "{g}", "--method", "guess"], "--method guess: choose one of auto"),
    (["solve", "{g}", "--tol", "-1"], "tol=-1.0"),
    (["solve", "{g}", "--tol", "nan"], "tol=nan"),
    (["solve", "{g}", "--samples", "0"], "samples=0"),
    (["solve", "{g}", "--key", "weight"], "'weight'"),
    (["solve", "{d}/nowhere.npy"], "nowhere.npy: no such file"),
    (["solve", "{d}"], "is a folder"),
    (["solve", "{g}", "--out", "{d}/q.txt"], "'.txt'"),
    (["solve", "{g}", "--out", "{d}/nowhere/q.npy"], "create it first"),
    (["solve", "{g}", "--out", "{g}"], "would be overwritten"),
    (["solve", "{g}", "-c", "r^2", "-c", "r^3", "--out", "{d}/q.npy"], "2 curvatures"),
    (["solve", "{g}", "--plot", "{d}/a.gif"], "'.gif'"),
    (["solve", "{g}", "--out", "{d}/q.npy", "--plot", "{d}/nowhere/a.png"], "create it first"),
    (["demo", "--steps", "-1", "--out", "{d}/demo"], "steps=-1"),
    (["demo", "--out", "{g}"], "is a file"),
    (["demo", "--out", "{d}/nowhere/demo"], "no folder"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_bad_input_is_exit_code_2(gradient: Path, arguments: list[str], words: str):
    filled = [a.format(g=gradient, d=gradient.parent) for a in arguments]
    before = gradient.read_bytes()
    result = call(*filled)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert result.stdout == ""
    assert os.listdir(gradient.parent) == [gradient.name]
    assert gradient.read_bytes() == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers(tmp_path: Path, bad: float):
    np.save(tmp_path / "g.npy", np.array([[1.0, bad]]))
    result = call("solve", tmp_path / "g.npy", "--out", tmp_path / "q.npy")
    assert result.exit_code == 2
    assert str(bad) in result.stderr
    assert not (tmp_path / "q.npy").exists()


def test_zero_gradient(tmp_path: Path):
    np.save(tmp_path / "g.npy", np.zeros((2, 3)))
    assert call("solve", tmp_path / "g.npy", "--out", tmp_path / "q.npy").exit_code == 0
    assert float(read_matrix(tmp_path / "q.npy").abs().max()) == 0
    assert json.loads(call("solve", tmp_path / "g.npy", "--json").stdout)["gradient"]["condition"] is None
    result = call("solve", tmp_path / "g.npy", "--plot", tmp_path / "a.png", "--out", tmp_path / "p.npy")
    assert (result.exit_code, "G = 0" in result.stderr) == (2, True)
    assert not (tmp_path / "p.npy").exists()


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny = demo.load_example().Config(layers=1, width=16, heads=2, context=16)
    whole = demo.run

    def small(out, **options):
        return whole(out, config=tiny, curvatures=("r^2", "r^3"), **options)

    monkeypatch.setattr(demo, "run", small)
    for name in ("plot_spectra", "plot_overview"):
        monkeypatch.setattr(demo, name, lambda solutions, path, title: path.touch())
    result = call("demo", "--out", tmp_path / "a", "--steps", 2, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads((tmp_path / "a" / "report.json").read_text(encoding="utf-8"))
    result = call("demo", "--out", tmp_path / "a", "--steps", 2)
    assert "0.mlp.down" in result.stdout
    assert "overview.png" in result.stdout


def test_help_and_version():
    for arguments in ((), ("--help",)):
        result = call(*arguments)
        assert result.exit_code == 0
        assert "solve" in result.stdout
        assert "demo" in result.stdout
    assert call("--version").stdout == f"icm {icm.__version__}\n"
    assert "r^3" in call("solve", "--help").stdout


def test_as_a_program(gradient: Path):
    """Exit codes and streams of the real thing, and what it may not load before it has to."""
    command = [sys.executable, "-m", "icm.cli"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    bad = subprocess.run([*command, "solve", "no.npy"], env=environment, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: no.npy: no such file")
    code = (
        "import sys, icm.cli; print([m for m in ('matplotlib', 'cvxpy', 'scipy', 'safetensors') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"


def test_reasons_are_told(gradient: Path, G: torch.Tensor):
    """Below the table, and in JSON, why Q is a multiple of the polar factor or not; nothing of it for smooth H."""
    H = ["wall(1)", "0.5*r^2 + 1000*kink(1)", "0.5*r^2 + 0.01*kink(1)", "r^3"]
    options = [word for text in H for word in ("-c", text)]
    lines = call("solve", gradient, *options).stdout
    assert "wall(1): orthogonal (r̃ = 1, slopes 0 to ∞); wall:" in lines
    assert "0.5*r^2 + 1000*kink(1): orthogonal (r̃ = 1, slopes 1 to 1001, threshold " in lines
    assert "0.5*r^2 + 0.01*kink(1): not orthogonal; the slope" in lines
    assert "r^3: " not in lines
    told = json.loads(call("solve", gradient, *options, "--json").stdout)["solutions"]
    solution = icm.solve(G, H[1])
    assert solution.orthogonality is not None
    assert told[1]["orthogonality"]["reason"] == "exact"
    assert told[1]["orthogonality"]["threshold"] == float(solution.orthogonality.threshold)
    assert [entry["orthogonal"] for entry in told] == [True, True, False, False]
    assert "orthogonality" not in told[3]


def test_rigorous_prints_what_enclose_proves(gradient: Path, G: torch.Tensor):
    """--rigorous gives the bounds of icm.enclose, in text and in JSON, and skips what has no Q."""
    H = ["r^2.5", "0.5*r^2 + 1000*kink(1)", "0.001*kink(1)"]
    options = [word for text in H for word in ("-c", text)]
    result = call("solve", gradient, *options, "--rigorous")
    assert result.exit_code == 0
    assert "H = r^2.5, proved:\n  F(Q) in [" in result.stdout
    assert "interval Newton" in result.stdout
    assert "(exact)" in result.stdout
    told = json.loads(call("solve", gradient, *options, "--rigorous", "--json").stdout)["solutions"]
    for entry, text in zip(told[:2], H, strict=False):
        assert entry["enclosure"] == icm.enclose(icm.solve(G, text)).to_dict()
    assert told[2]["status"] == "unbounded"
    assert "enclosure" not in told[2]


def test_rigorous_without_flint(gradient: Path, monkeypatch: pytest.MonkeyPatch):
    """Without python-flint: exit code 2, the remedy, and nothing written."""
    monkeypatch.setitem(sys.modules, "flint", None)
    out = gradient.parent / "q.npy"
    result = call("solve", gradient, "--rigorous", "--out", out)
    assert result.exit_code == 2
    assert "pip install python-flint" in result.stderr
    assert not out.exists()
