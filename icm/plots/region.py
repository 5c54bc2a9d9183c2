"""Where orthogonalisation is optimal: the slopes on both sides of a kink, with the bounds in closed form."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icm.paths import check_output
from icm.plots.style import COLOURS, DASHES, GREY, INK, PICTURES, dress, save
from icm.solvers import OrthogonalRegion

PALE_BLUE, PALE_GREEN = "#CCE3F0", "#A9DCCB"  # COLOURS 0 and 2, thinned
EXACT = "r̃ UVᵀ is optimal"
PROVEN = "sufficient: the closed form proves it"
RIGHT, LEFT = "necessary: B ≥ n g₁", "necessary: A ≤ n gₙ"
_SHOWN = 0.93  # of the left slopes: nearer to the end the threshold runs out of every picture


def plot_region(region: OrthogonalRegion, path: str | Path | None = None) -> Figure:
    """The slopes (A, B) left and right of a kink at r̃ for which r̃ UVᵀ is optimal, above the exact threshold B(A), with
    the necessary bounds A ≤ n min g and B ≥ n max g and the corner in which the closed form is sufficient.

    B(A) grows without bound towards A = n min g, unless all singular values are equal, and is cut off at the picture's
    top. Saved as .png, .pdf or .svg if `path` is given. Raises FileError for a path that cannot be written.
    """
    target = None if path is None else check_output(path, PICTURES)
    figure = Figure(figsize=(6.6, 4.6), dpi=150, facecolor="white", layout="constrained")
    draw_region(figure.subplots(), region)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    if target is not None:
        save(figure, target)
    return figure


def draw_region(axes: Axes, region: OrthogonalRegion) -> None:
    """The picture of `plot_region` on axes of any figure."""
    A, B = region.left.cpu(), region.threshold.cpu()
    largest, least = region.largest_left, region.least_right
    proven = region.sufficient_left >= 0
    seen = B[A.le(_SHOWN * largest) & B.isfinite()]
    top = 1.1 * max(float(seen.amax()), 1.1 * least, region.sufficient_right if proven else 0.0)
    bottom = max(0.0, least - 0.5 * (top - least))
    ceiling = B.clamp(max=2 * top)  # beyond the picture, so that the boundary leaves it where it should
    x, y = A.tolist(), ceiling.tolist()
    axes.fill_between(x, y, 2 * top, color=PALE_BLUE, linewidth=0, label=EXACT, zorder=1)
    axes.plot(x, y, color=COLOURS[0], linewidth=1.9, label="B(A), the exact threshold", zorder=4)
    if proven:
        corner = [0.0, region.sufficient_left]
        floor = [region.sufficient_right] * 2
        axes.fill_between(corner, floor, 2 * top, color=PALE_GREEN, linewidth=0, label=PROVEN, zorder=2)
    axes.axhline(least, color=INK, linewidth=1.1, linestyle=DASHES[1], label=RIGHT, zorder=3)
    axes.axvline(largest, color=GREY, linewidth=1.1, linestyle=DASHES[2], label=LEFT, zorder=3)
    axes.set_xlim(0, 1.08 * largest)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("A, the slope of H left of the kink")
    axes.set_ylabel("B, the slope right of it")
    dress(axes)
    shown = ", ".join(f"{x:.4g}" for x in region.g[:6].tolist()) + (", …" if len(region.g) > 6 else "")
    axes.set_title(f"g = ({shown}), n = {len(region.g)}", loc="left", fontsize=10.5, color=INK)
