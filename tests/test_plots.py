"""The pictures hold the lines they promise, with the solution's own numbers, and refuse what they cannot draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import icm
from icm.curvature import Kink, Power, Wall
from icm.errors import FileError, InputError
from icm.plots import GRADIENT, POLAR, plot_law, plot_overview, plot_region, plot_spectra
from icm.plots.region import EXACT, LEFT, PROVEN, RIGHT
from icm.sphere.distribution import law

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


def test_law_is_drawn_with_its_own_numbers():
    some = law([1.0, 0.5, 0.2], 3)
    figure = plot_law(some, Power(2.0) + Kink(0.6) + Wall(0.9))
    drawn = lines(figure.axes[0])
    r, density = torch.from_numpy(drawn["density"]).unbind(-1)
    assert len(r) > 290
    assert (float(r[0]), float(r[-1])) == (0.2, 1.0)
    torch.testing.assert_close(density, some.density(r), rtol=1e-12, atol=0)
    assert f"median {float(some.quantile(0.5)):.6g}" in drawn
    assert f"mean {float(some.mean):.6g} ± {float(some.std):.2g}" in drawn
    for name, c in (("kink", 0.6), ("wall", 0.9)):
        line = drawn[f"{name} at {c}, P(r > {c}) = {float(some.tail(c)):.2g}"]
        assert (line[:, 0] == c).all()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"90%: {float(some.quantile(0.05)):.6g} to {float(some.quantile(0.95)):.6g}" in legend


def test_narrow_law_fills_the_picture():
    narrow = law(1 + 1e-6 * torch.arange(64, dtype=torch.float64), 64)
    axes = plot_law(narrow).axes[0]
    start, stop = axes.get_xlim()
    assert 6 * float(narrow.std) < stop - start < 12 * float(narrow.std)
    density = lines(axes)["density"][:, 1]
    assert density.max() > 100 * density[0] > 0
    assert axes.get_ylim()[1] > density.max()
    assert f"median {float(narrow.quantile(0.5)):.9g}" in lines(axes)


def test_infinite_densities_leave_a_finite_picture():
    axes = plot_law(law([1.0, 0.3], 2)).axes[0]
    drawn = lines(axes)["density"]
    assert np.isfinite(drawn).all()
    assert len(drawn) == 299  # all but the two ends
    assert 2 < axes.get_ylim()[1] < 20


def test_atom_is_a_line():
    drawn = lines(plot_law(law([2.0, 2.0], 2)).axes[0])
    assert (drawn["r = 2 always"][:, 0] == 2).all()
    assert "density" not in drawn
    assert "r = 0 always" in lines(plot_law(law([0.0], 5)).axes[0])


def test_law_saved_or_refused(tmp_path: Path):
    some = law([1.0, 0.5], 3)
    some.plot(tmp_path / "a.png", H="r^2")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"batch of shape \(2,\)"):
        plot_law(law([[1.0, 0.5], [1.0, 0.2]], 3))
    with pytest.raises(FileError, match=r"'\.gif'"):
        some.plot(tmp_path / "a.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_region_is_drawn_with_its_own_numbers():
    region = icm.orthogonal_region([1.0, 0.8, 0.65, 0.6], 4)
    figure = plot_region(region)
    (axes,) = figure.axes
    drawn = lines(axes)
    A, B = torch.from_numpy(drawn["B(A), the exact threshold"]).unbind(-1)
    assert torch.equal(A, region.left)
    low, high = axes.get_ylim()
    inside = B.lt(high)
    assert torch.equal(B[inside], region.threshold[inside])
    assert (B[~inside] > high).all()
    assert float(A[inside][-1]) > 0.9 * region.largest_left  # most of the boundary is in the picture
    assert (drawn[RIGHT][:, 1] == 4.0).all()
    assert (drawn[LEFT][:, 0] == 0.6 * 4).all()
    assert low < 4.0 < region.sufficient_right < high
    proven = next(patch for patch in axes.collections if patch.get_label() == PROVEN)
    corner = np.asarray(proven.get_paths()[0].vertices)
    assert (corner[:, 0].max(), corner[:, 1].min()) == (region.sufficient_left, region.sufficient_right)
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {EXACT, PROVEN, LEFT, RIGHT} <= legend


def test_region_without_a_closed_form_and_of_equal_values():
    """The closed form proves nothing for a wide spectrum, and everything for a flat one."""
    wide = plot_region(icm.orthogonal_region([1.0, 0.8, 0.6, 0.1], 4))
    assert PROVEN not in {text.get_text() for text in wide.legends[0].get_texts()}
    flat = plot_region(icm.orthogonal_region([2.0, 2.0], 2)).axes[0]
    assert (lines(flat)["B(A), the exact threshold"][:, 1] == 4).all()
    assert flat.get_ylim()[0] < 4 < flat.get_ylim()[1]


def test_region_saved_the_same_twice(tmp_path: Path):
    region = icm.orthogonal_region([1.0, 0.5], 2)
    region.plot(tmp_path / "a.svg")
    region.plot(tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(FileError, match=r"'\.gif'"):
        region.plot(tmp_path / "a.gif")
