"""Comparisons as tables for a terminal and as plain dictionaries for JSON; the terminal and its progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from icm.solvers import Comparison, Enclosure, Solution, Status
from icm.solvers.compare import Summary

COLOURS = {Status.OPTIMAL: "green", Status.SAMPLED: "green", Status.UNBOUNDED: "yellow"}
MEANING = (
    "Rows G and polar: G itself and its polar factor. value: the objective at Q; gap: certified bound on its distance "
    "from the optimum, relative to ⟨G, Q⟩; cond: largest over smallest singular value, of G → of Q; cos: cosine of "
    "Q and G, Q and polar; eff. rank: how many directions share the energy; spread: of ‖Qζ‖² over inputs ζ, relative; "
    "small where all move alike; method: with its steps."
)


def comparison_table(comparison: Comparison, title: str | None = None) -> Table:
    """One row per curvature, then G itself and its polar factor; below, what the columns mean."""
    m, n = comparison.solutions[0].Q.shape
    table = plain_table(title or f"G: {m} × {n}", MEANING)
    table.add_column("H")
    table.add_column("status", no_wrap=True)
    for name in ("value", "gap", "cond", "cos\nG", "cos\npolar", "eff.\nrank", "spread"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("method")
    before = _figure(comparison.gradient.condition, 3)
    for solution, summary in zip(comparison.solutions, comparison.summaries, strict=True):
        status = solution.statuses[0]
        steps = int(solution.iterations)
        table.add_row(
            Text(str(solution.curvature)),
            Text(str(status), style=COLOURS.get(status, "red")),
            _figure(float(solution.value), 5),
            f"{float(solution.relative_gap):.0e}" if math.isfinite(float(solution.relative_gap)) else "–",
            *_figures(summary, before),
            f"{solution.method} {steps}" if steps else solution.method,
        )
    table.add_section()
    table.add_row("G", "", "", "", *_figures(comparison.gradient), "", style="dim")
    table.add_row("polar", "", "", "", *_figures(comparison.polar, before), "", style="dim")
    return table


def demo_table(report: dict[str, Any]) -> Table:
    """The demo's report: one row per matrix, and how far each curvature's update is from the gradient."""
    curvatures = report["curvatures"]
    model = report["model"]
    title = (
        f"Gradients of a {model['layers']}-layer transformer after {report['steps']} steps: cosine of the update to G"
    )
    caption = (
        "Each cell is the cosine between G and the update that is optimal for the curvature above it: 1 means gradient "
        "descent; under polar, where orthogonalized updates (Muon) end. lift: how much more the smallest direction "
        "moves, relative to the largest, than in G, under the steepest of these curvatures."
    )
    table = plain_table(title, caption)
    table.add_column("matrix", no_wrap=True)
    for name in ("m×n", *curvatures, "polar", "lift"):
        table.add_column(Text(name).plain, justify="right", no_wrap=True)
    last = None
    for name, entry in report["matrices"].items():
        if last not in (None, name.rsplit(".", 2)[0]):
            table.add_section()
        last = name.rsplit(".", 2)[0]
        cosines = [_fixed(s["cosine_gradient"], 4) for s in entry["solutions"]]
        lift = entry["gradient"]["condition"], entry["solutions"][-1]["condition"]
        table.add_row(
            name.removeprefix("blocks."),
            f"{entry['shape'][0]}×{entry['shape'][1]}",
            *cosines,
            _fixed(entry["polar"]["cosine_gradient"], 4),
            f"{lift[0] / lift[1]:.1f}×" if lift[0] and lift[1] else "–",
        )
    return table


def plain_table(title: str, caption: str) -> Table:
    """Narrow enough for a terminal of 80 columns, if the curvatures are short."""
    table = Table(title=title, title_justify="left", title_style="bold", caption=caption, box=SIMPLE_HEAD)
    table.padding, table.collapse_padding, table.pad_edge = 0, True, False
    table.caption_justify, table.caption_style, table.header_style = "left", "dim", "bold"
    return table


def as_json(comparison: Comparison, spectra: bool = True) -> dict[str, Any]:
    """A dictionary that json writes as it is: numbers, texts and lists.

    A figure that is no finite number (value and gap of an unbounded program, the condition of Q = 0, the tolerance of
    a sampled method) is None, JSON's null; `status` says why. With `spectra`, the singular values of G and of each Q.
    """
    first = comparison.solutions[0]
    result: dict[str, Any] = {
        "shape": list(first.Q.shape),
        "gradient": _plain(comparison.gradient),
        "polar": _plain(comparison.polar),
        "solutions": [
            _solution(s, f, spectra) for s, f in zip(comparison.solutions, comparison.summaries, strict=True)
        ],
    }
    if spectra:
        result["singular_values"] = finite(first.g.tolist())
    return result


def _solution(solution: Solution, summary: Summary, spectra: bool) -> dict[str, Any]:
    result = {
        "curvature": str(solution.curvature),
        "status": str(solution.statuses[0]),
        "statement": solution.statuses[0].value,
        "value": float(solution.value),
        "gap": float(solution.gap),
        "relative_gap": float(solution.relative_gap),
        "tolerance": solution.tol,
        "method": solution.method,
        "iterations": int(solution.iterations),
        "orthogonal": bool(solution.orthogonal),
        **asdict(summary),
    }
    if spectra:
        result["singular_values"] = solution.sigma.tolist()
    if (why := solution.orthogonality) is not None:
        figures = {name: float(getattr(why, name)) for name in ("radius", "left", "right", "threshold")}
        result["orthogonality"] = {"reason": str(why.reasons[0]), "statement": why.reasons[0].value, **figures}
    return finite(result)


def reasons(comparison: Comparison) -> list[str]:
    """For every H with a kink or a wall, why its Q is a multiple of the polar factor, or why not."""
    lines = []
    for solution in comparison.solutions:
        if (why := solution.orthogonality) is not None and solution.statuses[0] is not Status.UNBOUNDED:
            verdict = "orthogonal" if why.reasons[0].orthogonal else "not orthogonal"
            radius, left, right, threshold = (float(x) for x in (why.radius, why.left, why.right, why.threshold))
            where = "" if math.isnan(radius) else f" (r̃ = {radius:.6g}, slopes {left:.5g} to {right:.5g}"
            where += "" if math.isnan(threshold) else f", threshold {threshold:.5g}"
            where = where.replace("inf", "∞") + (")" if where else "")
            lines.append(f"{solution.curvature}: {verdict}{where}; {why.reasons[0].value}")
    return lines


def enclosure_text(curvature: str, enclosure: Enclosure, shown: int = 8) -> str:
    """What was proved, with the first and last singular values where there are many."""
    lines = str(enclosure).split("\n")
    head, sigma = lines[: -len(enclosure.sigma)], lines[-len(enclosure.sigma) :]
    if len(sigma) > shown:
        sigma = [*sigma[: shown // 2], f"… {len(sigma) - shown} more", *sigma[-(shown // 2) :]]
    return "\n".join([f"H = {curvature}, proved:", *(f"  {line}" for line in [*head, *sigma])])


def _plain(summary: Summary) -> dict[str, Any]:
    return finite(asdict(summary))


def finite(value: Any) -> Any:
    """`value` with None for every float that JSON cannot write."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figures(summary: Summary, before: str | None = None) -> tuple[str, ...]:
    condition = _figure(summary.condition, 3)
    return (
        f"{before}→{condition}" if before else condition,
        _fixed(summary.cosine_gradient, 4),
        _fixed(summary.cosine_polar, 4),
        _fixed(summary.effective_rank, 2),
        _fixed(summary.spread, 3),
    )


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}g}".replace("inf", "∞")


def _fixed(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def console() -> Console:
    """Standard output; where it is no terminal, wide enough that no column of a table is cut."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=max(screen.width, 140))


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None]]:
    """A `progress(done, total, what)` that draws a bar on stderr, gone when done; silent where that is no terminal."""
    screen = Console(stderr=True)
    columns = BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
