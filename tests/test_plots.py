"""The pictures hold the lines they promise, with the solution's own numbers, and refuse what they cannot draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import icm
from icm.errors import FileError, InputError
from icm.plots import GRADIENT, POLAR, plot_overview, plot_spectra

G = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64))


def lines(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines}


def test_curves_are_the_spectra():
    solutions = [icm.solve(G, H) for H in ("r^2", "r^4")]
    figure = plot_spectra(solutions)
    spectra, lift = figure.axes
    drawn = lines(spectra)
    assert {"r^2", "r^4", GRADIENT, POLAR} <= set(drawn)
    for solution in solutions:
        x, y = (solution.g / solution.g[0]).numpy(), (solution.sigma / solution.sigma[0]).numpy()
        np.testing.assert_array_equal(drawn[str(solution.curvature)], np.stack([x, y], -1))
        np.testing.assert_allclose(lines(lift)[str(solution.curvature)], np.stack([x, y / x], -1), rtol=1e-15)
    assert (drawn[GRADIENT][:, 0] == drawn[GRADIENT][:, 1]).all()
    assert (drawn[POLAR][:, 1] == 1).all()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["H = r^2", "H = r^4", GRADIENT, POLAR, "singular values of G"]
    assert spectra.get_xscale() == "linear"


def test_axes_are_logarithmic_for_a_wide_spectrum():
    wide = torch.diag(torch.tensor([1.0, 1e-1, 1e-3, 1e-7, 0.0], dtype=torch.float64))
    spectra = plot_spectra([icm.solve(wide, "r^3")]).axes[0]
    assert (spectra.get_xscale(), spectra.get_yscale()) == ("log", "log")
    assert len(lines(spectra)["r^3"]) == 3  # 1e−7 and 0 are below the floor


def test_unbounded_is_said_and_not_drawn():
    figure = plot_spectra([icm.solve(G, "0.1*r"), icm.solve(G, "r^2")], title="two")
    assert len(lines(figure.axes[0])["0.1*r (unbounded)"]) == 0
    assert "H = 0.1*r (unbounded)" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_overview():
    panels = {name: [icm.solve(scale * G[:m], "r^3")] for name, scale, m in [("a", 1.0, 4), ("b", 2.0, 3)]}
    figure = plot_overview(panels, title="all")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a   4 × 4", "b   3 × 4"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    with pytest.raises(InputError, match="panels is empty"):
        plot_overview({})


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_saved_whole(tmp_path: Path, suffix: str, magic: bytes):
    path = tmp_path / f"a.{suffix}"
    icm.solve(G, "r^3").plot(path)
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


def test_refusals(tmp_path: Path):
    solution = icm.solve(G, "r^3")
    with pytest.raises(InputError, match=r"batch of shape \(2,\)"):
        plot_spectra([icm.solve(torch.stack([G, G]), "r^3")])
    with pytest.raises(InputError, match="solutions is empty"):
        plot_spectra([])
    with pytest.raises(InputError, match="G = 0"):
        plot_spectra([icm.solve(0 * G, "r^3")])
    with pytest.raises(FileError, match="create it first"):
        solution.plot(tmp_path / "nowhere" / "a.png")
    with pytest.raises(FileError, match=r"'\.gif'"):
        solution.plot(tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())
