"""`python -m benchmarks [exactness] [kinks] [solutions] [claims] [speed] [--quick] [--out FOLDER]`:
every bar of the project.

Writes one JSON file per part and a summary, with the machine and the versions beside the figures; exit code 1 if a bar
is missed. Summaries of runs worth keeping are in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import claims, exactness, kinks, solutions, speed

PARTS = ("exactness", "kinks", "solutions", "claims", "speed")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "architecture": platform.machine(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


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
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    parts = options.parts or PARTS
    options.out.mkdir(parents=True, exist_ok=True)
    console, failed, summary = Console(), False, dict[str, Any]()
    for part, study in (("exactness", exactness), ("kinks", kinks)):
        if part in parts:
            failed |= bool(study.main(options.out / f"{part}.json", options.quick))
            rows = json.loads((options.out / f"{part}.json").read_text())
            for n in sorted({row["n"] for row in rows}):
                summary[f"{part}, n = {n}"] = largest([row for row in rows if row["n"] == n])
    if "solutions" in parts:
        found = solutions.run(options.quick)
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
        tried = claims.run(options.quick)
        for name, rows in tried.items():
            show(console, name, rows, "refuted" if name == "seeds" else "figure")
            failed |= not all(row["ok"] for row in rows)
        summary["claims"] = claims.summary(tried)
        _write(options.out / "claims.json", tried)
    if "speed" in parts:
        rows = speed.run(options.quick)
        for row in rows:
            console.print(f"{row['what']}: {row['ratio']:.3g} (bar {row['bar']:g})", style=None if row["ok"] else "red")
            summary[row["what"]] = row
        failed |= not all(row["ok"] for row in rows)
        _write(options.out / "speed.json", rows)
    _write(options.out / "summary.json", summary)
    return int(failed)


def _write(path: Path, figures: Any) -> None:
    path.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
