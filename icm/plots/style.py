"""What all pictures share: the palette, the axes, and how a figure is written."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from icm.paths import write_bytes

PICTURES = (".png", ".pdf", ".svg")

# Okabe and Ito's palette without its black and yellow: told apart by colour-blind readers, and on paper by the dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
INK, GREY, FAINT = "#222222", "#5F5F5F", "#8A8A8A"


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the kind its suffix names, whole or not at all, the same bytes for the same figure."""
    kind = path.suffix.lower().removeprefix(".")
    undated: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "icm"}):  # else the names inside an SVG are drawn at random
        figure.savefig(buffer, format=kind, metadata=undated[kind])
    write_bytes(path, buffer.getvalue())


def rug(axes: Axes, x: Tensor) -> None:
    """A tick at the foot for every singular value."""
    axes.plot(
        x.tolist(), [0.0] * len(x), "|", transform=axes.get_xaxis_transform(), color=FAINT, markersize=9,
        markeredgewidth=0.6, alpha=0.7, zorder=2,
    )  # fmt: skip


def dress(axes: Axes) -> None:
    """The house's grid, ticks, spines and labels."""
    axes.grid(True, which="major", color="#E6E6E6", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=INK, labelsize=8.5, length=3, color=FAINT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    axes.xaxis.label.set(size=9.5, color=INK)
    axes.yaxis.label.set(size=9.5, color=INK)
