"""A report of claims as one page, formulas as MathML, pictures as SVG."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path

from icm.mathml import mathml
from icm.page import captioned, document
from icm.paths import check_output, write_bytes
from icm.theory import Claim, Evidence, Expected, Report, Result, Rigour
from icm.theory.evidence import upwards
from icm.theory.report import LEFT_OUT
from icm.verdicts import MEANING, duration, margin, outcome, pieces, replay_line, verdict

Progress = Callable[[int, int, str], None]

SHOWN = 400  # entries of a witness's matrices up to which they are printed


def write_html(
    report: Report, path: str | Path, witnesses: Path = Path("icm-witnesses"), progress: Progress | None = None
) -> Path:
    """Write the page of a report, whole or not at all; `witnesses` is the folder its replay lines name.

    The pictures are computed here, by the library itself. Raises FileError for a path that cannot be written.
    """
    target = check_output(path, (".html", ".htm"))
    tell = progress or (lambda done, total, what: None)
    write_bytes(target, page(report, witnesses, tell).encode())
    return target


def page(report: Report, witnesses: Path, tell: Progress) -> str:
    """The text of the page."""
    from icm.plots.claims import ALL

    figures = []
    for index, picture in enumerate(ALL):
        tell(index, len(ALL), f"drawing {picture.name}")
        figure, caption = picture.draw()
        name = f"picture-{picture.name}"  # a claim may have the same name
        figures.append(captioned(figure, name, picture.title, caption))
    tell(len(ALL), len(ALL), "writing the page")
    settings = f"{report.instances} instances per claim, seed {report.seed}"
    settings += ", with instances in ball arithmetic" if report.rigorous else ""
    grades = "".join(f"<li>{escape(rigour.value)}</li>" for rigour in reversed(Rigour))
    sections = "".join(section(report.claims[r.claim], r, witnesses) for r in report.results)
    tone = "certified" if report.as_expected else "refuted"
    body = (
        "<h1>The isotropic curvature model: its theorems and their evidence</h1>"
        f'<p class="verdict {tone}">{escape(verdict(report))}.</p>'
        f'<p class="dim">{escape(settings)}. {escape(LEFT_OUT)}</p>'
        f"<h2>Claims</h2>{table(report)}<ul class='dim'>{grades}</ul>"
        f"<h2>Pictures</h2>{''.join(figures)}<h2>Evidence</h2>{sections}"
    )
    return document(f"icm verify: {verdict(report)}", body)


def table(report: Report) -> str:
    """One row per claim."""
    heads = ("claim", "source", "met/tried", "evidence", "worst margin", "time")
    rows = []
    for result in report.results:
        claim = report.claims[result.claim]
        cell = " · ".join(f'<span class="{rigour}">{escape(words)}</span>' for rigour, words in pieces(result))
        if (said := outcome(result)) is not None:
            cell += f'<br><span class="{"dim" if result.as_expected else "refuted"}">{escape(said)}</span>'
        odd = "" if result.as_expected else ' class="odd"'
        rows.append(
            f'<tr{odd}><td><a href="#{escape(result.claim)}">{escape(result.claim)}</a></td>'
            f"<td>{escape(claim.source)}</td><td class='figure'>{result.met}/{result.tried}</td><td>{cell}</td>"
            f"<td class='figure'>{escape(margin(result))}</td><td class='figure'>{duration(result.seconds)}</td></tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in heads)
    inner = f"<caption>{escape(MEANING)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="wide"><table>{inner}</table></div>'


def section(claim: Claim, result: Result, witnesses: Path) -> str:
    """All that is known of one claim."""
    parts = [f'<section id="{escape(claim.name)}"><h3>{escape(claim.name)}</h3><p>{escape(claim.statement)}</p>']
    if claim.latex:
        parts.append(mathml(claim.latex) or f"<p><code>{escape(claim.latex)}</code></p>")
    word = "" if result.expected is Expected.HOLDS else f" {result.expected.value}."
    parts.append(f'<p class="dim">{escape(claim.source)}.{escape(word)}</p><ul>')
    parts += [f"<li>{piece(e)}</li>" for e in result.evidence]
    if claim.hypotheses:
        missed = ", ".join(f"{name} ({result.missed.get(name, 0)} missed it)" for name in claim.hypotheses)
        parts.append(f'<li class="dim">hypotheses: {escape(missed)}</li>')
    if result.open:
        parts.append(f'<li class="dim">{result.open} instances open: their margins are not known well enough</li>')
    parts.append("</ul>")
    if result.witness is not None:
        record = json.dumps(result.witness.to_dict()["instance"], ensure_ascii=False)
        small = result.witness.instance.G.numel() <= SHOWN
        parts.append(
            f"<p>Witness: {escape(str(result.witness))}</p>"
            + (f"<pre>{escape(record)}</pre>" if small else "")
            + f"<pre>{escape(replay_line(claim.name, witnesses))}</pre>"
        )
    return "".join([*parts, "</section>"])


def piece(evidence: Evidence) -> str:
    """A piece of evidence in a line."""
    text = f'<span class="{evidence.rigour}">{evidence.rigour}</span>, {escape(evidence.scope)}'
    if evidence.margin == evidence.margin:
        text += f": worst margin {evidence.margin:.3g} ± {upwards(evidence.error)}"
    if evidence.ties:
        text += f", {evidence.ties} of them 0 to within their error"
    return text + (f" <span class='dim'>({escape(evidence.note)})</span>" if evidence.note else "")
