"""Optimizers for torch that take the solved update, or steepest descent in a norm, and the sorting of a model's
parameters for them."""

from icm.optim.chains import chains
from icm.optim.escalator import Escalator
from icm.optim.groups import groups
from icm.optim.layout import Layout
from icm.optim.monitor import Monitor
from icm.optim.norm_roles import role_norms
from icm.optim.readings import Reading
from icm.optim.scaling import Scaling
from icm.optim.solved import ICM
from icm.optim.stacks import Column, KernelPositions
from icm.optim.steepest import SteepestDescent
from icm.optim.symo import SymO
from icm.optim.table import table
from icm.optim.tuned import Tuned

__all__ = [
    "ICM",
    "Column",
    "Escalator",
    "KernelPositions",
    "Layout",
    "Monitor",
    "Reading",
    "Scaling",
    "SteepestDescent",
    "SymO",
    "Tuned",
    "chains",
    "groups",
    "role_norms",
    "table",
]
