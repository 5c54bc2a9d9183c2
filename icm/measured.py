"""The report of `icm measure`: tables for a terminal, and one page with the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.table import Table

from icm.errors import InputError
from icm.measure import Exponent, Measurement
from icm.measure.steps import Step
from icm.page import captioned, document, grid
from icm.paths import write_bytes, write_json
from icm.plots import plot_change, plot_curvatures
from icm.plots.style import save as save_figure
from icm.tables import plain_table

CURVATURES = (
    "p: exponent of H(r) ∝ r^p from the radius named, with its 95 % interval over examples; r: radii that stand clear "
    "of rounding, of those measured; explained: share of the variance of all remainders that the radius explains (1 "
    "where the loss is isotropic); spread: standard deviation of single remainders over H, between directions and "
    "between tokens, at the middle radius; < 0: share of negative remainders there; ‖u‖, ‖y‖: sizes of its inputs and "
    "outputs (root mean square); distance: of the fitted H from the measured means, relative (root mean square)."
)
STEPS = (
    "One layer moved at a time, decreases of the loss per position. solved: the update under the measured H; input "
    "moments: with the second moment of the layer's inputs; gradient, polar: G and its polar factor (Muon's direction) "
    "at the length the model likes best. cos: of the update to G and to its polar factor; linear: ⟨G, Q⟩; predicted: "
    "what the model promises; obtained: what the network gives when the step is taken; best: the most that a multiple "
    "of it gives, at so many times its length. Obtained far below predicted: the model is too simple for this layer."
)
_HEADS = ("layer", "m×n", "p", "r", "explained", "spread", "< 0", "‖u‖", "‖y‖", "distance")
_STEPS = ("update", "cos G", "cos polar", "linear", "predicted", "obtained", "best", "at ×")


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found of one checkpoint."""

    name: str
    step: int | None
    loss: float
    measurements: Mapping[str, Measurement]
    steps: Mapping[str, Sequence[Step]]


def curvature_table(one: Measured, from_radius: float, kind: str) -> Table:
    """A row per layer."""
    table = plain_table(_title(one), CURVATURES)
    for i, name in enumerate(_HEADS):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in _rows(one, from_radius, kind):
        table.add_row(*row)
    return table


def step_table(one: Measured) -> Table:
    """A section per layer, a row per update."""
    table = plain_table("Promised and obtained", STEPS)
    for i, name in enumerate(_STEPS):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for layer, every in one.steps.items():
        table.add_section()
        table.add_row(f"[bold]{layer}[/bold]")
        for step in every:
            table.add_row(*_step_row(step))
    return table


def as_json(found: Sequence[Measured], settings: dict[str, Any], from_radius: float) -> dict[str, Any]:
    """Everything, as numbers, texts and lists; null for what is not finite."""
    every = []
    for one in found:
        layers = {}
        for name, m in one.measurements.items():
            p = _exponent(m, from_radius)
            layers[name] = m.summary() | {"exponent": None if p is None else asdict(p)}
            layers[name]["steps"] = [asdict(step) for step in one.steps.get(name, ())]
        every.append({"name": one.name, "step": one.step, "loss": one.loss, "layers": layers})
    return _finite({"settings": settings, "from_radius": from_radius, "models": every})


def write_report(
    out: Path, found: Sequence[Measured], settings: dict[str, Any], from_radius: float, kind: str
) -> list[Path]:
    """curvature.svg, change.svg for several checkpoints, report.json and report.html, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    written, pictures, tables = [], [], []
    for i, one in enumerate(found):
        name = "curvature.svg" if len(found) == 1 else f"curvature-{i + 1}.svg"
        tables.append(f"<h2>{escape(_title(one))}</h2>{grid(list(_HEADS), _rows(one, from_radius, kind), CURVATURES)}")
        try:
            figure = plot_curvatures(one.measurements, None, from_radius, one.name)
        except InputError as error:
            tables.append(f"<p class='refuted'>{escape(str(error))}</p>")
        else:
            save_figure(figure, out / name)
            written.append(out / name)
            tables.append(captioned(figure, f"curvature-{i + 1}", "H(r)/r² over r", _caption(one, from_radius)))
        if one.steps:
            rows = [
                [layer if j == 0 else "", *_step_row(s)]
                for layer, every in one.steps.items()
                for j, s in enumerate(every)
            ]
            tables.append(f"<h3>Promised and obtained</h3>{grid(['layer', *_STEPS], rows, STEPS)}")
    if len(found) > 1:
        figure = plot_change({_at(one, i): one.measurements for i, one in enumerate(found)}, None, from_radius)
        save_figure(figure, out / "change.svg")
        written.append(out / "change.svg")
        caption = "Left: H(r)/r² at the smallest radius resolved at every step. Right: the exponents, with intervals."
        pictures.append(captioned(figure, "change", "Change during training", caption))
    said = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    body = f"<h1>The curvature of a network, measured</h1><p class='dim'>{escape(said)}</p>{''.join(pictures)}"
    write_bytes(out / "report.html", document("icm measure", body + "".join(tables)).encode())
    write_json(out / "report.json", as_json(found, settings, from_radius))
    return [*written, out / "report.json", out / "report.html"]


def _title(one: Measured) -> str:
    step = "" if one.step is None else f", step {one.step}"
    return f"{one.name}{step}: loss {one.loss:.4f} nats per token"


def _at(one: Measured, place: int) -> float:
    return float(place if one.step is None else one.step)


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
        p, seen = _exponent(m, from_radius), int(m.resolved.sum())
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
                f"{float(m.negative[middle]):.0%}",
                f"{m.input_norm:.3g}",
                f"{m.output_norm:.3g}",
                _distance(m, kind),
            ]
        )
    return rows


def _step_row(step: Step) -> list[str]:
    figures = step.linear, step.predicted, step.obtained, step.best
    cosines = [f"{x:.3f}" for x in (step.cosine_gradient, step.cosine_polar)]
    return [step.name, *cosines, *(f"{x:.3g}" for x in figures), f"{step.best_factor:.2g}"]


def _exponent(m: Measurement, from_radius: float) -> Exponent | None:
    try:
        return m.exponent(from_radius)
    except InputError:
        return None


def _distance(m: Measurement, kind: Any) -> str:
    try:
        return f"{m.fit(kind).distance:.1%}"
    except InputError:
        return "–"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
