"""Named spectra: the singular values every exactness study and timing runs on.

They are deterministic, and the same bit for bit on every machine: values that need a transcendental function
are rounded to 45 significant bits, far above the last-place differences between math libraries, and still
wide enough that σ² does not fit a float64.
"""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def spectra(n: int) -> dict[str, Values]:
    """Singular values for input dimension n, descending, float64, by name.

    Every array has length n except `short`, which holds max(1, n // 2) values and leaves out the padding.
    """
    if n < 1:
        raise ValueError(f"dimension must be at least 1, got {n}")
    decay = 1.0 / np.arange(1, n + 1)
    return {
        "flat": np.ones(n),
        "marchenko-pastur": quarter_circle(n),
        "power-law": decay,
        "spike": np.concatenate([[1e6], np.ones(n - 1)]),
        "spike-bulk": np.concatenate([[1e6], quarter_circle(n - 1)]),
        "condition-1e4": logspaced(n, 4.0),
        "condition-1e12": logspaced(n, 12.0),
        "zeros": np.where(np.arange(n) < (n + 1) // 2, decay, 0.0),
        "short": quarter_circle(max(1, n // 2)),
    }


def quarter_circle(count: int) -> Values:
    """Quantiles (count − i + ½)/count of √(4 − x²)/π on [0, 2], descending.

    This is the law of the singular values of a large square random matrix (Marchenko & Pastur 1967). With
    x = 2 sin(y/2) the distribution function is (y + sin y)/π, solved here for y ∈ [0, π] by bisection.
    """
    target = np.pi * (np.arange(count, 0, -1) - 0.5) / count if count else np.empty(0)
    low, high = np.zeros(count), np.full(count, np.pi)
    for _ in range(60):
        middle = (low + high) / 2
        below = middle + np.sin(middle) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return rounded(2.0 * np.sin((low + high) / 4))


def logspaced(count: int, decades: float) -> Values:
    """10^0 … 10^−decades, geometric: condition number 10^decades (a single value is 1)."""
    return rounded(10.0 ** np.linspace(0.0, -decades, count))


def rounded(values: Values, bits: int = 45) -> Values:
    """The nearest floats of `bits` significant bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)
