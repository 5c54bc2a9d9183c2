"""The demo says the same numbers twice, leaves nothing half-written, and finds its network."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from icm import demo
from icm.errors import FileError, InputError
from icm.tables import demo_table


def run(out: Path, **options):
    config = demo.load_example().Config(layers=1, width=16, heads=2, context=16)
    return demo.run(out, steps=3, config=config, curvatures=("r^2", "r^3"), **options)


def touch(solutions, path: Path, title: str) -> None:
    path.touch()


def test_twice_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "plot_spectra", touch)  # the overview is drawn, these have tests of their own
    heard = []
    report = run(tmp_path / "a", progress=lambda *event: heard.append(event))
    monkeypatch.setattr(demo, "plot_overview", touch)
    run(tmp_path / "b")
    first, second = ((tmp_path / name / "report.json").read_bytes() for name in "ab")
    assert first == second
    assert json.loads(first) == report
    run(tmp_path / "b", seed=1)  # over the old files
    assert (tmp_path / "b" / "report.json").read_bytes() != first

    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(["report.json", *report["pictures"]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # no temporary folder left
    assert [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)
    assert {total for _, total, _ in heard} == {heard[-1][0]}

    assert len(report["matrices"]) == 6
    for entry in report["matrices"].values():
        square, cubic = entry["solutions"]
        assert square["status"] == cubic["status"] == "optimal"
        assert square["cosine_gradient"] == pytest.approx(1, abs=1e-12)
        assert entry["polar"]["cosine_gradient"] < cubic["cosine_gradient"] < 1

    screen = StringIO()
    Console(width=120, file=screen).print(demo_table(report))
    text = screen.getvalue()
    assert all(name in text for name in ("0.attention.query", "0.mlp.down", "r^3", "polar"))


def test_bad_places_and_steps(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="is a file"):
        run(tmp_path / "file")
    with pytest.raises(FileError, match="no folder"):
        run(tmp_path / "nowhere" / "out")
    with pytest.raises(InputError, match="steps=-1"):
        demo.run(tmp_path / "out", steps=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_network_is_looked_for_in_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "icm" / "demo.py"))
    with pytest.raises(FileError) as caught:
        demo.load_example()
    for folder in ("icm/examples", "examples"):
        assert str(tmp_path / folder / "small_lm.py") in str(caught.value)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*args, **options):
        raise OSError("disk full")

    monkeypatch.setattr(demo, "plot_overview", fail)
    with pytest.raises(OSError, match="disk full"):
        run(tmp_path / "out")
    assert not list(tmp_path.iterdir())
