"""What a network itself says about the model: second moments of the inputs of its layers."""

from icm.measure.moments import InputMoments

__all__ = ["InputMoments"]
