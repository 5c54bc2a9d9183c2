"""What a run found: one Result per claim, as text, as a dictionary, and in files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icm.paths import write_json
from icm.rigour import Rigour
from icm.theory.claim import Claim
from icm.theory.evidence import Result, upwards

LEFT_OUT = (
    "Remarks of the paper that are not public are left out. "
    "Statements about training runs and measured networks are no claims about the program."
)


@dataclass(frozen=True, eq=False)
class Report:
    """The results in the order of the claims, and what they were run with."""

    results: tuple[Result, ...]
    claims: Mapping[str, Claim]
    seed: int
    instances: int
    rigorous: bool

    @property
    def as_expected(self) -> bool:
        """Whether every claim came out as expected."""
        return all(result.as_expected for result in self.results)

    def __getitem__(self, name: str) -> Result:
        return {result.claim: result for result in self.results}[name]

    def to_dict(self) -> dict[str, Any]:
        """All of it as numbers, texts and lists; None where a figure is no finite number."""
        rows = []
        for result in self.results:
            claim = self.claims[result.claim]
            about = {"statement": claim.statement, "latex": claim.latex, "source": claim.source}
            rows.append({**result.to_dict(), **about, "hypotheses": list(claim.hypotheses)})
        settings = {"seed": self.seed, "instances": self.instances, "rigorous": self.rigorous}
        return _plain({"claims": rows, **settings, "as_expected": self.as_expected, "left_out": LEFT_OUT})

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON, whole or not at all."""
        return write_json(Path(path), self.to_dict())

    def save_witnesses(self, folder: str | Path) -> list[Path]:
        """Write a file for every refuted claim into the folder, made if it is missing."""
        folder = Path(folder)
        found = [result for result in self.results if result.witness is not None]
        if found:
            folder.mkdir(exist_ok=True)
        return [r.witness.save(folder / f"{r.claim}.json") for r in found if r.witness is not None]

    def __str__(self) -> str:
        width = max((len(r.claim) for r in self.results), default=0)
        lines = []
        for r in self.results:
            head = r.headline
            margin = "" if math.isnan(head.margin) else f", worst margin {head.margin:.2g} ± {upwards(head.error)}"
            why = f" ({head.note})" if r.grade is Rigour.INCONCLUSIVE else ""
            sign = "" if r.as_expected else "  ← not as expected"
            grade = r.grade if not r.skipped else "not tried"
            lines.append(f"{r.claim:{width}}  {grade}, {head.scope}{margin}{why}{sign}")
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
