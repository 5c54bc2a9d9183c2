"""Text ↔ curvature: `0.5*r^2 + 5*kink(1) + wall(3)`; `str(H)` writes what `parse` reads.

H     = term { "+" term }
term  = [ number "*" ] shape
shape = "r" [ "^" number ] | name "(" number { "," number } ")"
"""

from __future__ import annotations

import re
from collections.abc import Callable

from icm.curvature.exponential import Exponential
from icm.curvature.kink import Kink
from icm.curvature.power import Power
from icm.curvature.shape import Curvature
from icm.curvature.sum import add
from icm.curvature.tabulated import Tabulated
from icm.curvature.wall import Wall
from icm.errors import CurvatureError, GrammarError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]+)|(?P<mark>\*\*|[-+*^(),]))"
)
_PAIRS = 0  # stands for any even number ≥ 2 of arguments
_SHAPES: dict[str, tuple[int, Callable[..., Curvature], str]] = {
    "exp": (1, Exponential, "exp(rate) = e^(rate·r) − 1 − rate·r"),
    "kink": (1, Kink, "kink(radius) = max(0, r − radius)"),
    "wall": (1, Wall, "wall(radius) = 0 up to the radius, ∞ beyond"),
    "tabulated": (_PAIRS, lambda *x: Tabulated(x[::2], x[1::2]), "tabulated(r1, H1, r2, H2, …) through the points"),
}
HELP = "shapes: r, r^p (p ≥ 1), " + ", ".join(text for _, _, text in _SHAPES.values()) + "; join them with + and *"


def parse(text: str) -> Curvature:
    """The curvature that `text` describes, e.g. `parse("0.5*r^2 + 5*kink(1) + wall(3)")`; `parse(str(H))` equals H.

    Raises GrammarError, pointing at the place, for text outside the grammar, and CurvatureError for shapes that
    are no curvature (an exponent below 1, a negative multiple, points that no convex function meets).
    """
    return _Parser(text).parse()


def as_curvature(H: Curvature | str) -> Curvature:
    """`H` itself, or the curvature its text describes: wherever an H is taken, such a string is too."""
    if isinstance(H, Curvature):
        return H
    if isinstance(H, str):
        return parse(H)
    raise CurvatureError(
        f"H={H!r} is a {type(H).__name__}; give a curvature such as icm.Power(3.0) or a text such as 'r^3'"
    )


class _Parser:
    def __init__(self, text: str):
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, position
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                start = position + len(text[position:]) - len(text[position:].lstrip())
                raise self.error(f"unexpected {text[start]!r}", start)
            kind = str(match.lastgroup)
            self.tokens.append((kind, match.group(kind), match.start(kind)))
            position = match.end()
        self.tokens.append(("end", "", len(text)))
        self.next = 0

    def parse(self) -> Curvature:
        total = self.term()
        while self.accept("+"):
            total = add(total, self.term())
        kind, text, at = self.tokens[self.next]
        if kind != "end":
            raise self.error(f"unexpected {text!r}", at)
        return total

    def term(self) -> Curvature:
        kind, text, at = self.tokens[self.next]
        if text == "-":
            raise self.error("a negative multiple is not convex: only multiples ≥ 0 can be added", at)
        factor = 1.0
        if kind == "number":
            factor = self.number()
            if not self.accept("*"):
                raise self.error("a number must be followed by '*' and a shape (H(0) = 0: no constants)", at)
        shape = self.shape()
        return shape if factor == 1 else factor * shape

    def shape(self) -> Curvature:
        kind, name, at = self.take()
        if kind != "name":
            raise self.error(f"expected a shape, found {name!r}" if name else "expected a shape, found the end", at)
        if name == "r":
            return Power(self.number()) if self.accept("^") or self.accept("**") else Power(1.0)
        if name not in _SHAPES:
            raise self.error(f"unknown shape {name!r}", at)
        count, build, _ = _SHAPES[name]
        self.expect("(")
        arguments = [self.number()]
        while self.accept(","):
            arguments.append(self.number())
        self.expect(")")
        if count == _PAIRS:
            if len(arguments) % 2:
                raise self.error(f"{name} takes pairs of radius and value, not {len(arguments)} number(s)", at)
        elif len(arguments) != count:
            raise self.error(f"{name} takes {count} number(s), not {len(arguments)}", at)
        return build(*arguments)

    def number(self) -> float:
        sign = -1.0 if self.accept("-") else 1.0
        kind, text, at = self.take()
        if kind != "number":
            raise self.error(f"expected a number, found {text!r}" if text else "expected a number, found the end", at)
        return sign * float(text)

    def take(self) -> tuple[str, str, int]:
        token = self.tokens[self.next]
        self.next += token[0] != "end"
        return token

    def accept(self, mark: str) -> bool:
        found = self.tokens[self.next][1] == mark
        self.next += found
        return found

    def expect(self, mark: str) -> None:
        _, text, at = self.tokens[self.next]
        if not self.accept(mark):
            raise self.error(f"expected {mark!r}, found {text!r}" if text else f"expected {mark!r}", at)

    def error(self, reason: str, position: int) -> GrammarError:
        return GrammarError(f"{reason}\n  {self.text}\n  {' ' * position}^\n  {HELP}")
