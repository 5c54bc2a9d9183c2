"""The isotropic curvature program and its reduction to singular values."""

from icm.program.isotropic import Program
from icm.program.spectral import SpectralProgram

__all__ = ["Program", "SpectralProgram"]
