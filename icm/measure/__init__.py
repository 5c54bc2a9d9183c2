"""What a network itself says about the model: H(r) of its layers, and second moments of their inputs."""

from icm.measure.measurement import Exponent, Measurement, load, save
from icm.measure.moments import InputMoments
from icm.measure.remainder import curvature
from icm.measure.taken import Step, Taken, steps

__all__ = ["Exponent", "InputMoments", "Measurement", "Step", "Taken", "curvature", "load", "save", "steps"]
