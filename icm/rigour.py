"""How certain a number or a statement is: the grades that evidence and enclosures share."""

from __future__ import annotations

from enum import Enum


class Rigour(Enum):
    """How certain a piece of evidence is, with a sentence each; ordered, the weakest first."""

    REFUTED = "refuted: an instance that meets the hypotheses violates the statement by more than its margin's error"
    INCONCLUSIVE = "inconclusive: nothing was decided"
    SAMPLED = "sampled: computed in floating point, the error of the margins unknown"
    CERTIFIED = "certified: optimality conditions and measured error constants bound the error of every margin"
    ENCLOSED = "enclosed: every margin is proved in ball arithmetic"
    PROVED = "proved: a proof whose steps a program has checked"

    def __lt__(self, other: Rigour) -> bool:
        order = list(Rigour)
        return order.index(self) < order.index(other)

    def __str__(self) -> str:
        return self.name.lower()

    def __repr__(self) -> str:
        return f"Rigour.{self.name}"
