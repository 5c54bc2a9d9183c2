"""`icm verify`: the theorems tried, and what they were found to be worth."""

from __future__ import annotations

import json as jsonlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icm.commands.ranks import first_checks, launched, ranks
from icm.errors import FileError, InputError
from icm.paths import check_output, json_text

if TYPE_CHECKING:
    from icm.theory import Report

WITNESSES = Path("icm-witnesses")


def verify(
    claims: Annotated[
        list[str] | None, typer.Argument(metavar="[CLAIM]…", help="Names of claims, as --list shows them; or all.")
    ] = None,
    instances: Annotated[int, typer.Option(metavar="N", help="Instances that meet a claim's hypotheses.")] = 1000,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the instances.")] = 0,
    rigorous: Annotated[
        bool, typer.Option("--rigorous", help="Also prove the margins of 20 instances each in ball arithmetic.")
    ] = False,
    budget: Annotated[float | None, typer.Option(metavar="SECONDS", help="Begin nothing new after that time.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; -: print it, nothing else.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as one page with pictures.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes.", show_default="number of cores; 1 under torchrun")
    ] = None,
    witnesses: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the instances that refute a claim, if any does.")
    ] = WITNESSES,
    replay: Annotated[Path | None, typer.Option(metavar="FILE", help="Try one saved witness again.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Names, statements and sources, and nothing is run.")] = False,
    proofs: Annotated[bool, typer.Option("--proofs/--no-proofs", help="Check the proofs step by step.")] = True,
) -> None:
    """Try every claim of the theory on instances drawn to break it, check its proof, and say what each is worth.

    Exit code 1 if a claim came out otherwise than expected, 2 for bad input. `torchrun --nproc-per-node N -m icm.cli
    verify` shares the work between machines; the report is the same for any number of ranks and workers.
    """
    if (replay is not None or listing) and int(os.environ.get("RANK", "0")):
        return
    if replay is not None:
        if claims or listing or json or html:
            raise InputError(f"--replay {replay} runs one witness by itself: leave out claims, --list, --json, --html")
        _replay(replay)
        return
    if listing:
        _list(claims)
        return
    from icm.tables import progress_bar
    from icm.theory import verify as run

    count = workers if workers is not None else 1 if launched() else _cores()
    start = perf_counter()
    with ranks() as rank:
        first_checks(rank, lambda: _check_outputs(json, html, witnesses))
        with progress_bar() if rank == 0 else nullcontext() as progress, _ended_by_interrupt():
            options: dict[str, Any] = {"rigorous": rigorous, "proofs": proofs, "budget": budget}
            try:
                report = run(claims or None, instances, seed, **options, workers=count, progress=progress)
            except BrokenExecutor as error:
                raise InputError(f"--workers {count}: a process ended unexpectedly ({error}); take fewer") from error
        if rank == 0:
            spent = perf_counter() - start
            saved = _write(report, json, html, witnesses)
            if json is not None and str(json) == "-":
                typer.echo(json_text(report.to_dict()))
            else:
                _show(report, saved, witnesses, spent, budget)
    # A launcher ends all ranks with the first that fails: only the one that has reported does.
    raise typer.Exit(1 if rank == 0 and not report.as_expected else 0)


def _cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_outputs(json: Path | None, html: Path | None, witnesses: Path) -> None:
    """Every place that may be written to, before the work begins."""
    if json is not None and str(json) != "-":
        check_output(json, (".json",))
    if html is not None:
        check_output(html, (".html", ".htm"))
    if witnesses.exists() and not witnesses.is_dir():
        raise FileError(f"--witnesses {witnesses} is a file, and witnesses go into a folder; name another")
    if not witnesses.parent.is_dir():
        raise FileError(f"--witnesses {witnesses}: there is no folder {witnesses.parent} to make it in; create it")
    for folder in (witnesses.parent, witnesses):
        if folder.exists() and not os.access(folder, os.W_OK) and (folder == witnesses or not witnesses.exists()):
            raise FileError(f"--witnesses {witnesses}: the folder {folder} is read-only; name one elsewhere")


def _write(report: Report, json: Path | None, html: Path | None, witnesses: Path) -> list[Path]:
    """What was asked for, and the witnesses if there are any; the page first, which takes the longest."""
    written = []
    if html is not None:
        from icm.html import write_html
        from icm.tables import progress_bar

        with progress_bar() as progress, _ended_by_interrupt():
            written.append(write_html(report, html, witnesses=witnesses, progress=progress))
    if json is not None and str(json) != "-":
        written.append(report.save(json))
    return [*written, *report.save_witnesses(witnesses)]


def _show(report: Report, saved: list[Path], witnesses: Path, spent: float, budget: float | None) -> None:
    """The table, and below it what it leaves open."""
    from icm.tables import console
    from icm.verdicts import remarks, verdict, verdict_table

    screen = console()
    screen.print(verdict_table(report))
    for line in remarks(report, witnesses):
        screen.print(line, soft_wrap=True)
    if budget is not None and spent >= budget:
        shares = {name: claim.share(report.instances) for name, claim in report.claims.items()}
        short = [r.claim for r in report.results if r.met < shares[r.claim] and not r.skipped]
        which = f": fewer than {report.instances} instances for {', '.join(short)}" if short else ""
        screen.print(f"The budget of {budget:g} s ran out{which}.", style="yellow", markup=False, soft_wrap=True)
    for path in saved:
        screen.print(f"wrote {path}", markup=False, soft_wrap=True)
    style = "green" if report.as_expected else "bold red"
    screen.print(f"{verdict(report)} ({spent:.0f} s)", style=style, markup=False, soft_wrap=True)


def _replay(path: Path) -> None:
    """A saved witness against its claim: exit code 0 if it refutes it again, 1 if not."""
    from icm.tables import console
    from icm.theory import Rigour, Witness
    from icm.theory import replay as again
    from icm.theory.claims import CLAIMS

    found = again(path)
    witness = Witness.from_dict(jsonlib.loads(path.read_text(encoding="utf-8")))
    refuted = found.rigour is Rigour.REFUTED
    if refuted:
        outcome = "refuted by this instance"
    else:
        outcome = "undecided on" if found.rigour is Rigour.INCONCLUSIVE else "holds on"
        outcome += " this instance: " + (found.note or str(found.rigour))
    screen = console()
    for line in (
        f"{witness.claim}: {CLAIMS[witness.claim].statement}",
        f"instance: {witness.instance.describe()}",
        f"margin {found.margin:.3g} ± {found.error:.1g} (saved: {witness.margin:.3g} ± {witness.error:.1g})",
    ):
        screen.print(line, markup=False, soft_wrap=True)
    screen.print(f"{witness.claim} {outcome}", style="green" if refuted else "bold red", markup=False, soft_wrap=True)
    raise typer.Exit(0 if refuted else 1)


def _list(names: list[str] | None) -> None:
    """The claims, or those of these names."""
    from icm.tables import console
    from icm.theory.verify import chosen
    from icm.verdicts import listing

    screen = console()
    for text in listing(chosen(names or None)):
        screen.print(text, soft_wrap=not screen.is_terminal)


@contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    """An interrupt ends the worker processes at once, which otherwise finish what they have begun."""

    def stop(number: int, frame: object) -> None:
        for process in multiprocessing.active_children():
            process.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
