"""Texts and norms are each other's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import icm.norms as norms
from icm.errors import GrammarError, InputError
from icm.norms import Norm, as_norm, parse

NAMED: dict[str, Norm] = {
    "frobenius": norms.Frobenius(),
    "rms": norms.RMS(),
    "max-entry": norms.MaxEntry(),
    "entry-sum": norms.EntrySum(),
    "spectral": norms.Spectral(),
    "spectral(products)": norms.Spectral("products"),
    "spectral(products, steps=4, precision=bf16)": norms.Spectral("products", 4, "bf16"),
    "nuclear": norms.Nuclear(),
    "schatten(3)": norms.Schatten(3.0),
    "schatten(inf)": norms.Schatten(math.inf),
    "ky-fan(2)": norms.KyFan(2),
    "column(2)": norms.ColumnNorm(2.0),
    "row(1)": norms.RowNorm(1.0),
    "row(inf)": norms.RowNorm(math.inf),
    "rms-to-rms": norms.RMSToRMS(),
    "rms-to-rms(products, precision=fp32)": norms.RMSToRMS("products", precision="fp32"),
    "one-to-rms": norms.OneToRMS(),
    "induced(inf, 1)": norms.Induced(math.inf, 1.0),
    "luxemburg(r^3)": norms.FromCurvature("r^3"),
}


@pytest.mark.parametrize(("text", "norm"), NAMED.items())
def test_there_and_back(text: str, norm: Norm) -> None:
    assert parse(text) == norm
    assert str(norm) == text
    name, *rest = text.split("(")
    assert parse(f" {name.upper()} " + "".join(f"( {part}" for part in rest)) == norm
    assert as_norm(text) == as_norm(norm) == norm


@given(p=st.floats(1, 1e300))
def test_every_exponent_survives(p: float) -> None:
    for norm in (norms.Schatten(p), norms.ColumnNorm(p), norms.RowNorm(p), norms.Induced(p, 2.0)):
        assert parse(str(norm)) == norm


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no norm"),
        ("specral", "norms: frobenius"),
        ("schatten", r"takes 1, \(p\)"),
        ("schatten()", "takes 1"),
        ("schatten(1, 2)", "2 arguments"),
        ("schatten(x)", "'x' is no number"),
        ("schatten(-1)", "p=-1"),
        ("ky-fan(1.5)", "no whole number"),
        ("ky-fan(inf)", "no whole number"),
        ("nuclear(2)", "takes none"),
        ("spectral(fast)", "'fast' is none of"),
        ("spectral(steps=4)", "products"),
        ("column(2) + row(2)", "names no norm|no number"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text)


def test_a_false_curvature_is_pointed_at() -> None:
    with pytest.raises(GrammarError):
        parse("luxemburg(q^3)")
