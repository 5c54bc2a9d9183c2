"""`icm measure`: the curvature of a language model's layers, and what steps solved with it promise and give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icm.errors import InputError

if TYPE_CHECKING:
    from icm.measure import Measurement


def measure(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL…", help="Hugging Face folders, or checkpoints of examples/train_lm.py; several: over time."
        ),
    ],
    layers: Annotated[
        list[str], typer.Option(metavar="PATTERN", help="Names of linear layers, with * and ?; !PATTERN takes away.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the report, the figures and the measurements.")],
    text: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Text to measure on; without it, Python's own sources.")
    ] = None,
    fused: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=PARTS", help="Fused layers: '*.c_attn=query,key,value' measures each apart."),
    ] = None,
    positions: Annotated[str, typer.Option(help="Displaced in a pass: one token of an example, or all.")] = "one",
    directions: Annotated[int, typer.Option(metavar="N", help="Random directions per token.")] = 100,
    tokens: Annotated[int, typer.Option(metavar="N", help="Tokens displaced per example; with --positions one.")] = 8,
    examples: Annotated[int, typer.Option(metavar="N", help="Examples of the text.")] = 32,
    length: Annotated[int | None, typer.Option(metavar="N", help="Tokens per example; 100, or the context.")] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Examples per forward pass.")] = 8,
    radii: Annotated[
        str, typer.Option(metavar="A:B:N", help="N radii from A to B, each as many times the one before.")
    ] = "0.1:100:13",
    from_radius: Annotated[float, typer.Option(metavar="R", help="Exponents are fitted from there on.")] = 10**0.5,
    fit: Annotated[str, typer.Option(help="H made of it: tabulated, power or quadratic+power.")] = "tabulated",
    steps: Annotated[
        bool, typer.Option("--steps/--no-steps", help="Solve with the measured H and take the steps.")
    ] = True,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of positions and directions.")] = 0,
    double: Annotated[bool, typer.Option("--double", help="Compute in float64.")] = False,
    memory: Annotated[str | None, typer.Option(help="What displaced passes may hold, such as 2GiB.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or cuda where there is one.", show_default="best")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Measure H(r), the mean loss beyond its linear term when a layer's output moves by r, and solve with it.

    Writes report.html, report.json, the figures and measurements.json (icm.measure.load reads it) into --out. The same
    command again goes on where it was killed.
    """
    import torch

    from icm.checkpoints import draw, mean_loss, read_checkpoint
    from icm.measure import curvature, save
    from icm.measure import steps as taken
    from icm.measure.layers import find_layers
    from icm.measured import Measured, curvature_table, step_table, write_report
    from icm.measured import as_json as report
    from icm.paths import json_text
    from icm.tables import console, progress_bar

    r = _radii(radii)
    parts = _parts(fused or [])
    for option, given, known in (
        ("--fit", fit, ("tabulated", "power", "quadratic+power")),
        ("--positions", positions, ("one", "all")),
    ):
        if given not in known:
            raise InputError(f"{option} {given}: choose one of {', '.join(known)}")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if place.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {place}: torch finds no GPU here; leave it out, or say cpu")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    checkpoints = [read_checkpoint(path, place) for path in models]
    settings: dict[str, Any] = {
        "positions": positions, "directions": directions, "tokens": tokens if positions == "one" else None,
        "examples": examples, "length": length, "seed": seed, "fit": fit, "dtype": "float64" if double else None,
    }  # fmt: skip
    how: dict[str, Any] = {
        "directions": directions, "positions": positions, "tokens": tokens, "seed": seed, "parts": parts,
        "dtype": torch.float64 if double else None, "memory": memory,
    }  # fmt: skip
    found, notes, journals = [], [], []
    for i, checkpoint in enumerate(checkpoints):
        size = length or min(100, checkpoint.context or 100)
        data = draw(checkpoint, text or [], examples, size, batch)
        held_out = draw(checkpoint, text or [], examples, size, batch, first=examples) if steps else []
        find_layers(checkpoint.model, layers, parts)  # before the folder is made
        out.mkdir(parents=True, exist_ok=True)
        suffix = "" if len(models) == 1 else f"-{i + 1}"
        journals.append(out / f"progress{suffix}.json")
        model, loss = checkpoint.model, checkpoint.loss
        with progress_bar() as progress:
            measured = curvature(model, loss, data, layers, r, resume=journals[-1], progress=progress, **how)
            save(measured, out / f"measurements{suffix}.json")
            able, missing = _able(measured, fit)
            notes += [f"{checkpoint.name}: no steps of {reason}" for reason in missing if steps]
            options: dict[str, Any] = {"held_out": held_out, "parts": parts, "progress": progress}
            tried = taken(model, loss, data, able, fit, **options) if steps and able else {}  # type: ignore[arg-type]
        found.append(Measured(checkpoint.name, checkpoint.step, mean_loss(checkpoint, data), measured, tried))
    written = write_report(out, found, settings, from_radius, fit)
    for journal in journals:
        journal.unlink(missing_ok=True)
    if json:
        typer.echo(json_text(report(found, settings, from_radius)))
        return
    screen = console()
    for one in found:
        screen.print(curvature_table(one, from_radius, fit))
        if one.steps:
            screen.print(step_table(one))
    for note in notes:
        screen.print(note, markup=False, soft_wrap=True)
    for target in written:
        screen.print(f"wrote {target}", markup=False, soft_wrap=True)


def _radii(text: str) -> list[float]:
    try:
        low, high, count = text.split(":")
        a, b, n = float(low), float(high), int(count)
    except ValueError as error:
        raise InputError(f"--radii {text}: write first:last:count, such as 0.1:100:13") from error
    if not 0 < a < b < float("inf") or n < 2:
        raise InputError(f"--radii {text}: 0 < first < last, and two radii or more")
    return [a * (b / a) ** (i / (n - 1)) for i in range(n)]


def _able(measured: Mapping[str, Measurement], fit: Any) -> tuple[dict[str, Measurement], list[str]]:
    """Those that an H can be made of, and why the others cannot."""
    able, missing = {}, []
    for name, one in measured.items():
        try:
            one.fit(fit)
        except InputError as error:
            missing.append(str(error))
        else:
            able[name] = one
    return able, missing


def _parts(given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        pattern, equals, names = text.partition("=")
        if not equals or not pattern or not all(names.split(",")):
            raise InputError(f"--fused {text}: write PATTERN=NAME,NAME,…, such as '*.c_attn=query,key,value'")
        found[pattern] = names.split(",")
    return found
