"""Pictures of solutions, of the law of ‖Qζ‖ and of where orthogonal updates are optimal. Figures are built directly,
without pyplot and its global state."""

from icm.plots.law import plot_law
from icm.plots.region import plot_region
from icm.plots.spectra import GRADIENT, POLAR, plot_overview, plot_spectra

__all__ = ["GRADIENT", "POLAR", "plot_law", "plot_overview", "plot_region", "plot_spectra"]
