"""`icm demo`: real gradients under several curvatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.json and pictures.")] = Path("icm-demo"),
    steps: Annotated[int, typer.Option(help="Training steps before the gradients are taken.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the network and its batches.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Train a small transformer on Python's own sources and compare the updates of several curvatures."""
    from time import perf_counter

    from icm.demo import run
    from icm.paths import json_text
    from icm.tables import console, demo_table, progress_bar

    start = perf_counter()
    with progress_bar() as progress:
        report = run(out, steps=steps, seed=seed, progress=progress)
    if json:
        typer.echo(json_text(report))
        return
    screen = console()
    screen.print(demo_table(report))
    bits = report["bits_per_byte"]
    screen.print(f"validation: {bits['before']:.2f} bits per byte before, {bits['after']:.2f} after {steps} steps")
    pictures = f"report.json, {', '.join(report['pictures'])}"
    screen.print(f"wrote {out}: {pictures} ({perf_counter() - start:.0f} s)", markup=False, soft_wrap=True)
