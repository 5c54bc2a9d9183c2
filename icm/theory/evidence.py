"""Evidence with two coordinates: how certain it is, and of how many cases. Never a bare pass."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm.errors import InputError
from icm.paths import write_json
from icm.rigour import Rigour

if TYPE_CHECKING:
    from icm.theory.instances import Instances

SKIPPED = "skipped"  # the scope of evidence that there is none


class Expected(Enum):
    """What a claim is expected to come out as, with a sentence each."""

    HOLDS = "expected to hold"
    FAILS = "expected to fail"
    CORRECTS = "stated or suggested in the literature, and expected to fail: the source is corrected"

    def __str__(self) -> str:
        return self.name.lower()

    def __repr__(self) -> str:
        return f"Expected.{self.name}"


def upwards(error: float) -> str:
    """An error with two digits, rounded up."""
    return f"{error * (1.05 if math.isfinite(error) else 1):.1e}"


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence: `rigour` and `scope` ("every case", "this instance", "these 1000 instances").

    margin is the worst margin found and error bounds its own error; for an equality margin is the largest deviation.
    Both are NaN where the evidence is a proof. `ties` counts margins that are 0 to within their error.
    """

    rigour: Rigour
    scope: str
    instances: int = 0
    margin: float = math.nan
    error: float = math.nan
    ties: int = 0
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers and texts."""
        return {**vars(self), "rigour": str(self.rigour)}

    def __str__(self) -> str:
        margin = "" if math.isnan(self.margin) else f", margin {self.margin:.3g} ± {upwards(self.error)}"
        return f"{self.rigour}, {self.scope}{margin}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True, eq=False)
class Witness:
    """An instance that meets a claim's hypotheses and violates it: `margin` + `error` < 0, or for an equality
    |margin| > error. `seed` and `origin` say where the search met it before it was made smaller in `steps` steps."""

    claim: str
    instance: Instances
    margin: float
    error: float
    rigour: Rigour
    seed: int
    steps: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The witness as JSON holds it; floats as their shortest exact decimals."""
        figures = {"margin": self.margin, "error": self.error, "rigour": str(self.rigour), "seed": self.seed}
        return {"claim": self.claim, **figures, "steps": self.steps, "instance": self.instance.to_dict()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Witness:
        """The witness that `to_dict` wrote."""
        from icm.theory.instances import Instances

        figures = {name: record[name] for name in ("claim", "margin", "error", "seed", "steps")}
        return cls(**figures, rigour=Rigour[record["rigour"].upper()], instance=Instances.from_dict(record["instance"]))

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all; `icm.theory.replay` reads it back."""
        return write_json(Path(path), self.to_dict())

    def __str__(self) -> str:
        return f"{self.instance.describe()}: margin {self.margin:.3g} ± {upwards(self.error)}"


@dataclass(frozen=True, eq=False)
class Result:
    """What is known of one claim after a run.

    grade is REFUTED where a witness was found, PROVED where a checked proof covers every case, else the rigour of the
    run over instances, or INCONCLUSIVE. met counts the instances that meet the hypotheses out of `tried`, `open` those
    of them whose margin is not known well enough to say anything; missed says how many failed each hypothesis.
    """

    claim: str
    grade: Rigour
    expected: Expected
    evidence: tuple[Evidence, ...]
    met: int
    tried: int
    open: int
    missed: dict[str, int] = field(default_factory=dict)
    witness: Witness | None = None
    seconds: float = 0.0

    @property
    def skipped(self) -> bool:
        """Whether it was not tried, as a package is missing that its margin calls."""
        return self.headline.scope == SKIPPED

    @property
    def as_expected(self) -> bool:
        """Whether a claim expected to hold was decided and not refuted, and one expected to fail was refuted; what is
        skipped is no surprise."""
        if self.skipped:
            return True
        if self.expected is Expected.HOLDS:
            return self.grade not in (Rigour.REFUTED, Rigour.INCONCLUSIVE)
        return self.grade is Rigour.REFUTED

    @property
    def headline(self) -> Evidence:
        """The piece of evidence that the grade rests on."""
        return next((e for e in self.evidence if e.rigour is self.grade), self.evidence[0])

    def __str__(self) -> str:
        sign = "" if self.as_expected else "  ← not as expected"
        why = f"; {self.witness}" if self.witness is not None else ""
        return f"{self.claim}: {'; '.join(map(str, self.evidence if not why else self.evidence[1:]))}{why}{sign}"

    def to_dict(self) -> dict[str, Any]:
        """All of it as numbers, texts and lists."""
        head = self.headline
        counts = {"instances": head.instances, "met": self.met, "tried": self.tried, "open": self.open}
        return {
            "name": self.claim,
            "grade": str(self.grade),
            "expected": str(self.expected),
            "as_expected": self.as_expected,
            "scope": head.scope,
            "margin": head.margin,
            "error": head.error,
            **counts,
            "missed": self.missed,
            "evidence": [e.to_dict() for e in self.evidence],
            "witness": None if self.witness is None else _recorded(self.witness),
            "seconds": self.seconds,
        }


def _recorded(witness: Witness) -> dict[str, Any]:
    """The witness, or in words where its H has no text that gives it back."""
    try:
        return witness.to_dict()
    except InputError as error:
        return {"claim": witness.claim, "text": str(witness), "not saved": str(error)}
