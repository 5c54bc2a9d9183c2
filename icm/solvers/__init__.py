"""Solvers of the isotropic curvature program, each answer with its certificate."""

from icm.solvers.compare import Comparison, Shape, compare, shape
from icm.solvers.solution import Solution, Status
from icm.solvers.solve import Method, solve, solve_program

__all__ = ["Comparison", "Method", "Shape", "Solution", "Status", "compare", "shape", "solve", "solve_program"]
