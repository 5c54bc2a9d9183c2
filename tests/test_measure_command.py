"""`icm measure`: the report of a checkpoint, of several, what goes on after a kill, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from icm.cli import app
from icm.measure import load
from tests.test_checkpoints import checkpoint

SMALL = ("--directions", "2", "--examples", "8", "--tokens", "2", "--radii", "1:20:3", "--double")


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["measure", *map(str, words)])


def test_a_report_of_one_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(checkpoint(tmp_path / "run"), "--layers", "*.mlp.*", "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [
        "curvature.svg",
        "measurements.json",
        "report.html",
        "report.json",
    ]
    measured = load(out / "measurements.json")
    assert list(measured) == ["blocks.0.mlp.up", "blocks.0.mlp.down"]
    report = json.loads((out / "report.json").read_text())
    layer = report["models"][0]["layers"]["blocks.0.mlp.up"]
    assert layer["mean"] == measured["blocks.0.mlp.up"].mean.tolist()
    # Measured on 8 examples, H of the one layer is negative; the other's is not.
    assert layer["steps"] == []
    assert "no steps of blocks.0.mlp.up" in result.output
    taken = report["models"][0]["layers"]["blocks.0.mlp.down"]["steps"]
    assert [step["name"] for step in taken] == ["solved", "solved, input moments", "gradient", "polar"]
    page = (out / "report.html").read_text()
    assert "blocks.0.mlp.down" in page
    assert "<svg" in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)


def test_several_checkpoints_make_a_picture_over_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    models = [checkpoint(tmp_path / f"run{step}", step) for step in (5, 20)]
    result = run(*models, "--layers", "*.up", "--out", out, "--no-steps", "--json", *SMALL)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [one["step"] for one in report["models"]] == [5, 20]
    assert {path.name for path in out.iterdir()} >= {"change.svg", "measurements-1.json", "measurements-2.json"}
    # One network, trained alike: the same at both steps.
    first, second = (one["layers"]["blocks.0.mlp.up"]["mean"] for one in report["models"])
    assert first == second


def test_a_killed_command_goes_on(tmp_path: Path) -> None:
    """Left where one of two layers is done, it ends with the numbers of a run in one go."""
    from icm.checkpoints import draw, read_checkpoint
    from icm.measure import curvature

    folder = checkpoint(tmp_path / "run")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(folder, "--layers", "*.mlp.*", "--out", whole, "--no-steps", *SMALL).exit_code == 0
    broken.mkdir()
    found = read_checkpoint(folder)

    def stop(done: int, total: int, what: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        curvature(
            found.model, found.loss, draw(found, [], 8, 25, 8), ["*.mlp.*"], [1.0, 20**0.5, 20.0], directions=2,
            tokens=2, dtype=torch.float64, resume=broken / "progress.json", progress=stop,
        )  # fmt: skip
    assert (broken / "progress.json").exists()
    result = run(folder, "--layers", "*.mlp.*", "--out", broken, "--no-steps", *SMALL)
    assert result.exit_code == 0, result.output
    assert (broken / "measurements.json").read_text() == (whole / "measurements.json").read_text()
    assert not (broken / "progress.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--layers", "*.mpl.up"), "blocks.0.mlp.up"),
        (("--layers", "*", "--radii", "1:0.1:3"), "--radii 1:0.1:3"),
        (("--layers", "*", "--radii", "lots"), "--radii lots"),
        (("--layers", "*", "--fused", "c_attn"), "--fused c_attn"),
        (("--layers", "*", "--fit", "cubic"), "--fit cubic"),
        (("--layers", "*", "--positions", "two"), "--positions two"),
        (("--layers", "*", "--length", "99"), "--length 99"),
        (("--layers", "*", "--memory", "much"), "memory='much'"),
        (("--layers", "*", "--text", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_is_wrong(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    out = tmp_path / "out"
    result = run(checkpoint(tmp_path / "run"), "--out", out, *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not list(out.glob("*"))


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("here")
    result = run(checkpoint(tmp_path / "run"), "--layers", "*", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "is a file" in result.stderr


def test_help_says_what_it_does() -> None:
    done = subprocess.run([sys.executable, "-m", "icm.cli", "measure", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Measure H(r)" in done.stdout
