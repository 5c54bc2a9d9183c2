"""`icm measure`: the curvature of a language model's layers, and what steps solved with it promise and give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from icm.errors import InputError

if TYPE_CHECKING:
    from icm.checkpoints import Checkpoint

_FROM = 10**0.5  # the paper's


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
    directions: Annotated[int, typer.Option(metavar="N", min=1, help="Random directions per token.")] = 100,
    tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens displaced per example; with --positions one.")
    ] = 8,
    examples: Annotated[
        int, typer.Option(metavar="N", min=2, help="Examples of the text; the steps are tried on as many after them.")
    ] = 32,
    length: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, help="Tokens per example.", show_default="100, or the model's context"),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Examples per forward pass.")] = 8,
    radii: Annotated[
        str, typer.Option(metavar="A:B:N", help="N radii from A to B, each as many times the one before.")
    ] = "0.1:100:13",
    from_radius: Annotated[
        float | None,
        typer.Option(metavar="R", help="Exponents are fitted from there on; 0: all.", show_default="√10"),
    ] = None,
    fit: Annotated[str, typer.Option(help="H made of it: tabulated, power or quadratic+power.")] = "tabulated",
    steps: Annotated[
        bool, typer.Option("--steps/--no-steps", help="Solve with the measured H and take the steps.")
    ] = True,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of positions and directions.")] = 0,
    double: Annotated[bool, typer.Option("--double", help="Compute in float64.")] = False,
    memory: Annotated[
        str | None, typer.Option(help="What displaced passes may hold, such as 2GiB; beside the model.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or cuda where there is one.", show_default="best")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Measure H(r), the mean loss beyond its linear term when a layer's output moves by r, and solve with it.

    Writes report.html, report.json, the figures and measurements.json (icm.measure.load reads it) into --out. Options,
    models and text are checked before anything is written. A run that is killed, or fails while it measures, leaves
    progress.json there, and the same command goes on from it; the end takes it away.
    """
    import torch

    from icm.checkpoints import draw, mean_loss, read_checkpoint
    from icm.measure import curvature, save
    from icm.measure import steps as take
    from icm.measure.fit import Kind
    from icm.measure.layers import find_layers
    from icm.measure.sweep import Positions
    from icm.measured import Measured, curvature_table, remarks, step_table, write_report
    from icm.measured import as_json as report
    from icm.paths import json_text
    from icm.tables import console, progress_bar

    r = _radii(radii)
    fitted_from = _from_radius(from_radius, r)
    parts = _parts(fused or [])
    for option, given, known in (("--fit", fit, get_args(Kind)), ("--positions", positions, get_args(Positions))):
        if given not in known:
            raise InputError(f"{option} {given}: choose one of {', '.join(known)}")
    _check_memory(memory)
    place = _device(device)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")

    def prepared(path: Path) -> tuple[Checkpoint, list[Any], list[Any]]:
        checkpoint = read_checkpoint(path, place)
        find_layers(checkpoint.model, layers, parts)
        size = length or min(100, checkpoint.context or 100)
        data = draw(checkpoint, text or [], examples, size, batch)
        return checkpoint, data, draw(checkpoint, text or [], examples, size, batch, first=examples) if steps else []

    ready: list[Any] = []
    for path in models:  # all of them before hours go into the first, and one at a time in memory
        ready.clear()
        ready.append(prepared(path))
    if len(models) > 1:
        ready.clear()

    settings: dict[str, Any] = {
        "positions": positions, "directions": directions, "tokens": tokens if positions == "one" else None,
        "examples": examples, "length": length, "seed": seed, "fit": fit, "dtype": "float64" if double else None,
    }  # fmt: skip
    shared: dict[str, Any] = {"parts": parts, "dtype": torch.float64 if double else None, "memory": memory}
    how: dict[str, Any] = {"directions": directions, "positions": positions, "tokens": tokens, "seed": seed}
    found, journals = [], []
    with _folder(out):
        for i, path in enumerate(models):
            checkpoint, data, held_out = ready.pop() if ready else prepared(path)
            suffix = "" if len(models) == 1 else f"-{i + 1}"
            journals.append(out / f"progress{suffix}.json")
            model, loss = checkpoint.model, checkpoint.loss
            with progress_bar() as progress:
                with _explained(journals[-1]):
                    measured = curvature(
                        model, loss, data, layers, r, resume=journals[-1], progress=progress, **how, **shared
                    )
                save(measured, out / f"measurements{suffix}.json")
                taken, skipped = {}, {}
                if steps:
                    taken = take(model, loss, data, measured, fit, held_out=held_out, progress=progress, **shared)
                    skipped = {
                        name: why.replace("dtype=torch.float64", "--double") for name, why in taken.skipped.items()
                    }
            name, step = checkpoint.name, checkpoint.step
            found.append(Measured(name, step, mean_loss(checkpoint, data), measured, taken, skipped))
        written = write_report(out, found, settings, fitted_from, fit)
    for journal in journals:
        journal.unlink(missing_ok=True)
    if json:
        typer.echo(json_text(report(found, settings, fitted_from)))
        return
    screen = console()
    for one in found:
        screen.print(curvature_table(one, fitted_from, fit))
        if one.steps:
            screen.print(step_table(one))
        for remark in remarks(one):
            screen.print(remark, markup=False, soft_wrap=True)
    for target in written:
        screen.print(f"wrote {target}", markup=False, soft_wrap=True)


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """With --out there, and gone again if nothing came into it."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if new and not any(out.iterdir()):
            out.rmdir()


@contextmanager
def _explained(journal: Path) -> Iterator[None]:
    """What `resume` refuses, in the command's words."""
    try:
        yield
    except InputError as error:
        head, _, rest = str(error).partition(f"resume={str(journal)!r} ")
        if head or not rest:
            raise
        raise InputError(
            f"--out {journal.parent} has a {journal.name}, left by a run that did not end, which "
            f"{rest.rpartition(';')[0]}; give what that run was given to go on with it, delete {journal} to start "
            "anew, or name another folder"
        ) from error


