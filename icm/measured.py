"""The report of `icm measure`: tables for a terminal, and one page with the figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.markup import escape as plain
from rich.table import Table

from icm.errors import CurvatureError, InputError
from icm.measure import Exponent, Measurement, Step
from icm.page import captioned, document, grid
from icm.paths import write_bytes, write_json
from icm.plots import plot_change, plot_curvatures
from icm.plots.curvature import telling_exponent
from icm.plots.style import save as save_figure
from icm.tables import finite, plain_table

CURVATURES = (
    "p: exponent of H(r) ∝ r^p from the radius named, with its 95 % interval over examples; – where fewer than three "
    "radii are left or the interval is wider than 2: give more radii or examples, or a smaller --from-radius; r: radii "
    "that stand clear of rounding, of those measured; explained: share of the variance of all remainders that the "
    "radius explains (1 where the loss is isotropic); spread: standard deviation of single remainders over H, between "
    "directions and between tokens, at the middle radius; < 0: share of negative remainders there; ‖u‖, ‖y‖: sizes of "
    "its inputs and outputs (root mean square); distance: of the fitted H from the measured means, relative (root mean "
    "square)."
)
STEPS = (
    "One layer moved at a time, decreases of the loss per position. solved: the update under the measured H; input "
    "moments: with the second moment of the layer's inputs; gradient, polar: G and its polar factor (Muon's direction) "
    "at the length the model likes best. cos: of the update to G and to its polar factor; linear: ⟨G, Q⟩; predicted: "
    "what the model promises; obtained: what the network gives when the step is taken; best: the most that a multiple "
    "of it gives, at so many times its length (0: none from 2⁻¹⁶ on gives any); wall: whether the update reaches the "
    "last radius measured, and might go on if H were known there. Obtained far below predicted: the model is too "
    "simple for this layer."
)
_HEADS = ("layer", "m×n", "p", "r", "explained", "spread", "< 0", "‖u‖", "‖y‖", "distance")
_STEPS = ("update", "cos G", "cos polar", "linear", "predicted", "obtained", "best", "at ×", "wall")


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found of one checkpoint; `skipped`: why layers have no steps."""

    name: str
    step: int | None
    loss: float
    measurements: Mapping[str, Measurement]
    steps: Mapping[str, Sequence[Step]]
    skipped: Mapping[str, str] = field(default_factory=dict)


def curvature_table(one: Measured, from_radius: float, kind: str) -> Table:
    """A row per layer."""
    table = plain_table(plain(_title(one)), CURVATURES)
    for i, name in enumerate(_HEADS):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in _rows(one, from_radius, kind):
        table.add_row(*map(plain, row))
    return table


def step_table(one: Measured) -> Table:
    """A section per layer, a row per update."""
    table = plain_table("Promised and obtained", STEPS)
    for i, name in enumerate(_STEPS):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for layer, every in one.steps.items():
        table.add_section()
        table.add_row(f"[bold]{plain(layer)}[/bold]")
        for step in every:
            table.add_row(*_step_row(step))
    return table


def remarks(one: Measured) -> list[str]:
    """What the tables do not show: examples left out, layers without steps and why, promises that cannot be kept, and
    lengths that were not tried."""
    said = []
    if left_out := {name: m.left_out for name, m in one.measurements.items() if m.left_out}:
        counts = sorted(set(left_out.values()))
        count = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        said.append(f"{count} examples without a loss are left out, in {_listed(left_out)}.")
    if beyond := [name for name, every in one.steps.items() if any(step.predicted > one.loss for step in every)]:
        said.append(
            f"Promised is more than the loss itself, {one.loss:.4g}, in {_listed(beyond)}: no step can give it, so the "
            "model does not hold at such lengths."
        )
    if open_ := [name for name, every in one.steps.items() if any(step.at_bound for step in every)]:
        said.append(f"The best multiple is the longest tried, 2²⁰, in {_listed(open_)}; longer ones may give more.")
    said += [f"No steps of {reason}." for reason in one.skipped.values()]
    return said


def as_json(found: Sequence[Measured], settings: dict[str, Any], from_radius: float) -> dict[str, Any]:
    """Everything, as numbers, texts and lists; null for what is not finite."""
    every = []
    for one in found:
        layers = {}
        for name, m in one.measurements.items():
            p = _exponent(m, from_radius)
            layers[name] = m.summary() | {"exponent": None if p is None else asdict(p)}
            layers[name]["steps"] = [asdict(step) for step in one.steps.get(name, ())]
        said = {"name": one.name, "step": one.step, "loss": one.loss, "remarks": remarks(one)}
        every.append(said | {"layers": layers})
    return finite({"settings": settings, "from_radius": from_radius, "models": every})


