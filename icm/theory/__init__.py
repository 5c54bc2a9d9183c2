"""The theorems as claims that instances can contradict, and evidence that says how strongly they hold.

claim = Claim("half", "no curvature halves the condition number", margin=…)
search(claim).witness
verify().save("report.json")
"""

from icm.ball import Ball, norm, stack
from icm.rigour import Rigour
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims import CLAIMS
from icm.theory.evidence import Evidence, Expected, Result, Witness
from icm.theory.instances import Instances, draw
from icm.theory.report import Report
from icm.theory.search import replay, search
from icm.theory.verify import verify

__all__ = [
    "CLAIMS",
    "Ball",
    "Case",
    "Claim",
    "Evidence",
    "Expected",
    "Instances",
    "Report",
    "Result",
    "Rigour",
    "Witness",
    "draw",
    "norm",
    "replay",
    "search",
    "stack",
    "verify",
]
