"""A claim: a statement with its source, its hypotheses, a signed margin, and the instances it is tried on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from icm.arrays import to_tensor
from icm.ball import Ball
from icm.curvature import Curvature, as_curvature
from icm.errors import InputError, MissingPackageError
from icm.rigour import Rigour
from icm.theory.case import Case
from icm.theory.curvatures import smooth
from icm.theory.evidence import Evidence, Expected
from icm.theory.instances import Draw, Instances, draw

Hypothesis = Callable[[Case], "Tensor | bool"]


@dataclass(frozen=True, eq=False)
class Checked:
    """A batch of instances checked, each field (B,): which meet every hypothesis, the margins with their radii, and
    which of those that meet are violated, tied (0 to within the error) or open (the error too large to tell).
    `missed` says per hypothesis how many do not meet it."""

    met: Tensor
    margin: Tensor
    error: Tensor
    violated: Tensor
    tied: Tensor
    open: Tensor
    rigour: Rigour
    missed: dict[str, int]


@dataclass(frozen=True, eq=False)
class Claim:
    """A statement about the program that instances can contradict.

    margin(case) is (B,), ≥ 0 where the statement holds; for an `equality` it is the deviation, 0 where it holds. A Ball
    carries its own error, and an instance counts against the claim only if that cannot explain it. A plain tensor is
    taken to be known to `slack`. Margins should be relative, so that an error of `resolution` decides nothing.
    hypotheses are predicates (B,) by name; instances that miss one are not counted. `draw` makes the instances, by
    default gradients of all shapes with smooth curvatures. `proof` names a proof in the package proofs_check,
    `enclosable` says whether the margin can be computed in ball arithmetic. An instance that stands for a whole
    training run costs as much as `cost` others, and a run takes so many fewer of them. `needs` names a package that
    the margin calls, PyPI's name: without it the claim is skipped.
    """

    name: str
    statement: str
    margin: Callable[[Case], Ball | Tensor]
    draw: Draw = field(default_factory=lambda: draw(smooth))
    hypotheses: Mapping[str, Hypothesis] = field(default_factory=dict)
    latex: str = ""
    source: str = ""
    equality: bool = False
    expected: Expected = Expected.HOLDS
    proof: str | None = None
    enclosable: bool = True
    slack: float = 1e-9
    resolution: float = 1e-6
    batch: int = 50
    cost: int = 1
    needs: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name):
            raise InputError(
                f"a claim is named {self.name!r}: use letters, digits, - and _, for files are named after it"
            )

    def share(self, instances: int) -> int:
        """How many instances of its own the claim takes in a run of so many."""
        return -(-instances // self.cost)

    @property
    def missing(self) -> str:
        """Why the claim cannot be tried here, "" if it can."""
        if self.needs is None or find_spec(self.needs) is not None:
            return ""
        return f"the package {self.needs} is not installed: pip install {self.needs}"

    def check(self, instances: Instances, rigorous: bool = False) -> Checked:
        """Every instance of a batch against the claim. Raises MissingPackageError without the package it needs."""
        if self.missing:
            raise MissingPackageError(f"claim {self.name!r}: {self.missing}")
        case = Case(instances, rigorous)
        met, missed = torch.ones(len(case), dtype=torch.bool), {}
        for name, holds in self.hypotheses.items():
            if bool(met.any()):  # what follows may rest on it
                fine = self._decided(name, holds(case), len(case))
                missed[name] = int((~fine).sum())
                met = met & fine
        found = self._measured(case) if bool(met.any()) else Ball.of(torch.full((len(case),), math.nan))
        known = ~found.middle.isnan() & torch.isfinite(found.radius)
        size = found.middle.abs() if self.equality else -found.middle
        violated = met & known & (size > found.radius)
        tied = met & known & (found.middle.abs() <= found.radius) & (found.radius <= self.resolution)
        held = tied if self.equality else met & known & (found.middle >= found.radius) | tied
        return Checked(
            met=met,
            margin=found.middle,
            error=found.radius,
            violated=violated,
            tied=tied,
            open=met & ~violated & ~held,
            rigour=found.rigour,
            missed=missed,
        )

    def _decided(self, name: str, found: Any, size: int) -> Tensor:
        """What a hypothesis says, (B,) bool."""
        fine = torch.as_tensor(found)
        if fine.dtype != torch.bool or fine.shape not in ((), (size,)):
            raise InputError(
                f"hypothesis {name!r} of claim {self.name!r} gives {fine.dtype} of shape {tuple(fine.shape)} for "
                f"{size} instances: return True or False, one for all or one for each"
            )
        return fine.broadcast_to((size,))

    def _measured(self, case: Case) -> Ball:
        """The margin (B,) with its error."""
        found = self.margin(case)
        if isinstance(found, Tensor):
            known = ~found.isnan()
            found = Ball(found.double(), torch.where(known, self.slack, math.inf), Rigour.SAMPLED)
        if not isinstance(found, Ball):
            raise InputError(f"the margin of claim {self.name!r} is {found!r}: return a Ball or a tensor of shape (B,)")
        if found.shape != (len(case),):
            raise InputError(
                f"the margin of claim {self.name!r} has shape {tuple(found.shape)} for {len(case)} instances: "
                "return one number per instance, reducing over singular values, e.g. by .amin(-1)"
            )
        return found

    def on(self, G: Any, H: Curvature | str, *, rigorous: bool = False, **extra: Any) -> Evidence:
        """The claim on one gradient G (m, n) of the caller's own; `extra` is what else its margin looks at, by name."""
        G = to_tensor(G, "G").double()
        if G.ndim != 2:
            raise InputError(f"G has shape {tuple(G.shape)}: a claim is tried on one matrix at a time")
        more = {name: to_tensor(value, name).double()[None] for name, value in extra.items()}
        return self.here(Instances(G[None], as_curvature(H), more), rigorous)

    def here(self, instance: Instances, rigorous: bool = False) -> Evidence:
        """The claim on one instance, a batch of one."""
        checked, scope = self.check(instance, rigorous), "this instance"
        margin, error = float(checked.margin), float(checked.error)
        if not checked.met:
            missed = ", ".join(name for name, count in checked.missed.items() if count)
            return Evidence(Rigour.INCONCLUSIVE, scope, 1, margin, error, note=f"hypotheses not met: {missed}")
        if checked.violated:
            return Evidence(Rigour.REFUTED, scope, 1, margin, error)
        if checked.open:
            return Evidence(Rigour.INCONCLUSIVE, scope, 1, margin, error, note="the margin is not known well enough")
        return Evidence(checked.rigour, scope, 1, margin, error, int(checked.tied))
