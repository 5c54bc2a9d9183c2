"""What the loss does along an update: curvature functions H and their text form."""

from icm.curvature.custom import Custom
from icm.curvature.exponential import Exponential
from icm.curvature.grammar import as_curvature, parse
from icm.curvature.power import Power
from icm.curvature.shape import Curvature, Sum, Verdict

__all__ = ["Curvature", "Custom", "Exponential", "Power", "Sum", "Verdict", "as_curvature", "parse"]
