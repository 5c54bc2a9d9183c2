"""Pictures of solutions, of the law of ‖Qζ‖, of where orthogonal updates are optimal and of measured curvatures.

Figures are built directly, without pyplot and its global state.
"""

from icm.plots.curvature import plot_change, plot_curvatures
from icm.plots.law import plot_law
from icm.plots.norms import plot_exponents, plot_monitor
from icm.plots.region import plot_region
from icm.plots.spectra import GRADIENT, POLAR, plot_overview, plot_spectra

__all__ = [
    "GRADIENT",
    "POLAR",
    "plot_change",
    "plot_curvatures",
    "plot_exponents",
    "plot_law",
    "plot_monitor",
    "plot_overview",
    "plot_region",
    "plot_spectra",
]
