"""A composition is what its factors say, one after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from icm.errors import InputError
from icm.maps import Composition

coefficients = st.lists(st.floats(-2, 2), min_size=1, max_size=4).map(tuple)
compositions = st.lists(coefficients, min_size=1, max_size=3).map(tuple).map(Composition)
X = torch.linspace(-1, 1, 41, dtype=torch.float64)


def polynomial(p: Composition) -> Polynomial:
    """p multiplied out, by NumPy."""
    out = Polynomial([0.0, 1.0])
    for factor in p.factors:
        odd = [0.0] * (2 * len(factor))
        odd[1::2] = factor
        out = Polynomial(odd)(out)
    return out


@given(p=compositions)
def test_values_and_slopes_are_those_of_the_polynomial_multiplied_out(p: Composition) -> None:
    full = polynomial(p)
    size = np.abs(Polynomial(np.abs(full.coef))(1.0)) + 1e-300
    assert float((p(X) - torch.from_numpy(full(X.numpy()))).abs().max()) <= 1e-12 * size
    slope = full.deriv()
    size = np.abs(Polynomial(np.abs(slope.coef))(1.0)) + 1e-300
    assert float((p.slope(X) - torch.from_numpy(slope(X.numpy()))).abs().max()) <= 1e-12 * size
    assert math.isclose(p.slope_at_zero, slope(0.0), rel_tol=1e-12, abs_tol=1e-300)


@given(p=compositions, inside=st.floats(0.1, 2), outside=st.floats(0.1, 2))
def test_rescaled(p: Composition, inside: float, outside: float) -> None:
    want = outside * polynomial(p)(inside * X.numpy())
    size = Polynomial(np.abs(polynomial(p).coef))(inside) * outside + 1e-300
    assert abs(p.rescaled(inside, outside)(X).numpy() - want).max() <= 1e-11 * size


def test_then_applies_the_other_last() -> None:
    p, q = Composition(((1.5, -0.5),)), Composition(((2.0,), (0.5, 0.1)))
    assert torch.equal(p.then(q)(X), q(p(X)))
    assert len(p.then(q)) == 3
    assert p.then(q).degrees == (3, 1, 3)


def test_compositions_are_values() -> None:
    assert Composition(((1, 2),)) == Composition(((1.0, 2.0),))
    assert len({Composition(((1, 2),)), Composition(((1.0, 2.0),))}) == 1


@pytest.mark.parametrize("factors", [(), ((),), ((1.0, math.nan),), ((math.inf,),)])
def test_refusals(factors: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(InputError, match="factors="):
        Composition(factors)