def write_report(
    out: Path, found: Sequence[Measured], settings: dict[str, Any], from_radius: float, kind: str
) -> list[Path]:
    """curvature.svg, change.svg for several checkpoints, report.json and report.html, each whole or not at all; nothing
    before all of them are made. A figure that cannot be drawn is a sentence on the page."""
    figures: dict[str, Figure] = {}
    pictures, tables = [], []
    for i, one in enumerate(found):
        name = "curvature" if len(found) == 1 else f"curvature-{i + 1}"
        tables.append(f"<h2>{escape(_title(one))}</h2>{grid(list(_HEADS), _rows(one, from_radius, kind), CURVATURES)}")
        try:
            figures[name] = plot_curvatures(one.measurements, None, from_radius, one.name)
            tables.append(captioned(figures[name], name, "H(r)/r² over r", _caption(one, from_radius)))
        except InputError as error:
            tables.append(f"<p class='refuted'>{escape(str(error))}</p>")
        if one.steps:
            rows = [
                [layer if j == 0 else "", *_step_row(s)]
                for layer, every in one.steps.items()
                for j, s in enumerate(every)
            ]
            tables.append(f"<h3>Promised and obtained</h3>{grid(['layer', *_STEPS], rows, STEPS)}")
        tables += [f"<p>{escape(text)}</p>" for text in remarks(one)]
    if len(found) > 1:
        along, places = _along(found)
        runs = {at: one.measurements for at, one in zip(places, found, strict=True)}
        try:
            figures["change"] = plot_change(runs, None, from_radius, along)
            caption = (
                f"Over the {along}. Left: H(r)/r² at the smallest radius resolved in all. Right: the exponents, with "
                "intervals, where these are no wider than 2."
            )
            pictures.append(captioned(figures["change"], "change", "Change during training", caption))
        except InputError as error:
            pictures.append(f"<p class='refuted'>No picture of the change: {escape(str(error))}</p>")
    said = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    body = f"<h1>The curvature of a network, measured</h1><p class='dim'>{escape(said)}</p>{''.join(pictures)}"
    page = document("icm measure", body + "".join(tables)).encode()
    kept = as_json(found, settings, from_radius)
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save_figure(figure, out / f"{name}.svg")
    write_bytes(out / "report.html", page)
    write_json(out / "report.json", kept)
    return [*(out / f"{name}.svg" for name in figures), out / "report.json", out / "report.html"]


def _title(one: Measured) -> str:
    step = "" if one.step is None else f", step {one.step}"
    return f"{one.name}{step}: loss {one.loss:.4f} nats per token"


def _along(found: Sequence[Measured]) -> tuple[str, list[float]]:
    """What checkpoints are told apart by: their training steps, or their places where steps are missing or equal."""
    steps = [one.step for one in found if one.step is not None]
    if len(set(steps)) == len(found):
        return "training step", [float(step) for step in steps]
    return "checkpoint, in the order given", [float(i + 1) for i in range(len(found))]


def _listed(names: Collection[str], shown: int = 3) -> str:
    more = len(names) - shown
    return ", ".join(list(names)[:shown]) + (f" and {more} more" if more > 0 else "")


def _caption(one: Measured, from_radius: float) -> str:
    first = next(iter(one.measurements.values()))
    mode = "one position displaced at a time" if first.positions == "one" else "all positions displaced at once"
    return (
        f"{mode}; {first.count:,} remainders per radius and layer, of {first.examples} examples; "
        f"bands: 95 % intervals; exponents fitted from r = {from_radius:.3g} on."
    )


def _rows(one: Measured, from_radius: float, kind: str) -> list[list[str]]:
    rows = []
    for m in one.measurements.values():
        p, seen = telling_exponent(m, from_radius), int(m.resolved.sum())
        middle = int(m.resolved.nonzero()[seen // 2]) if seen else 0
        spread = f"{float(m.spread_directions[middle]):.2g}, {float(m.spread_tokens[middle]):.2g}" if seen else "–"
        rows.append(
            [
                m.layer,
                f"{m.m}×{m.n}",
                "–" if p is None else f"{p.value:.2f} [{p.low:.2f}, {p.high:.2f}]",
                f"{seen}/{len(m.radii)}",
                f"{m.explained:.2f}",
                spread,
                f"{float(m.negative[middle]):.0%}" if seen else "–",
                f"{m.input_norm:.3g}",
                f"{m.output_norm:.3g}",
                _distance(m, kind),
            ]
        )
    return rows


def _step_row(step: Step) -> list[str]:
    figures = step.linear, step.predicted, step.obtained, step.best
    cosines = [f"{x:.3f}" for x in (step.cosine_gradient, step.cosine_polar)]
    return [
        step.name,
        *cosines,
        *(f"{x:.3g}" for x in figures),
        f"{step.best_factor:.2g}",
        "yes" if step.at_wall else "",
    ]


def _exponent(m: Measurement, from_radius: float) -> Exponent | None:
    try:
        return m.exponent(from_radius)
    except InputError:
        return None


def _distance(m: Measurement, kind: Any) -> str:
    try:
        return f"{m.fit(kind).distance:.1%}"
    except (InputError, CurvatureError):
        return "–"
