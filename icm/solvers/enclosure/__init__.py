"""Proof in ball arithmetic: rigorous bounds on F(Q), min F and the optimum's singular values."""

from icm.solvers.enclosure.enclose import Enclosure, Interval, enclose

__all__ = ["Enclosure", "Interval", "enclose"]
