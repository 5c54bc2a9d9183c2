"""Norms of matrices: values, duals, and the steepest descent each stands for."""

from icm.norms.columns import ColumnNorm, OneToRMS, RowNorm
from icm.norms.conjugate import Preconditioned
from icm.norms.describe import Described, best_schatten, effective_rank, stable_rank
from icm.norms.entries import RMS, EntrySum, Frobenius, MaxEntry
from icm.norms.from_curvature import FromCurvature
from icm.norms.induced import Induced
from icm.norms.ky_fan import KyFan
from icm.norms.modular import Modular
from icm.norms.names import as_norm, parse
from icm.norms.norm import Norm
from icm.norms.schatten import Nuclear, RMSToRMS, Schatten, Spectral

__all__ = [
    "RMS",
    "ColumnNorm",
    "Described",
    "EntrySum",
    "Frobenius",
    "FromCurvature",
    "Induced",
    "KyFan",
    "MaxEntry",
    "Modular",
    "Norm",
    "Nuclear",
    "OneToRMS",
    "Preconditioned",
    "RMSToRMS",
    "RowNorm",
    "Schatten",
    "Spectral",
    "as_norm",
    "best_schatten",
    "effective_rank",
    "parse",
    "stable_rank",
]
