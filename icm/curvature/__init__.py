"""What the loss does along an update: curvature functions H and their text form."""

from icm.curvature.custom import Custom
from icm.curvature.exponential import Exponential
from icm.curvature.grammar import as_curvature, parse
from icm.curvature.kink import Kink
from icm.curvature.power import Power
from icm.curvature.shape import Curvature, Verdict
from icm.curvature.sum import Sum
from icm.curvature.tabulated import Tabulated
from icm.curvature.wall import Wall

__all__ = [
    "Curvature",
    "Custom",
    "Exponential",
    "Kink",
    "Power",
    "Sum",
    "Tabulated",
    "Verdict",
    "Wall",
    "as_curvature",
    "parse",
]
