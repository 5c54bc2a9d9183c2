"""Exact expectations E H(‖Qζ‖) for ζ uniform on the unit sphere, as functions of the singular values of Q."""

from icm.sphere.expectation import Expectation, expect, mean, power_error, slopes, spectrum, uses_rule

__all__ = ["Expectation", "expect", "mean", "power_error", "slopes", "spectrum", "uses_rule"]
