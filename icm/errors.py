"""Every exception of the library.

Each message names the offending value, says why it cannot be used, and what to do instead. All derive from
ValueError, TypeError or RuntimeError, so callers that know nothing of icm can still catch them.
"""

from __future__ import annotations

from typing import Any


class InputError(ValueError):
    """A matrix, spectrum or option whose value cannot be used."""


class DtypeError(TypeError):
    """An array of a kind that has no place here (complex, boolean, text)."""


class CurvatureError(ValueError):
    """A curvature that is not convex, not nondecreasing or not zero at zero; `radius` says where, if known."""

    def __init__(self, message: str, radius: float | None = None):
        super().__init__(message)
        self.radius = radius


class GrammarError(CurvatureError):
    """A text that is not a curvature; the message points at the place."""


class FileError(ValueError):
    """A file that cannot be read as a matrix."""


class MissingPackageError(RuntimeError):
    """An optional package is needed for what was asked."""


class SolveError(RuntimeError):
    """A solve that missed its tolerance; `solution` holds the best point found, with its gap."""

    def __init__(self, message: str, solution: Any = None):
        super().__init__(message)
        self.solution = solution
