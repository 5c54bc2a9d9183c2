"""Optimizers for torch that take the solved update, and the sorting of a model's parameters for them."""

from icm.optim.groups import groups
from icm.optim.layout import Layout
from icm.optim.scaling import Scaling
from icm.optim.solved import ICM
from icm.optim.table import table

__all__ = ["ICM", "Layout", "Scaling", "groups", "table"]