def _device(device: str | None) -> str:
    import torch

    here = torch.cuda.is_available()
    if device is None:
        return "cuda" if here else "cpu"
    kind, colon, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not number.isdecimal()):
        raise InputError(f"--device {device}: say cpu, cuda or, of several GPUs, cuda:1")
    if kind == "cuda" and not here:
        raise InputError(f"--device {device}: torch finds no GPU here; leave it out, or say cpu")
    if kind == "cuda" and colon and int(number) >= torch.cuda.device_count():
        raise InputError(f"--device {device}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device if kind == "cuda" else "cpu"


def _check_memory(memory: str | None) -> None:
    import torch

    from icm.measure.memory import budget

    try:
        budget(memory, torch.device("cpu"))
    except InputError as error:
        raise InputError(f"--memory {memory}: write bytes, one at least, or 500MB or 2GiB") from error


def _radii(text: str) -> list[float]:
    try:
        low, high, count = text.split(":")
        a, b, n = float(low), float(high), int(count)
    except ValueError as error:
        raise InputError(f"--radii {text}: write first:last:count, such as 0.1:100:13") from error
    if not 0 < a < b < float("inf") or n < 2:
        raise InputError(f"--radii {text}: 0 < first < last, and two radii or more")
    return [a * (b / a) ** (i / (n - 1)) for i in range(n)]


def _from_radius(given: float | None, radii: list[float]) -> float:
    if given is None:
        return _FROM
    if not (math.isfinite(given) and given >= 0):
        raise InputError(f"--from-radius {given:g} is no radius; give a number, 0 for all radii")
    if given > radii[-1] * (1 + 1e-12):
        raise InputError(
            f"--from-radius {given:g}: the radii end at {radii[-1]:g}; give a smaller one, or other --radii"
        )
    return given


def _parts(given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        pattern, equals, names = text.partition("=")
        if not equals or not pattern or not all(names.split(",")):
            raise InputError(f"--fused {text}: write PATTERN=NAME,NAME,…, such as '*.c_attn=query,key,value'")
        found[pattern] = names.split(",")
    return found
