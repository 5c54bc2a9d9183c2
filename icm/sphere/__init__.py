"""The law of ‖Qζ‖ for ζ uniform on the unit sphere, and exact expectations E H(‖Qζ‖) under it, from the singular values
of Q alone."""

from icm.sphere.distribution import Law, law, tail
from icm.sphere.expectation import Expectation, expect, mean, power_error, slopes, spectrum, uses_rule
from icm.sphere.pieces import hinge_error

__all__ = [
    "Expectation",
    "Law",
    "expect",
    "hinge_error",
    "law",
    "mean",
    "power_error",
    "slopes",
    "spectrum",
    "tail",
    "uses_rule",
]
