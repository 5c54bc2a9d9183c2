"""What the checks ask of symbolic algebra: that an expression vanishes, or has one sign for all values of its symbols.

A sign is only ever read off a form in which it is plain, a sum of products of symbols that have a sign and of squares:
an inequality is brought there by slack symbols, b = a + d with d ≥ 0. So a sign that is found is proven, and one that
is not found fails.
"""

from __future__ import annotations

from typing import Any

from proofs_check.step import Failed


def reals(names: str) -> tuple[Any, ...]:
    """Real symbols, names separated by spaces."""
    return _symbols(names, real=True)


def nonnegatives(names: str) -> tuple[Any, ...]:
    """Symbols ≥ 0."""
    return _symbols(names, nonnegative=True)


def positives(names: str) -> tuple[Any, ...]:
    """Symbols > 0."""
    return _symbols(names, positive=True)


def counts(names: str) -> tuple[Any, ...]:
    """Symbols for integers ≥ 0."""
    return _symbols(names, integer=True, nonnegative=True)


def zero(expression: Any, what: str) -> str:
    """`expression` vanishes for all values of its symbols, or Failed; returns `what`."""
    import sympy as sp

    remainder = sp.expand(expression)
    for simpler in (sp.cancel, sp.simplify, sp.gammasimp, sp.expand_func, sp.simplify):
        if remainder == 0:
            return what
        remainder = simpler(remainder)
    if remainder != 0:
        raise Failed(f"{what}: {remainder} should vanish")
    return what


def same(left: Any, right: Any, what: str) -> str:
    """left = right for all values of the symbols."""
    return zero(left - right, what)


def nonnegative(expression: Any, what: str) -> str:
    """`expression` ≥ 0 for all values of its symbols, or Failed; returns `what`."""
    if not any(form.is_nonnegative for form in _forms(expression)):
        raise Failed(f"{what}: nothing shows that {expression} ≥ 0")
    return what


def positive(expression: Any, what: str) -> str:
    """`expression` > 0 for all values of its symbols, or Failed; returns `what`."""
    if not any(form.is_positive for form in _forms(expression)):
        raise Failed(f"{what}: nothing shows that {expression} > 0")
    return what


def truth(holds: bool, what: str) -> str:
    """An exact comparison, or Failed; returns `what`."""
    if not holds:
        raise Failed(f"{what}: does not hold")
    return what


def _forms(expression: Any) -> list[Any]:
    import sympy as sp

    expression = sp.sympify(expression)
    together = sp.together(sp.expand(expression))
    top, bottom = sp.fraction(together)
    return [expression, sp.expand(expression), sp.factor(expression), sp.expand(top) / bottom, sp.cancel(expression)]


def _symbols(names: str, **assumptions: bool) -> tuple[Any, ...]:
    import sympy as sp

    return tuple(sp.Symbol(name, **assumptions) for name in names.split())
