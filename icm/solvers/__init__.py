"""Solvers of the isotropic curvature program, each answer with its certificate."""

from icm.solvers.compare import Comparison, Summary, compare, summarise
from icm.solvers.enclosure import Enclosure, Interval, enclose
from icm.solvers.flat import Orthogonality, Reason
from icm.solvers.orthogonal import OrthogonalRegion, orthogonal_bounds, orthogonal_region, orthogonal_threshold
from icm.solvers.solution import Solution, Status
from icm.solvers.solve import Method, solve, solve_program

__all__ = [
    "Comparison",
    "Enclosure",
    "Interval",
    "Method",
    "OrthogonalRegion",
    "Orthogonality",
    "Reason",
    "Solution",
    "Status",
    "Summary",
    "compare",
    "enclose",
    "orthogonal_bounds",
    "orthogonal_region",
    "orthogonal_threshold",
    "solve",
    "solve_program",
    "summarise",
]
