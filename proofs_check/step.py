"""A step of a proof: one sentence, and what stands behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

Check = Callable[[], str]


class Kind(Enum):
    """What stands behind a step; the value is the sentence that says so."""

    SYMBOLIC = "an identity or inequality of symbolic algebra, for all values of its symbols and every n"
    EXACT = "exact rational or polynomial arithmetic, for the dimensions or the instances listed"
    ENCLOSED = "ball arithmetic with every rounding enclosed, for the instances listed"
    CITED = "a standard theorem or property, used as an axiom"
    ARGUED = "words of the proof that no program checks"


CHECKED = (Kind.SYMBOLIC, Kind.EXACT, Kind.ENCLOSED)


class Failed(AssertionError):
    """A step does not hold: the message names what should have vanished, or have been of one sign, and is not."""


@dataclass(frozen=True)
class Step:
    """`statement` by `kind`. `check` returns what it looked at in a few words, or raises Failed.

    `scope` lists the dimensions or instances that EXACT and ENCLOSED steps look at; SYMBOLIC steps have none. A step
    that `confirms` is a second look at something that the other steps prove: the proof does not rest on it.
    """

    name: str
    kind: Kind
    statement: str
    check: Check | None = None
    scope: str = ""
    source: str = ""
    confirms: bool = False

    def __post_init__(self) -> None:
        if (self.kind in CHECKED) != (self.check is not None):
            raise ValueError(f"step {self.name!r}: a step has a check exactly if its kind is one of {CHECKED}")
        if self.kind is Kind.CITED and not self.source:
            raise ValueError(f"step {self.name!r} cites nothing")
        if self.kind is Kind.SYMBOLIC and self.scope:
            raise ValueError(f"step {self.name!r} is for all values of its symbols and has no other scope")

    @property
    def limits(self) -> bool:
        """The proof rests on this step, which was looked at on a few cases only."""
        return bool(self.scope) and not self.confirms


def joined(*steps: Step) -> tuple[Step, ...]:
    """The steps in this order, each once: theorems share lemmas."""
    return tuple(dict.fromkeys(steps))


def symbolic(name: str, statement: str, check: Check) -> Step:
    return Step(name, Kind.SYMBOLIC, statement, check)


def exact(name: str, statement: str, check: Check, scope: str, confirms: bool = True) -> Step:
    return Step(name, Kind.EXACT, statement, check, scope, confirms=confirms)


def enclosed(name: str, statement: str, check: Check, scope: str, confirms: bool = True) -> Step:
    return Step(name, Kind.ENCLOSED, statement, check, scope, confirms=confirms)


def cited(name: str, statement: str, source: str) -> Step:
    return Step(name, Kind.CITED, statement, source=source)


def argued(name: str, statement: str) -> Step:
    return Step(name, Kind.ARGUED, statement)
