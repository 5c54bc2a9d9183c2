"""`python -m benchmarks [part …] [--quick] [--out FOLDER] [--device cpu|cuda] [--threads N] [--keep NAME]`:
every bar of the project.

Writes one JSON file per part and a summary, with the machine and the versions beside the figures; exit code 1 if a bar
is missed. Summaries of runs worth keeping are in benchmarks/results/. The parts maps, solve and step run on `--device`
(a GPU where there is one); `--keep` writes the tables of maps and solve into docs/speed.md under that name, and their
figures into benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import markdown
from benchmarks.machine import machine

PARTS = (
    "exactness",
    "kinks",
    "solutions",
    "claims",
    "speed",
    "maps",
    "solve",
    "step",
    "training",
    "descent",
    "tradeoff",
    "remainders",
    "coverage",
)
RESULTS = Path(__file__).parent / "results"


def worst(found: list[dict[str, Any]], key: str, rows: int = 5) -> list[dict[str, Any]]:
    """The rows with the largest figure."""
    return sorted(found, key=lambda row: row[key], reverse=True)[:rows]


def largest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row without an error, if there is one, else the one with the largest."""
    return max(rows, key=lambda row: math.inf if row["error"] is None else row["error"])


def show(console: Console, title: str, rows: list[dict[str, Any]], key: str) -> None:
    """All rows that miss their bar, or the five with the largest figure."""
    missed = [row for row in rows if not row["ok"]]
    table = Table(title=f"{title}: {len(rows)} cases, {len(missed)} miss their bar", title_justify="left")
    shown = missed or worst(rows, key)
    for name in shown[0]:
        table.add_column(name)
    for row in shown:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table, style="red" if missed else None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small dimensions only")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/output"), help="folder of the JSON files")
    parser.add_argument("--device", default=None, help="of maps, solve and step: cpu or cuda; a GPU if there is one")
    parser.add_argument("--threads", type=int, default=None, help="that torch uses; its own choice by default")
    parser.add_argument("--budget", type=float, default=None, help="seconds for each run of maps and solve; 3 to 10")
    parser.add_argument("--most", type=float, default=None, help="operations of the largest case of maps and solve")
    parser.add_argument("--keep", metavar="NAME", help="write the tables of maps and solve into docs/speed.md")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    parts = options.parts or PARTS
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {device}: torch {torch.__version__} sees no GPU here; leave it out or choose cpu")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    console, failed, summary = Console(), False, dict[str, Any]()
    for part in ("exactness", "kinks"):
        if part in parts:
            study = _part(part)
            failed |= bool(study.main(options.out / f"{part}.json", options.quick))
            rows = json.loads((options.out / f"{part}.json").read_text())
            for n in sorted({row["n"] for row in rows}):
                summary[f"{part}, n = {n}"] = largest([row for row in rows if row["n"] == n])
    if "solutions" in parts:
        found = _part("solutions").run(options.quick)
        keys = {
            "gaps": "gap",
            "kinks": "gap",
            "matrices": "gap",
            "reference": "standard_errors",
            "alignment": "distance",
        }
        for name, rows in found.items():
            key = keys.get(name, "change")
            show(console, name, rows, key)
            failed |= not all(row["ok"] for row in rows)
            summary[name] = {"cases": len(rows)} | worst(rows, key, rows=1)[0]
        _write(options.out / "solutions.json", found)
    if "claims" in parts:
        claims = _part("claims")
        tried = claims.run(options.quick)
        for name, rows in tried.items():
            show(console, name, rows, "refuted" if name == "seeds" else "figure")
            failed |= not all(row["ok"] for row in rows)
        summary["claims"] = claims.summary(tried)
        _write(options.out / "claims.json", tried)
    if "speed" in parts:
        rows = _part("speed").run(options.quick)
        for row in rows:
            console.print(f"{row['what']}: {row['ratio']:.3g} (bar {row['bar']:g})", style=None if row["ok"] else "red")
            summary[row["what"]] = row
        failed |= not all(row["ok"] for row in rows)
        _write(options.out / "speed.json", rows)
    measured: dict[str, Any] = {}
    for part in ("maps", "solve"):
        if part in parts:
            measured[part] = _part(part).run(options.quick, device, options.budget, options.most)
            failed |= not _report(console, summary, measured[part]["bars"], measured[part]["missing"])
            _write(options.out / f"{part}.json", measured[part])
    if "step" in parts:
        step = _part("step").run(options.quick, device)
        show(console, "step", [row | {"ok": True} for row in step["rows"]], "ratio")
        failed |= not _report(console, summary, step["bars"])
        _write(options.out / "step.json", step)
    if "training" in parts:
        rows = _part("training").run(options.quick)
        show(console, "training", [row | {"ok": True} for row in rows], "loss")
        _write(options.out / "training.json", rows)
    if "descent" in parts:
        descent = _part("descent").run(options.quick, options.out)
        for name in ("tuned", "finals", "widths"):
            show(console, name, [row | {"ok": True} for row in descent[name]], "loss")
        failed |= not _report(console, summary, descent["bars"])
        _write(options.out / "descent.json", descent)
    if "tradeoff" in parts:
        failed |= bool(_part("tradeoff").main(options.out, options.quick))
        found = json.loads((options.out / "tradeoff.json").read_text(encoding="utf-8"))
        summary |= {row["what"]: row for row in found["bars"]}
    if "remainders" in parts:
        remainders = _part("remainders").run(options.quick, device)
        show(console, "remainders", [_flat(row) for row in remainders["rows"]], "cost")
        failed |= not _report(console, summary, remainders["bars"])
        _write(options.out / "remainders.json", remainders)
    if "coverage" in parts:
        coverage = _part("coverage")
        rows = coverage.run(options.quick)
        show(console, "coverage", rows, "off")
        failed |= not all(row["ok"] for row in rows)
        summary["coverage"] = {"cases": len(rows)} | worst(rows, "off", rows=1)[0]
        (options.out / "coverage.md").write_text(coverage.markdown(rows), encoding="utf-8")
        _write(options.out / "coverage.json", rows)
    if measured:
        _tables(options.keep, options.out, measured)
    _write(options.out / "summary.json", summary)
    return int(failed)


