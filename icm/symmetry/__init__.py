"""Global curvature: what the symmetry of a network leaves of its Hessian and of its gradients' covariance."""

from icm.symmetry.commutant import basis
from icm.symmetry.network import Network
from icm.symmetry.structure import Structured, outer, project

__all__ = [
    "Network",
    "Structured",
    "basis",
    "outer",
    "project",
]
