"""Spectral maps U φ(g) Vᵀ: exactly, and by matrix products alone."""

from icm.maps.certificate import Certificate, certify, is_increasing
from icm.maps.compiled import Compiled
from icm.maps.compiler import degrees_for, fit, from_solution, polar
from icm.maps.composition import Composition
from icm.maps.decomposition import exact
from icm.maps.error import Error
from icm.maps.greedy import best_error, best_polar, steps_needed
from icm.maps.increasing import best_increasing
from icm.maps.inverse_root import inverse_root
from icm.maps.iterations import NAMES, known, source
from icm.maps.map import PolynomialMap
from icm.maps.norm_bounds import bound, lower_bound
from icm.maps.planning import Plan, plan
from icm.maps.polar_factor import orthogonalize
from icm.maps.polynomial import apply, apply_coefficients
from icm.maps.products import solve_products
from icm.maps.remez import best_odd
from icm.maps.rounding import expected_rounding
from icm.maps.routes import Route
from icm.maps.scalar import ScalarMap, sign
from icm.maps.schedule import Schedule
from icm.maps.statistics import Spectrum, spectrum

__all__ = [
    "NAMES",
    "Certificate",
    "Compiled",
    "Composition",
    "Error",
    "Plan",
    "PolynomialMap",
    "Route",
    "ScalarMap",
    "Schedule",
    "Spectrum",
    "apply",
    "apply_coefficients",
    "best_error",
    "best_increasing",
    "best_odd",
    "best_polar",
    "bound",
    "certify",
    "degrees_for",
    "exact",
    "expected_rounding",
    "fit",
    "from_solution",
    "inverse_root",
    "is_increasing",
    "known",
    "lower_bound",
    "orthogonalize",
    "plan",
    "polar",
    "sign",
    "solve_products",
    "source",
    "spectrum",
    "steps_needed",
]
