"""Writes the list of claims into docs/claims.md, with the evidence of a run: `make claims`."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from icm.theory import Claim, Expected, Result, Rigour, verify

PAGE = Path(__file__).with_name("claims.md")
BEGIN, END = "<!-- the list begins -->\n", "<!-- the list ends -->\n"
WIDTH = 116


def entry(claim: Claim, result: Result) -> str:
    """A claim as an item of the list."""
    pieces = [f"{e.rigour}, {e.scope}" for e in result.evidence if e.rigour is not Rigour.INCONCLUSIVE]
    if result.grade is Rigour.REFUTED:
        assert result.witness is not None
        pieces = [f"refuted, for instance by {result.witness.instance.describe()}"]
        if claim.cost > 1:  # two runs: by how much they part
            pieces[0] += f", where the runs part by {result.witness.margin:.2g} of the way"
    verdict = {Expected.HOLDS: "", Expected.FAILS: "Fails. ", Expected.CORRECTS: "Corrects its source. "}
    text = f"**{claim.name}** ({claim.source}). {claim.statement} *{verdict[claim.expected]}{'; '.join(pieces)}.*"
    return textwrap.fill(text.replace("σ*", "σ\\*").replace("Q*", "Q\\*").replace("F*", "F\\*"), WIDTH,
                         initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)  # fmt: skip


def main() -> None:
    report = verify(rigorous=True, workers=os.cpu_count() or 1, progress=lambda done, total, what: None)
    items = "\n".join(entry(report.claims[result.claim], result) for result in report.results)
    page = PAGE.read_text(encoding="utf-8")
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{head}{BEGIN}\n{items}\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
