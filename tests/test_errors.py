"""Every exception is one of Python's own kinds, carries what it promises, and says what to do."""

from __future__ import annotations

import inspect
import pickle

import pytest

import icm
from icm import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]


def test_there_are_some() -> None:
    """The module holds the exceptions that this file speaks of."""
    assert {errors.InputError, errors.CurvatureError, errors.SolveError, errors.DtypeError} <= set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_kinds(kind: type[Exception]) -> None:
    """All derive from ValueError, TypeError or RuntimeError, have a docstring, and survive pickling."""
    assert issubclass(kind, (ValueError, TypeError, RuntimeError))
    assert kind.__doc__
    again = pickle.loads(pickle.dumps(kind("what is wrong; what to do")))
    assert type(again) is kind
    assert str(again) == "what is wrong; what to do"


def test_what_they_carry() -> None:
    """A CurvatureError has a radius, a SolveError a solution, None where unknown."""
    assert errors.CurvatureError("no").radius is None
    assert errors.CurvatureError("no", radius=2.0).radius == 2.0
    assert errors.GrammarError("no").radius is None
    assert errors.SolveError("no").solution is None
    assert errors.SolveError("no", solution=3).solution == 3


def test_callers_need_not_know_icm() -> None:
    """A bad value is a ValueError, a bad kind a TypeError, a failed solve a RuntimeError."""
    with pytest.raises(ValueError, match="r\\^p"):
        icm.Power(0.5)
    with pytest.raises(ValueError, match="index"):
        icm.solve([[float("nan")]], "r^2")
    with pytest.raises(TypeError, match="complex"):
        icm.solve([[1j]], "r^2")
    with pytest.raises(RuntimeError, match="relative gap"):
        icm.solve([[1.0, 2.0], [3.0, 4.0]], "r^7", max_iterations=1, tol=1e-14)