def _tables(keep: str | None, out: Path, measured: dict[str, Any]) -> None:
    """The tables of maps and solve as Markdown; kept ones beside what was kept of the other part under that name."""
    name = re.sub(r"[^a-z0-9]+", "-", (keep or "").lower()).strip("-")
    kept = {part: RESULTS / f"{part}-{name}.json" for part in ("maps", "solve")}
    if keep:
        for part, path in kept.items():
            if part in measured:
                _write(path, measured[part])
            elif path.exists():
                measured[part] = json.loads(path.read_text(encoding="utf-8"))["figures"]
    text = markdown.section(keep or "this machine", machine(), measured.get("maps"), measured.get("solve"))
    (out / "speed.md").write_text(text, encoding="utf-8")
    if keep:
        markdown.keep(keep, text, markdown.PAGE)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the times of each way beside its other figures."""
    return {**{key: value for key, value in row.items() if key != "ms"}, **row["ms"], "ok": True}


def _part(name: str) -> Any:
    """A part is imported when it runs: each needs packages that a machine for another may lack."""
    return importlib.import_module(f"benchmarks.{name}")


def _report(
    console: Console, summary: dict[str, Any], rows: Iterable[dict[str, Any]], missing: Iterable[str] = ()
) -> bool:
    """Print a line per bar and per thing not measured; whether all bars are met."""
    met = True
    for row in rows:
        bar = row.get("bar")
        against = "" if bar is None else f" (bar {bar:g})"
        note = f", error {row['error']:.2g}" if row.get("error") is not None else ""
        good = row.get("ok", True)
        console.print(f"{row['what']}: {row['figure']:.3g}{against}{note}", style=None if good else "red", markup=False)
        summary[row["what"]] = row
        met &= bool(good)
    for why in missing:
        console.print(f"not measured: {why}", style="yellow", markup=False)
    return met


def _write(path: Path, figures: Any) -> None:
    path.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
