"""Instances as hypothesis draws them: shapes, spectra with ties, zeros and many decades, curvatures with their text."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from icm.curvature import Curvature, Exponential, Kink, Power, Wall
from icm.theory.instances import Instances, diagonal, rotate

LARGEST = 6


def _figures(low: float, high: float) -> st.SearchStrategy[float]:
    """Floats between the two with few digits, so that H has a short text."""
    return st.floats(low, high, allow_nan=False).map(lambda x: float(f"{x:.4g}"))


scales = st.one_of(st.just(1.0), _figures(-3, 3).map(lambda x: float(f"{10**x:.4g}")))


def powers(low: float, high: float) -> st.SearchStrategy[Curvature]:
    """c r^p, low ≤ p ≤ high."""
    return st.builds(Power, st.one_of(st.sampled_from([low, high]), _figures(low, high)), scales)


super_quadratic: st.SearchStrategy[Curvature] = st.one_of(
    powers(2.0, 8.0),
    st.builds(lambda a, b: a + b, powers(2.0, 2.0), powers(2.0, 6.0)),
    st.builds(Exponential, _figures(0.1, 3.0), scales),
)
sub_quadratic: st.SearchStrategy[Curvature] = st.one_of(
    powers(1.05, 2.0), st.builds(lambda a, b: a + b, powers(1.05, 2.0), powers(1.05, 2.0))
)
smooth: st.SearchStrategy[Curvature] = st.one_of(
    super_quadratic, sub_quadratic, st.builds(lambda a, b: a + b, powers(1.1, 1.9), powers(2.1, 5.0))
)
kinked: st.SearchStrategy[Curvature] = st.builds(
    lambda a, r, j: a + Kink(r, j), powers(2.0, 2.0), _figures(0.3, 3.0), _figures(0.1, 100.0)
)
walled: st.SearchStrategy[Curvature] = st.one_of(
    st.builds(Wall, _figures(0.3, 3.0)), st.builds(lambda a, r: a + Wall(r), powers(1.5, 4.0), _figures(0.3, 3.0))
)


def spectra(k: int, positive: bool = False) -> st.SearchStrategy[list[float]]:
    """k singular values with largest near 1: ties, zeros unless `positive`, and up to eight decades."""
    value = _figures(-8, 0).map(lambda x: 10**x) | _figures(0.05, 1) | st.just(1.0)
    if not positive:
        value = value | st.just(0.0)
    return st.lists(value, min_size=k, max_size=k).map(lambda g: sorted([*g[:-1], 1.0], reverse=True))


@st.composite
def instances(
    draw: st.DrawFn,
    curvatures: st.SearchStrategy[Curvature],
    *,
    shape: str = "any",
    positive: bool = False,
    rotated: bool = False,
    least: int = 1,
) -> Instances:
    """A batch of one gradient, diagonal or rotated, of the size that belongs to its H times up to a hundred."""
    n = draw(st.integers(least, LARGEST))
    m = n if shape == "square" else draw(st.integers(least, LARGEST))
    m, n = (max(m, n), min(m, n)) if shape == "tall" else (m, n)
    if shape == "wide":
        m, n = min(m, n), max(m, n) + (m == n)
    H = draw(curvatures)
    unit = float(H.slope(H.length_scale, side="left")) or 1.0
    g = np.array([draw(spectra(min(m, n), positive))]) * unit * 10 ** draw(_figures(-2, 2))
    values = torch.from_numpy(g)
    if rotated:
        return Instances(rotate(np.random.default_rng(draw(st.integers(0, 2**32))), values, m, n), H)
    return Instances(diagonal(values, m, n), H)
