"""The isotropic curvature model, solved exactly: min_Q −Tr(Q Gᵀ) + E_ζ H(‖Qζ‖), with a certificate.

H = icm.Power(3.0)
solution = icm.solve(G, H)
solution.Q, solution.value, solution.gap
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from icm import errors, program, solvers, sphere
from icm.curvature import Curvature, Custom, Exponential, Kink, Power, Tabulated, Wall, parse
from icm.program import Program
from icm.solvers import (
    Comparison,
    Enclosure,
    Orthogonality,
    OrthogonalRegion,
    Reason,
    Solution,
    Status,
    compare,
    enclose,
    orthogonal_bounds,
    orthogonal_region,
    orthogonal_threshold,
    solve,
)

if TYPE_CHECKING:
    from icm import maps, measure, norms, optim, symmetry, theory

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Curvature",
    "Custom",
    "Enclosure",
    "Exponential",
    "Kink",
    "OrthogonalRegion",
    "Orthogonality",
    "Power",
    "Program",
    "Reason",
    "Solution",
    "Status",
    "Tabulated",
    "Wall",
    "compare",
    "enclose",
    "errors",
    "maps",
    "measure",
    "norms",
    "optim",
    "orthogonal_bounds",
    "orthogonal_region",
    "orthogonal_threshold",
    "parse",
    "program",
    "solve",
    "solvers",
    "sphere",
    "symmetry",
    "theory",
]


def __getattr__(name: str) -> ModuleType:
    """Rooms that not every user enters, loaded when first named."""
    if name in ("maps", "measure", "norms", "optim", "symmetry", "theory"):
        return importlib.import_module(f"icm.{name}")
    raise AttributeError(f"module 'icm' has no attribute {name!r}")
