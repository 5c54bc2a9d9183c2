"""The pictures of measured curvatures hold the measured numbers, and leave out what is noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from icm.errors import FileError, InputError
from icm.measure import Measurement
from icm.measure.tally import Tally
from icm.plots import plot_change, plot_curvatures
from icm.plots.curvature import telling_exponent

RADII = (0.1, 1.0, 10.0, 30.0, 100.0)


def made(
    name: str, power: float, scale: float = 1.0, noise: float = 1e-4, E: int = 8, apart: float = 0.0
) -> Measurement:
    """scale·a_e·r^(p + b_e) for examples e, `apart` times as much more and less in turn, and remainders ±noise at the
    radius of the noise."""
    generator = torch.Generator().manual_seed(0)
    a = 1 + 0.2 * torch.rand(E, generator=generator, dtype=torch.float64)
    b = 0.05 * torch.randn(E, generator=generator, dtype=torch.float64)
    x = scale * a * torch.tensor(RADII, dtype=torch.float64)[:, None] ** (power + b)
    x = x * (1 + apart * (-1.0) ** (torch.arange(len(RADII))[:, None] + torch.arange(E)))
    rounding = noise * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(E // 2)
    every = torch.cat([x, rounding[None]])[:, None, None]
    tally = Tally.of(every, torch.zeros_like(every), torch.ones(1, E).double(), 1e-6, (1, 1.0, 1.0))
    return Measurement(name, 3, 2, torch.tensor(RADII).double(), tally, "one", 1, 1, 0, 1e-16)


def curves(axes: Any) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines if len(line.get_xdata()) > 2}


def test_lines_are_the_resolved_ratios_with_exponents_in_the_legend():
    clear, rough = made("attention", 2.5), made("mlp.up", 2.2, noise=0.1)
    assert rough.resolved.tolist() == [False, True, True, True, True]
    figure = plot_curvatures({x.layer: x for x in (clear, rough)}, title="two")
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_title(loc="left")) == ("log", "log", "two")
    drawn = list(curves(axes).items())
    for (label, line), one in zip(drawn, (clear, rough), strict=True):
        fitted = one.exponent(10**0.5)
        assert label == f"{one.layer}  p = {fitted.value:.2f} [{fitted.low:.2f}, {fitted.high:.2f}]"
        np.testing.assert_array_equal(line[:, 0], one.radii[one.resolved])
        np.testing.assert_array_equal(line[:, 1], one.ratio[one.resolved])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [label for label, _ in drawn]
    assert len(axes.collections) == 2  # the intervals
    assert clear.plot().axes[0].get_xscale() == "log"


def test_the_radius_of_the_fit_is_marked_where_there_are_radii():
    assert len(plot_curvatures([made("a", 2.0)]).axes[0].lines) == 2
    assert len(plot_curvatures([made("a", 2.0)], from_radius=None).axes[0].lines) == 1
    figure = plot_curvatures([made("a", 2.0)], from_radius=1e4)
    assert len(figure.axes[0].lines) == 1
    assert figure.axes[0].get_xlim()[1] < 1e3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a  p = –"]  # no exponent from there on


def test_what_is_noise_alone_is_left_out():
    noise = made("noise", 2.0, noise=1e9)
    figure = plot_curvatures([made("a", 2.0), noise])
    assert len(curves(figure.axes[0])) == 1
    with pytest.raises(InputError, match="no measurement has a radius that stands clear of rounding"):
        plot_curvatures([noise])
    with pytest.raises(InputError, match="no measurement"):
        plot_curvatures([])


def test_many_layers_look_different():
    figure = plot_curvatures([made(f"layer.{i}", 2 + i / 10) for i in range(12)], from_radius=None)
    lines: list[Any] = list(figure.axes[0].lines)
    looks = {(x.get_color(), x.get_marker(), str(x._dash_pattern)) for x in lines}
    assert len(looks) == 12


def test_change_during_training():
    runs = {step: {"a": made("a", 2 + step / 100, 1 + step), "b": made("b", 2.5, noise=0.1)} for step in (50, 0, 10)}
    figure = plot_change(runs)
    left, right = figure.axes
    drawn = curves(left)
    np.testing.assert_allclose(drawn["a"], [(s, float(runs[s]["a"].ratio[0])) for s in (0, 10, 50)])
    np.testing.assert_allclose(drawn["b"], [(s, float(runs[s]["b"].ratio[1])) for s in (0, 10, 50)])
    bars: Any = right.containers[0]
    exponents = bars.lines[0].get_xydata()
    np.testing.assert_allclose(exponents, [(s, runs[s]["a"].exponent(10**0.5).value) for s in (0, 10, 50)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_exponents_that_say_nothing_are_dashes():
    """Of two radii, and with an interval wider than 2."""
    one, wild = made("a", 2.0), made("b", 2.0, apart=6.0)
    assert telling_exponent(one, 10**0.5) is not None
    assert telling_exponent(one, 20.0) is None
    assert one.exponent(20.0).value == pytest.approx(2, abs=0.1)
    found = wild.exponent(10**0.5)
    assert found.high - found.low > 2
    assert telling_exponent(wild, 10**0.5) is None
    figure = plot_curvatures([one, wild])
    assert ["  p = –" in text.get_text() for text in figure.legends[0].get_texts()] == [False, True]
    right: Any = plot_change({0: {"b": one}, 1: {"b": wild}, 2: {"b": one}}).axes[1]
    assert [bool(np.isnan(y)) for y in right.containers[0].lines[0].get_ydata()] == [False, True, False]
    assert right.get_ylim()[1] < 4


@pytest.mark.parametrize("count", [3, 5, 13])
@pytest.mark.parametrize("kind", ["same", "all apart"])
def test_legends_stay_inside_the_figure(count: int, kind: str) -> None:
    first = "decoder.backbone.transformer" if kind == "same" else "{}_decoder_of_a_network.backbone.of_a_long_name"
    every = [made(f"{first.format(i)}.h.{i}.attention.c_attn.query", 2.0 + i / 50) for i in range(count)]
    change = {step: {one.layer: one for one in every} for step in (0, 1)}
    for figure in (plot_curvatures(every), plot_change(change)):
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        box, whole = figure.legends[0].get_window_extent(renderer), figure.bbox
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= whole.x1
        assert figure.axes[0].get_window_extent(renderer).height > 0.5 * figure.dpi * 4


def test_what_names_begin_with_is_said_once():
    every = [made(f"transformer.h.{i}.attn.{part}", 2.0) for i in (0, 3) for part in ("key", "value")]
    legend = plot_curvatures(every).legends[0]
    assert legend.get_title().get_text() == "transformer.h. …"
    names = [text.get_text().split("  ")[0] for text in legend.get_texts()]
    assert names == ["0.attn.key", "0.attn.value", "3.attn.key", "3.attn.value"]
    nested = plot_curvatures([made("h.up", 2.0), made("h.up.0", 2.0)]).legends[0]
    assert [text.get_text().split("  ")[0] for text in nested.get_texts()] == ["up", "up.0"]
    alone = plot_curvatures([made("h.up", 2.0)]).legends[0]
    assert alone.get_texts()[0].get_text().startswith("h.up  p = ")


def test_a_layer_with_nothing_on_the_left_is_in_the_legend():
    rough = made("a", 2.0, noise=1e9)
    clear = made("a", 2.0)
    figure = plot_change({0: {"a": clear, "b": clear}, 1: {"a": rough, "b": clear}})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "a"]
    assert plot_change({1: {"a": clear}, 2: {"a": clear}}, along="place").axes[0].get_xlabel() == "place"


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    a, b = {"a": made("a", 2.0)}, {"b": made("b", 2.0)}
    with pytest.raises(InputError, match="1 step shows no change; give measurements at two or more"):
        plot_change({0: a})
    with pytest.raises(InputError, match="step 10 has other layers than step 0; measure the same at each"):
        plot_change({0: a, 10: b})
    for draw in (lambda path: plot_curvatures(a, path), lambda path: plot_change({0: a, 1: a}, path)):
        with pytest.raises(FileError, match="cannot write a file of kind"):
            draw(tmp_path / "a.txt")
        draw(tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
