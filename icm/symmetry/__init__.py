"""Global curvature: what the symmetry of a network leaves of its Hessian and of its gradients' covariance."""

from icm.symmetry.commutant import basis
from icm.symmetry.correlation import agreement, correlation, factors_of_each
from icm.symmetry.ensembles import Data, averaged, gradients, hessian, initial, losses, teacher_student
from icm.symmetry.factors import factors, named
from icm.symmetry.invariance import departure, equivariance, margin, scores
from icm.symmetry.network import Network
from icm.symmetry.structure import Structured, outer, project

__all__ = [
    "Data",
    "Network",
    "Structured",
    "agreement",
    "averaged",
    "basis",
    "correlation",
    "departure",
    "equivariance",
    "factors",
    "factors_of_each",
    "gradients",
    "hessian",
    "initial",
    "losses",
    "margin",
    "named",
    "outer",
    "project",
    "scores",
    "teacher_student",
]
