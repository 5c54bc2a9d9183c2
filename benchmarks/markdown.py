"""The tables of `benchmarks.maps` and `benchmarks.solve` in Markdown, and their place in docs/speed.md."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "speed.md"
WIDTH = 116
FIRST = "<!-- the figures begin -->\n"
LAST = "<!-- the figures end -->\n"


def section(name: str, machine: dict[str, Any], maps: dict[str, Any] | None, solve: dict[str, Any] | None) -> str:
    """The figures of one machine."""
    both = [part for part in (maps, solve) if part]
    parts = [f"## {name}", paragraph(described(machine, both))]
    if found := [bar for part in both for bar in part["bars"]]:
        parts += ["### Bars", bars(found)]
    rows = maps["rows"] if maps else []
    for precision in dict.fromkeys(row["precision"] for row in rows):
        parts += [f"### Polar factors, {precision}", polar([r for r in rows if r["precision"] == precision])]
    if solve:
        parts += ["### Solving", solving(solve["rows"])]
    if gone := dict.fromkeys(why for part in both for why in part["missing"]):
        parts += ["Not measured:", "\n".join(paragraph(why, "- ") for why in gone)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def described(machine: dict[str, Any], parts: Sequence[dict[str, Any]]) -> str:
    """The machine in a few sentences."""
    gpu = any(part["device"] != "cpu" for part in parts)
    text = machine["cuda"] if gpu else f"{machine['cpu']}, {machine['threads']} of {machine['cpus']} CPUs"
    text += f", {machine['architecture']}; torch {machine['torch']}, Python {machine['python']}."
    for part in parts:
        if "limits" in part:
            rates = [f"{rate / 1e9:,.0f} in {precision}" for precision, rate in part["limits"]["flops"].items()]
            text += (
                f" Products reach {', '.join(rates)} (Gflop/s), a copy {part['limits']['bandwidth'] / 1e9:,.1f} GB/s."
            )
    return text


def paragraph(text: str, first: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def bars(rows: Iterable[dict[str, Any]]) -> str:
    body = [
        (r["what"], number(r["figure"]), number(r["bar"]), number(r.get("error")), "yes" if r["ok"] else "**no**")
        for r in rows
    ]
    return table(("time over time", "ratio", "bar", "error", "met"), body)


def polar(rows: Sequence[dict[str, Any]]) -> str:
    """One table; a line with G above the lines of each shape and batch."""
    body: list[Sequence[str]] = []
    for before, row in zip([None, *rows], rows, strict=False):
        if before is None or shape(row) != shape(before):
            body.append((f"**{shape(row)}**", *[""] * 8))
        body.append(
            (
                row["what"],
                number(row["seconds"] * 1e3),
                ratio(row["ratio"], row["ratio_quartiles"]),
                number(row["flops"] and row["flops"] / 1e9),
                percent(row["of_peak"]),
                number(row["bytes"] and row["bytes"] / 1e6),
                percent(row["of_bandwidth"]),
                number(row["error"]),
                number(row["map"]),
            )
        )
    return table(("by", "ms", "ratio", "Gflop", "of peak", "MB", "of copy", "error", "to p"), body)


def solving(rows: Iterable[dict[str, Any]]) -> str:
    body = [
        (
            shape(row),
            row["precision"],
            f"`{row['H']}`",
            row["what"],
            ratio(row["ratio"], row["ratio_quartiles"]),
            number(row["error"]),
            number(row["drifted"]),
        )
        for row in rows
    ]
    return table(("G", "precision", "H", "time over time", "ratio", "error", "drifted"), body)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', '‖') for cell in line)} |" for line in lines) + "\n"


def shape(row: dict[str, Any]) -> str:
    return ("" if row["batch"] == 1 else f"{row['batch']} × ") + f"{row['m']} × {row['n']}"


def number(value: float | None) -> str:
    """Three digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1e}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def ratio(value: float | None, quartiles: Sequence[float] | None) -> str:
    if value is None or quartiles is None:
        return ""
    return f"{value:.2f} ({quartiles[0]:.2f}–{quartiles[1]:.2f})"


def keep(name: str, text: str, page: Path = PAGE) -> None:
    """Write the section of this name into the page, in place of an earlier one of that name."""
    head, _, rest = page.read_text(encoding="utf-8").partition(FIRST)
    inside, _, tail = rest.partition(LAST)
    found = {part.partition("\n")[0]: part for part in _sections(inside)}
    found[name] = text.removeprefix("## ")
    body = "\n".join(f"## {part.strip()}\n" for part in found.values())
    page.write_text(f"{head}{FIRST}\n{body}\n{LAST}{tail}", encoding="utf-8")


def _sections(text: str) -> list[str]:
    return [part for part in f"\n{text}".split("\n## ")[1:] if part.strip()]
