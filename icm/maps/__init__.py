"""Spectral maps U φ(g) Vᵀ: exactly, and by matrix products alone."""

from icm.maps.composition import Composition
from icm.maps.scalar import ScalarMap, from_solution, sign

__all__ = ["Composition", "ScalarMap", "from_solution", "sign"]
