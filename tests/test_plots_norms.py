"""The pictures of a monitor hold its readings, its constants, and what exponents mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from icm.errors import FileError, InputError
from icm.optim.monitor import Monitor
from icm.optim.readings import MEASURED, Reading
from icm.plots.norms import height, plot_exponents, plot_monitor


def log(layers: int = 2, steps: int = 4, **changed: Any) -> list[Reading]:
    """Readings of all kinds, layer i's sizes i + 1 times those of the first."""
    return [
        Reading(
            **{
                "step": 10 * step, "layer": f"layer.{i}", "norm": "rms-to-rms", "lr": 0.1,
                "weight": (i + 1) * 2.0**step, "update": (i + 1) * 0.1, "features": i + 1.0, "feature_update": 0.01,
                "exponent": 0.5 * i, "low": 0.5 * i - 0.1, "high": 0.5 * i + 0.1, "cosine": 0.95, "source": "momentum",
                **changed,
            }
        )
        for step in range(steps)
        for i in range(layers)
    ]  # fmt: skip


def curves(axes: Any) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines if line.get_label()[0] != "_"}


def test_sizes_of_every_layer_are_drawn_over_the_steps() -> None:
    readings = log()
    figure = plot_monitor(readings)
    for name, axes in zip(MEASURED, figure.axes, strict=True):
        drawn = curves(axes)
        assert list(drawn) == ["layer.0", "layer.1"]
        for layer, line in drawn.items():
            wanted = [(one.step, getattr(one, name)) for one in readings if one.layer == layer]
            np.testing.assert_array_equal(line, wanted)
        assert axes.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["layer.0", "layer.1"]


def test_what_was_not_measured_or_is_not_finite_is_left_out() -> None:
    figure = plot_monitor([*log(1, 2), *log(1, 1, step=20, weight=math.nan, update=0.0, features=None)])
    lengths = [len(curves(axes)["layer.0"]) for axes in figure.axes]
    assert lengths == [2, 2, 2, 3]
    none = plot_monitor(log(1, 2, features=None, feature_update=None))
    assert len(curves(none.axes[2])["layer.0"]) == 0


def watched() -> Monitor:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4, bias=False)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1, stable={"weight": 7.0, "update": 3.0}, learning=1e-3) as monitor:
        for i in range(3):
            model(torch.eye(6).double()[i : i + 1]).square().sum().backward()
            optimizer.step()
    return monitor


def test_the_monitors_constants_are_lines(tmp_path: Path) -> None:
    monitor = watched()
    axes = dict(zip(MEASURED, plot_monitor(monitor).axes, strict=True))
    level: dict[str, list[float]] = {}
    for name, one in axes.items():
        lines: list[Any] = list(one.lines)
        level[name] = [float(x.get_ydata()[0]) for x in lines if len(x.get_xdata()) == 2]
    assert level == {"weight": [7.0], "update": [3.0, 1e-3], "features": [], "feature_update": [1e-3]}
    assert [text.get_text() for text in axes["update"].texts] == ["stable\n3", "learning\n0.001"]
    monitor.plot(tmp_path / "sizes.png")
    monitor.plot_exponents(tmp_path / "exponents.svg")
    assert (tmp_path / "sizes.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "exponents.svg").read_bytes()[:5] == b"<?xml"


def test_exponents_have_their_meaning_at_their_height() -> None:
    assert [height(a) for a in (-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0, math.inf)] == pytest.approx(
        [-1.0, -0.5, 0.0, 1 / 5, 1 / 3, 1 / 2, 3 / 4, 1.0]
    )  # 1/p from p = ∞ on
    readings = [*log(3, 2), *log(1, 2, layer="steep", exponent=math.inf, high=math.inf)]
    figure = plot_exponents(readings)
    above, below = figure.axes
    drawn = curves(above)
    assert [float(line[0, 1]) for line in drawn.values()] == pytest.approx([0.0, 1 / 3, 1 / 2, 1.0])
    left = dict(zip([x.get_text() for x in above.get_yticklabels()], above.get_yticks(), strict=True))
    assert (left["0"], left["1"], left["∞"]) == (0.0, 0.5, 1.0)
    (right,) = above.child_axes
    meaning = dict(zip([x.get_text() for x in right.get_yticklabels()], right.get_yticks(), strict=True))
    assert meaning["p = ∞, spectral: Muon"] == 0.0
    assert meaning["p = 2, Frobenius: SGD"] == 0.5
    assert meaning["p = 1, nuclear"] == 1.0
    for text, y in meaning.items():
        if text.startswith("p = ") and text[4:] in ("5", "3", "4/3"):
            top, _, bottom = text[4:].partition("/")
            assert y == pytest.approx(int(bottom or 1) / int(top))
    cosines: list[Any] = list(below.lines[:4])
    assert all(list(line.get_ydata()) == [0.95, 0.95] for line in cosines)


def test_updates_that_nothing_describes_are_hollow() -> None:
    poor = log(1, 2, layer="poor", cosine=0.5)
    above = plot_exponents([*log(1, 3), *poor]).axes[0]
    hollow: list[Any] = [line for line in above.lines if line.get_markerfacecolor() == "white"]
    assert [len(line.get_xdata()) for line in hollow] == [2]
    assert len(above.collections) == 2  # low to high
    assert len(plot_exponents(log(5, 3)).axes[0].collections) == 0


def test_updates_beyond_the_family_are_in_the_picture() -> None:
    above: Any = plot_exponents(log(2, 3, exponent=-0.7, low=-1.0, high=-0.5)).axes[0]
    bottom, top = above.get_ylim()
    assert bottom < -0.7 < top
    assert "beyond" in [x.get_text() for x in above.child_axes[0].get_yticklabels()]


def test_many_layers_look_different_and_have_room() -> None:
    figure = plot_monitor(log(30, 2))
    every: list[Any] = list(figure.axes[0].lines)
    lines = [line for line in every if line.get_label()[0] != "_"]
    assert len({(x.get_color(), x.get_marker(), str(x._dash_pattern)) for x in lines}) == 30
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
    for axes in figure.axes:
        assert axes.get_window_extent().height > 150


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no step was measured"):
        plot_monitor([])
    with pytest.raises(InputError, match="no reading has an exponent"):
        plot_exponents(log(exponent=None))
    with pytest.raises(InputError, match="no reading has an exponent"):
        plot_exponents(log(exponent=math.nan))
    for draw in (plot_monitor, plot_exponents):
        with pytest.raises(FileError, match="cannot write a file of kind"):
            draw(log(), tmp_path / "a.txt")
