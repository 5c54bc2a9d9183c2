"""Solvers of the isotropic curvature program, each answer with its certificate."""

from icm.solvers.compare import Comparison, Summary, compare, summarise
from icm.solvers.solution import Solution, Status
from icm.solvers.solve import Method, solve, solve_program

__all__ = ["Comparison", "Method", "Solution", "Status", "Summary", "compare", "solve", "solve_program", "summarise"]
