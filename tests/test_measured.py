"""The report of `icm measure`: what it shows, what it says below its tables, and what becomes of it where a figure
cannot be drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import icm.measured as measured
from icm.measure import Measurement, Step
from icm.measured import Measured, as_json, curvature_table, remarks, step_table, write_report
from tests.test_plots_curvature import made

FROM = 10**0.5


def taken(layer: str, **other: Any) -> Step:
    return replace(Step(layer, "solved", 1.0, 0.5, 0.8, 2.0, 1.0, 0.4, 0.6, 2.0, 0.0, False, False), **other)


def checkpoint(step: int | None = 3, name: str = "run", **other: Any) -> Measured:
    layers = {"a": made("a", 2.5), "b": made("b", 2.0)}
    return replace(Measured(name, step, 2.0, layers, {"a": [taken("a")]}), **other)


def shown(table: Any) -> str:
    screen = Console(file=StringIO(), width=160)
    screen.print(table)
    return screen.file.getvalue()  # type: ignore[attr-defined]


def written(folder: Path, found: list[Measured]) -> str:
    paths = write_report(folder, found, {"seed": 0}, FROM, "tabulated")
    assert sorted(folder.iterdir()) == sorted(paths)
    return (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("steps", "along"),
    [
        ((300, 100), "Over the training step."),
        ((100, 100), "Over the checkpoint, in the order given."),
        ((None, 100), "Over the checkpoint, in the order given."),
    ],
)
def test_several_checkpoints_are_told_apart_by_step_or_by_place(
    tmp_path: Path, steps: tuple[int | None, ...], along: str
) -> None:
    page = written(tmp_path, [checkpoint(step) for step in steps])
    assert along in page
    assert (tmp_path / "change.svg").exists()
    kept = json.loads((tmp_path / "report.json").read_text())
    assert [one["step"] for one in kept["models"]] == list(steps)


def test_checkpoints_of_other_layers_keep_their_report(tmp_path: Path) -> None:
    page = written(tmp_path, [checkpoint(1), checkpoint(2, measurements={"c": made("c", 2.0)}, steps={})])
    assert "No picture of the change: step 2 has other layers than step 1" in page
    assert not (tmp_path / "change.svg").exists()


def test_a_checkpoint_drowned_in_noise_keeps_its_report(tmp_path: Path) -> None:
    noise: dict[str, Measurement] = {"a": made("a", 2.0, noise=1e9)}
    page = written(tmp_path, [checkpoint(measurements=noise, steps={})])
    assert "no measurement has a radius that stands clear of rounding" in page
    assert not (tmp_path / "curvature.svg").exists()
    row = next(line for line in shown(curvature_table(checkpoint(measurements=noise), FROM, "power")).splitlines()
               if " a " in line)  # fmt: skip
    assert row.split()[2:6] == ["–", "0/5", row.split()[4], "–"]


def test_nothing_is_written_before_everything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*ignored: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(measured, "plot_change", fails)
    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path / "out", [checkpoint(1), checkpoint(2)], {}, FROM, "power")
    assert not (tmp_path / "out").exists()


def test_exponents_that_say_nothing_are_dashes_in_the_table_and_numbers_in_the_file() -> None:
    one = checkpoint(measurements={"a": made("a", 2.5), "b": made("b", 2.0, apart=6.0)})
    rows = {
        line.split()[0]: line.split()
        for line in shown(curvature_table(one, FROM, "power")).splitlines()
        if line.strip()
    }
    assert rows["a"][2].startswith("2.")
    assert rows["b"][2] == "–"
    kept = as_json([one], {}, FROM)["models"][0]["layers"]["b"]["exponent"]
    assert kept["high"] - kept["low"] > 2


def test_updates_at_the_wall_are_marked() -> None:
    one = checkpoint(steps={"a": [taken("a"), taken("a", name="polar", at_wall=True)]})
    table = shown(step_table(one)).partition("One layer")[0]
    lines = {line.split()[0]: line.split() for line in table.splitlines() if line.strip()}
    assert lines["update"][-1] == "wall"
    assert lines["polar"][-1] == "yes"
    assert lines["solved"][-1] == "2"


def test_remarks_say_what_the_tables_do_not() -> None:
    assert remarks(checkpoint()) == []
    (said,) = remarks(checkpoint(steps={"a": [taken("a", predicted=2.5)], "b": [taken("b", predicted=1.9)]}))
    assert said.startswith("Promised is more than the loss itself, 2, in a: no step can give it")
    (said,) = remarks(checkpoint(steps={"b": [taken("b", at_bound=True)]}))
    assert said == "The best multiple is the longest tried, 2²⁰, in b; longer ones may give more."
    (said,) = remarks(checkpoint(skipped={"b": "b: its gradient is 0"}))
    assert said == "No steps of b: its gradient is 0."
    a = made("a", 2.0)
    fewer = replace(a, tally=replace(a.tally, left_out=a.tally.left_out + 3))
    (said,) = remarks(checkpoint(measurements={"a": fewer, "b": made("b", 2.0)}))
    assert said == "3 examples without a loss are left out, in a."
    many = {name: [taken(name, predicted=9.0)] for name in "abcde"}
    assert "in a, b, c and 2 more: no step" in remarks(checkpoint(steps=many))[0]


def test_names_are_no_markup() -> None:
    one = checkpoint(name="[red]x[/red] [/]")
    assert "[red]x[/red] [/], step 3" in shown(curvature_table(one, FROM, "power"))


def test_what_is_not_finite_is_null() -> None:
    kept = as_json([checkpoint(steps={"a": [taken("a", obtained=float("-inf"))]})], {}, FROM)
    assert kept["models"][0]["layers"]["a"]["steps"][0]["obtained"] is None
    json.dumps(kept, allow_nan=False)
