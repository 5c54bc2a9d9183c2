"""Draws the pictures of the guide into docs/figures/: `make figures`, or `python docs/figures.py`; a minute.

continuity.svg   the update for H = ½r² + b·kink(1) as the jump b grows
region.svg       the slopes left and right of a kink for which orthogonalisation is optimal
gpt2.svg         H(r)/r² in twelve layers of a small GPT-2, from the measurements kept in benchmarks/results/gpt2/
gpt2_change.svg  how that changes during its training
exponents.svg    which Schatten norm the updates of torch.optim.Muon and AdamW are steepest descent in, while they train
widths.svg       the loss over the learning rate at four widths, from benchmarks/results/descent.json
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import icm
from icm.demo import load_example
from icm.plots import plot_change, plot_curvatures, plot_exponents, plot_region
from icm.plots.style import COLOURS, DASHES, GREY, INK, dress, save

FOLDER = Path(__file__).parent / "figures"
MEASURED = Path(__file__).parents[1] / "benchmarks" / "results" / "gpt2"
STEPS = (0, 100, 300, 600, 1200)
RADIUS = 1.0
SQUARE = (1.0, 0.8, 0.65, 0.6)  # four inputs, four singular values
WIDE = (1.0, 0.8, 0.65)  # four inputs, three singular values


def spectra(g: tuple[float, ...], jumps: torch.Tensor) -> torch.Tensor:
    """σ (B, k) of the update for H = ½r² + b·kink(1) and four inputs, at every b of `jumps` (B,)."""
    G = torch.zeros(len(g), 4, dtype=torch.float64)
    G[:, : len(g)] = torch.diag(torch.tensor(g, dtype=torch.float64))
    return torch.stack([icm.solve(G, 0.5 * icm.Power(2) + icm.Kink(RADIUS, b)).sigma for b in jumps.tolist()])


def draw_spectrum(axes: Axes, exact: float) -> None:
    """σ_i/r̃ against b: from a multiple of g to r̃ four times at b = exact."""
    jumps = torch.cat([torch.linspace(0, exact, 49, dtype=torch.float64), torch.tensor([exact, 5.5])])
    sigma = spectra(SQUARE, jumps) / RADIUS
    for i, (g, colour) in enumerate(zip(SQUARE, COLOURS, strict=False)):
        axes.plot(jumps.tolist(), sigma[:, i].tolist(), color=colour, linewidth=1.9, label=f"g = {g:g}", zorder=3)
    necessary, sufficient = (float(B) - RADIUS for B in icm.orthogonal_bounds(SQUARE, RADIUS, 4))
    marks = ((necessary, "necessary", DASHES[1]), (exact, "exact", "-"), (sufficient, "sufficient", DASHES[1]))
    for b, name, dash in marks:
        axes.axvline(b, color=INK if name == "exact" else GREY, linewidth=1.1, linestyle=dash, zorder=2)
        side = {"necessary": ("right", -4), "exact": ("left", 4), "sufficient": ("right", -4)}[name]
        axes.annotate(
            f"{name}\nb = {b:.4g}", (b, 3.9), xytext=(side[1], 0), textcoords="offset points", ha=side[0], va="top",
            fontsize=8, color=INK if name == "exact" else GREY,
        )  # fmt: skip
    axes.set_xlim(0, 5.5)
    axes.set_ylim(0, 4.1)
    axes.set_xlabel("b, the jump of the slope at r̃")
    axes.set_ylabel("σᵢ / r̃ of the update")
    axes.set_title("m ≥ n: as many singular values as inputs, n = 4", loc="left", fontsize=10.5, color=INK)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.02), frameon=False, fontsize=8.5)
    dress(axes)


def draw_spread(axes: Axes, exact: float) -> None:
    """σ₁/σ_k − 1 against b, for four singular values, where it is 0 from b = exact on, and for three."""
    jumps = torch.logspace(-1, 4, 41, dtype=torch.float64)
    end = exact * (1 - torch.logspace(-1, -9, 17, dtype=torch.float64))
    near = torch.cat([torch.linspace(0.1, float(end[0]), 25, dtype=torch.float64), end[1:]])
    for g, b, colour, dash in ((SQUARE, near, COLOURS[0], DASHES[0]), (WIDE, jumps, COLOURS[1], DASHES[1])):
        sigma = spectra(g, b)
        spread = sigma[:, 0] / sigma[:, -1] - 1
        label = f"m = {len(g)}, g = ({', '.join(f'{x:g}' for x in g)})"
        axes.loglog(b.tolist(), spread.tolist(), color=colour, linestyle=dash, linewidth=1.9, label=label, zorder=3)
    axes.axvline(exact, color=INK, linewidth=1.1, zorder=2)
    offset = {"xytext": (4, 0), "textcoords": "offset points"}
    axes.annotate(f"0 from b = {exact:.4g} on", (exact, 2e-7), va="bottom", fontsize=8, color=INK, **offset)
    axes.set_xlim(0.1, 1e4)
    axes.set_ylim(1e-7, 2)
    axes.set_xlabel("b")
    axes.set_ylabel("σ₁ / σₖ − 1")
    axes.set_title("m < n: fewer only tend to one radius, n = 4", loc="left", fontsize=10.5, color=INK)
    axes.legend(loc="upper right", frameon=False, fontsize=8.5)
    dress(axes)


def continuity() -> Figure:
    exact = float(icm.orthogonal_threshold(SQUARE, RADIUS, 4)) - RADIUS  # H'(1−) = 1 for ½r²
    figure = Figure(figsize=(10.4, 4.4), dpi=150, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    draw_spectrum(left, exact)
    draw_spread(right, exact)
    return figure


def watched(steps: int = 200) -> icm.optim.Monitor:
    """A small language model of 2 layers of width 64 trained by torch.optim.Muon, and its head by AdamW."""
    lm = load_example()
    model, data = lm.SmallLM(lm.Config(layers=2, width=64, heads=2, context=32), seed=0), lm.corpus(200_000)
    mine = list(lm.matrices(model).values())
    ids = {id(p) for p in mine}
    rest = [p for p in model.parameters() if id(p) not in ids]
    optimizers = [torch.optim.Muon(mine, lr=0.02), torch.optim.AdamW(rest, lr=3e-3)]
    generator = torch.Generator().manual_seed(0)
    with icm.optim.Monitor(model, optimizers, every=10) as monitor:
        for _ in range(steps + 1):
            at = torch.randint(0, len(data) - 33, (8,), generator=generator).tolist()
            x = torch.stack([data[i : i + 33] for i in at]).long()
            model.zero_grad()
            torch.nn.functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()).backward()
            for optimizer in optimizers:
                optimizer.step()
    return monitor


def widths() -> Figure:
    rows = json.loads((MEASURED.parent / "descent.json").read_text(encoding="utf-8"))["widths"]
    figure = Figure(figsize=(6.6, 4.2), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for width, colour, dash in zip(sorted({row["width"] for row in rows}), COLOURS, DASHES, strict=False):
        line = sorted((row["lr"], row["loss"]) for row in rows if row["width"] == width)
        lr, loss = zip(*line, strict=True)
        axes.plot(
            lr, loss, color=colour, linestyle=dash, marker="o", markersize=4, linewidth=1.9, label=f"{width} wide"
        )
        best = min(line, key=lambda one: one[1])
        axes.plot(*best, marker="o", markersize=9, markerfacecolor="none", color=colour)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({row["lr"] for row in rows}), [f"{lr:g}" for lr in sorted({row["lr"] for row in rows})])
    axes.set_xlabel("learning rate")
    axes.set_ylabel("held-out loss, nats per byte")
    axes.legend(frameon=False, fontsize=8.5)
    dress(axes)
    return figure


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    save(continuity(), FOLDER / "continuity.svg")
    plot_region(icm.orthogonal_region(SQUARE, 4, points=129), FOLDER / "region.svg")
    plot_curvatures(icm.measure.load(MEASURED / "one.json"), FOLDER / "gpt2.svg")
    plot_change({t: icm.measure.load(MEASURED / f"step-{t}.json") for t in STEPS}, FOLDER / "gpt2_change.svg")
    plot_exponents(watched(), FOLDER / "exponents.svg")
    save(widths(), FOLDER / "widths.svg")
