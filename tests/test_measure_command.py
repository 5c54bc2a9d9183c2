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
from icm.measure import Taken, load
from tests.test_checkpoints import checkpoint

SMALL = ("--directions", "2", "--examples", "8", "--tokens", "2", "--radii", "1:20:3", "--double")


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["measure", *map(str, words)])


def test_a_report_of_one_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(checkpoint(tmp_path / "run"), "--layers", "*.mlp.*", "--out", out, "--fit", "power", *SMALL)
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
    # Measured on 8 examples, H of the one layer is positive at one radius alone; the other's at all.
    assert layer["steps"] == []
    assert "No steps of blocks.0.mlp.up: a curvature of kind 'power' takes 2 radii" in result.output
    assert report["models"][0]["remarks"][-1] in result.output
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
        if what.endswith("down"):
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


def test_options_changed_after_a_kill_are_refused_in_the_commands_words(tmp_path: Path) -> None:
    folder, out = checkpoint(tmp_path / "run"), tmp_path / "out"
    words = (folder, "--layers", "*.up", "--out", out, "--no-steps")

    def stop(*ignored: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("icm.measure.save", stop)  # killed once all is measured
        assert run(*words, *SMALL).exit_code == 130
    left = out / "progress.json"
    assert left.exists()
    result = run(*words, *SMALL, "--seed", "1")
    assert result.exit_code == 2
    assert f"--out {out} has a progress.json" in result.stderr
    assert "with seed=0 (here 1); give" in result.stderr
    assert f"delete {left}" in result.stderr
    assert "resume" not in result.stderr
    assert left.exists()
    assert run(*words, *SMALL).exit_code == 0
    assert not left.exists()


def test_checkpoints_of_one_step_keep_their_report(tmp_path: Path) -> None:
    """Such as the same step of two seeds: told apart by their places."""
    models = [checkpoint(tmp_path / f"run{seed}", 7) for seed in (1, 2)]
    result = run(*models, "--layers", "*.up", "--out", tmp_path / "out", "--no-steps", *SMALL)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "change.svg").exists()
    assert "checkpoint, in the order given" in (tmp_path / "out" / "report.html").read_text()


def test_steps_compute_in_the_precision_and_memory_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def steps(*positional: Any, **named: Any) -> Taken:
        given.update(named)
        return Taken()

    monkeypatch.setattr("icm.measure.steps", steps)
    words = ("--layers", "*.up", "--out", tmp_path / "out", "--memory", "64MiB")
    assert run(checkpoint(tmp_path / "run"), *words, *SMALL).exit_code == 0
    assert (given["dtype"], given["memory"]) == (torch.float64, "64MiB")


def test_a_checkpoint_that_cannot_be_read_is_found_before_the_others_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(checkpoint(tmp_path / "run"), tmp_path / "nowhere", "--layers", "*", "--out", out, *SMALL)
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--layers", "*", "--device", "foo"), "--device foo: say cpu, cuda or"),
        (("--layers", "*", "--device", "cuda:one"), "--device cuda:one: say cpu, cuda or"),
        (("--layers", "*", "--from-radius", "-1"), "--from-radius -1 is no radius"),
        (("--layers", "*", "--from-radius", "nan"), "--from-radius nan is no radius"),
        (("--layers", "*", "--from-radius", "200"), "--from-radius 200: the radii end at 100"),
        (("--layers", "*", "--examples", "1"), "--examples"),
        (("--layers", "*", "--directions", "0"), "--directions"),
        (("--layers", "*", "--tokens", "0"), "--tokens"),
        (("--layers", "*", "--batch", "0"), "--batch"),
        (("--layers", "*", "--memory", "0"), "--memory 0: write bytes"),
        (("--layers", "*", "--memory", "1"), "raise it, or give smaller batches"),
        (("--layers", "*", "--examples", "9999999"), "the text has"),
        (("--layers", "*.mpl.up"), "blocks.0.mlp.up"),
        (("--layers", "*", "--radii", "1:0.1:3"), "--radii 1:0.1:3"),
        (("--layers", "*", "--radii", "lots"), "--radii lots"),
        (("--layers", "*", "--fused", "c_attn"), "--fused c_attn"),
        (("--layers", "*", "--fit", "cubic"), "--fit cubic"),
        (("--layers", "*", "--positions", "two"), "--positions two"),
        (("--layers", "*", "--length", "99"), "--length 99"),
        (("--layers", "*", "--memory", "much"), "--memory much: write bytes"),
        (("--layers", "*", "--text", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_is_wrong(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    out = tmp_path / "out"
    result = run(checkpoint(tmp_path / "run"), "--out", out, *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not out.exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("here")
    result = run(checkpoint(tmp_path / "run"), "--layers", "*", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "is a file" in result.stderr


def test_help_says_what_it_does() -> None:
    done = subprocess.run([sys.executable, "-m", "icm.cli", "measure", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Measure H(r)" in done.stdout
