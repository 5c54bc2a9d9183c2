"""A report of claims as a table for a terminal, with what has to be said below it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table
from rich.text import Text

from icm.tables import plain_table
from icm.theory import Claim, Evidence, Expected, Report, Result, Rigour
from icm.theory.evidence import SKIPPED, upwards
from icm.theory.report import LEFT_OUT

COLOURS = {
    Rigour.REFUTED: "red",
    Rigour.INCONCLUSIVE: "yellow",
    Rigour.SAMPLED: "cyan",
    Rigour.CERTIFIED: "green",
    Rigour.ENCLOSED: "green",
    Rigour.PROVED: "bold green",
}
MEANING = (
    "met: instances that meet the hypotheses, of those tried; evidence: every piece there is, a number saying of how "
    "many instances; open: margins too uncertain to say anything; margin: the worst found, negative where the "
    "statement fails, for an equality the largest deviation, with its error; time: summed over processes."
)
GRADES = "; ".join(rigour.value for rigour in reversed(Rigour)) + "."
WORDS = {Expected.FAILS: "expected to fail", Expected.CORRECTS: "corrects the source"}


def verdict_table(report: Report) -> Table:
    """One row per claim, narrow enough for 100 columns; below, what the columns and grades mean."""
    title = f"{len(report.results)} claims, {report.instances} instances each, seed {report.seed}"
    table = plain_table(title, f"{MEANING}\n{GRADES}")
    table.add_column("claim", overflow="fold", max_width=24)
    table.add_column("source", overflow="fold", max_width=22)
    table.add_column("met", justify="right", no_wrap=True)
    table.add_column("evidence", overflow="fold", max_width=24)
    table.add_column("margin", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for result in report.results:
        claim = Text(result.claim, style="" if result.as_expected else "bold red")
        cell = Text(" · ").join(Text(words, style=COLOURS[rigour]) for rigour, words in pieces(result))
        if result.open:
            cell.append(f" · {result.open} open", style="dim")
        if (said := outcome(result)) is not None:
            cell.append(f"\n{said}", style="dim" if result.as_expected else "bold red")
        source = Text(report.claims[result.claim].source, style="dim")
        table.add_row(claim, source, f"{result.met}/{result.tried}", cell, margin(result), duration(result.seconds))
    return table


def pieces(result: Result) -> list[tuple[Rigour, str]]:
    """The evidence in words as short as they can be: (PROVED, "proved"), (CERTIFIED, "certified 1000"), …"""
    found = []
    for evidence in result.evidence:
        if evidence.rigour is Rigour.INCONCLUSIVE:
            words = {"proof": "proof open", SKIPPED: SKIPPED}.get(evidence.scope, "undecided")
        elif evidence.rigour is Rigour.REFUTED:
            words = "refuted by proof" if evidence.scope == "by proof" else "refuted"
            words = (
                "violated in " + evidence.note.replace(" violate it", "") if "violate it" in evidence.note else words
            )
        else:
            words = f"{evidence.rigour} {evidence.instances}" if evidence.instances else str(evidence.rigour)
        found.append((evidence.rigour, words))
    return found


def outcome(result: Result) -> str | None:
    """What a claim was expected to come out as, where that needs saying."""
    if not result.as_expected:
        return f"← not as expected: {WORDS.get(result.expected, result.expected.value)}"
    return WORDS.get(result.expected)


def weighed(result: Result) -> Evidence | None:
    """The piece of evidence whose margin is shown: the grade's own, or for a proof the instances'."""
    pieces = [result.headline, *result.evidence]
    return next((e for e in pieces if not math.isnan(e.margin)), None)


def margin(result: Result) -> str:
    """The worst margin with its error."""
    evidence = weighed(result)
    if evidence is None:
        return "–"
    if abs(evidence.margin) <= evidence.error:
        return f"0 ± {upwards(evidence.error)}"
    return f"{evidence.margin:.2g} ± {upwards(evidence.error)}"


def duration(seconds: float) -> str:
    """Seconds, and minutes from two on."""
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.1f} s"


def verdict(report: Report) -> str:
    """The whole report in a line."""
    odd = [r.claim for r in report.results if not r.as_expected]
    if odd:
        return f"{len(odd)} of {len(report.results)} claims not as expected: {', '.join(odd)}"
    skipped = sum(r.skipped for r in report.results)
    return f"{len(report.results)} claims, all as expected" + (f" but {skipped} skipped" if skipped else "")


def replay_line(claim: str, folder: Path) -> str:
    """The command that tries a saved witness again."""
    return f"icm verify --replay {shlex.quote(str(folder / f'{claim}.json'))}"


def remarks(report: Report, witnesses: Path) -> Iterable[Text]:
    """A line per witness with the command that replays it, what was not decided and why, and what is left out."""
    for result in report.results:
        if result.witness is not None:
            told = Text.assemble((f"{result.claim} refuted: ", "bold"), str(result.witness))
            yield told.append(f"\n  {replay_line(result.claim, witnesses)}", style="cyan")
    reasons: dict[str, list[str]] = {}
    for result in report.results:
        for evidence in result.evidence:
            if evidence.rigour is Rigour.INCONCLUSIVE:
                reasons.setdefault(f"{evidence.scope}: {evidence.note}", []).append(result.claim)
    for reason, claims in reasons.items():
        yield Text.assemble((reason, "yellow"), f" ({', '.join(claims)})")
    yield Text(LEFT_OUT, style="dim")


def listing(claims: Iterable[Claim]) -> Iterable[Text]:
    """Each claim with its statement and source."""
    for claim in claims:
        said = f", {claim.expected.value}" if claim.expected is not Expected.HOLDS else ""
        yield Text.assemble(
            (claim.name, "bold"), f"\n  {claim.statement}\n  ", (f"{claim.source or 'no source'}{said}", "dim")
        )
