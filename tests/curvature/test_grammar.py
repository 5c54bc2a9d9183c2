"""Text and curvature: what is read, what is written, and where a fault is pointed at."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icm import Exponential, Power, parse
from icm.curvature import Curvature, Kink, Tabulated, Wall
from icm.errors import CurvatureError, GrammarError

positive = st.floats(1e-300, 1e300)
powers = st.builds(Power, st.floats(1, 1e3), st.one_of(positive, st.just(1.0), st.just(0.0)))
exponentials = st.builds(Exponential, st.floats(1e-100, 1e100), positive)
kinks = st.builds(Kink, positive, st.one_of(positive, st.just(0.0)))
walls = st.builds(Wall, positive)
# Built in the test: beartype draws random list entries to check, which strategies must not.
tables = st.tuples(st.lists(st.floats(0.0, 1e3), min_size=1, max_size=5), st.floats(1e-9, 1e9))
terms = st.lists(st.one_of(powers, exponentials, kinks, walls, tables), min_size=1, max_size=4)


def table(rises: list[float], unit: float) -> Tabulated:
    """At whole multiples of `unit`, values whose second differences are `rises`."""
    return Tabulated([unit * i for i in range(1, len(rises) + 1)], list(accumulate(accumulate(rises))))


@settings(max_examples=200)
@given(terms=terms)
def test_round_trip(terms: list[Curvature | tuple[list[float], float]]) -> None:
    """parse(str(H)) == H, bit for bit, for random sums."""
    first, *rest = (table(*term) if isinstance(term, tuple) else term for term in terms)
    H = sum(rest, start=first)
    assert parse(str(H)) == H


@pytest.mark.parametrize(
    ("text", "H"),
    [
        ("r", Power(1.0)),
        ("r^2", Power(2.0)),
        ("r**2", Power(2.0)),
        ("  0.5 *  r ^ 2.5 ", Power(2.5, 0.5)),
        ("1e-3*r^2E0", Power(2.0, 1e-3)),
        (".5*r^2.", Power(2.0, 0.5)),
        ("2.5e+2*r", Power(1.0, 250.0)),
        ("exp(2)", Exponential(2.0)),
        ("3*exp( .5 )", Exponential(0.5, 3.0)),
        ("r^2+r^3", Power(2.0) + Power(3.0)),
        ("r^2 + exp(1) + 2*r^2", Power(2.0, 3.0) + Exponential(1.0)),
        ("0*r^2", Power(2.0, 0.0)),
        ("r^2\n+\tr^3", Power(2.0) + Power(3.0)),
        ("kink(1)", Kink(1.0)),
        ("5*kink(.5)", Kink(0.5, 5.0)),
        ("0*kink(1)", Kink(1.0, 0.0)),
        ("kink(1) + 2*kink(1)", Kink(1.0, 3.0)),
        ("wall(3)", Wall(3.0)),
        ("0*wall(3)", Wall(3.0)),
        ("wall(3) + wall(2)", Wall(2.0)),
        ("0.5*r^2 + 5*kink(1) + wall(3)", Power(2.0, 0.5) + Kink(1.0, 5.0) + Wall(3.0)),
        ("tabulated(1, 1)", Tabulated([1.0], [1.0])),
        ("2*tabulated(2, 4, 1, 1) + r", Tabulated([1.0, 2.0], [2.0, 8.0]) + Power(1.0)),
    ],
)
def test_reads(text: str, H: Curvature) -> None:
    """Spaces, both powers, decimal and scientific numbers, and like terms."""
    assert parse(text) == H


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 0, "expected a shape"),
        ("   ", 3, "expected a shape"),
        ("r^", 2, "expected a number"),
        ("r^r", 2, "expected a number"),
        ("3", 0, "followed by"),
        ("r^2 + 1", 6, "followed by"),
        ("r^2 +", 5, "expected a shape"),
        ("r^2 r^3", 4, "unexpected 'r'"),
        ("r^2 & r", 4, "unexpected '&'"),
        ("2*q^2", 2, "unknown shape 'q'"),
        ("r^2 + sinh(1)", 6, "unknown shape 'sinh'"),
        ("-r^2", 0, "negative"),
        ("r^2 + -3*r", 6, "negative"),
        ("r^2 - r", 4, "unexpected '-'"),
        ("exp", 3, "expected '\\('"),
        ("exp(", 4, "expected a number"),
        ("exp(1", 5, "expected '\\)'"),
        ("exp(1, 2)", 0, "takes 1"),
        ("exp()", 4, "expected a number"),
        ("r + kink(1, 2)", 4, "kink takes 1 number\\(s\\), not 2"),
        ("wall(1, 2)", 0, "wall takes 1"),
        ("wall", 4, "expected '\\('"),
        ("kink(r)", 5, "expected a number, found 'r'"),
        ("r + tabulated(1)", 4, "pairs of radius and value, not 1"),
        ("tabulated(1, 1, 2)", 0, "pairs of radius and value, not 3"),
        ("tabulated()", 10, "expected a number"),
        ("tabulated(1, 1", 14, "expected '\\)'"),
        ("2*3*r", 2, "expected a shape"),
        ("2**r", 0, "followed by"),
        ("(r^2)", 0, "expected a shape"),
    ],
)
def test_points_at_the_place(text: str, column: int, words: str) -> None:
    """The message shows the text with a caret under the fault, the reason above and the shapes below."""
    with pytest.raises(GrammarError, match=words) as caught:
        parse(text)
    lines = str(caught.value).split("\n")
    assert lines[1] == "  " + text
    assert lines[2] == "  " + " " * column + "^"
    assert all(shape in lines[3] for shape in ("exp(rate)", "kink(radius)", "wall(radius)", "tabulated(r1, H1"))


@pytest.mark.parametrize(
    "text",
    [
        *("r^0.5", "r^-2", "exp(0)", "exp(-1)", "2*r + r^.9", "1e999*r"),
        *("kink(0)", "kink(-1)", "wall(0)", "tabulated(1, 2, 2, 3)", "tabulated(-1, 2)"),
    ],
)
def test_shapes_that_are_no_curvature(text: str) -> None:
    """A text inside the grammar whose shape is not convex is a CurvatureError like the shape itself."""
    with pytest.raises(CurvatureError):
        parse(text)


def test_writes() -> None:
    """The text of a sum with a kink, a wall and a table, as it was read."""
    for text in ("0.5*r^2 + 5*kink(1) + wall(3)", "0*kink(2.5)", "tabulated(1, 0.5, 2, 1.5) + wall(1e-07)"):
        assert str(parse(text)) == text
