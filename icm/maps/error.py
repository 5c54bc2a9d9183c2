"""How far an update from matrix products is from the exact one, in three shares: fit, spectrum, rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from icm.maps.composition import Composition
from icm.maps.moments import majorant
from icm.maps.polynomial import Precision
from icm.maps.rounding import expected_rounding
from icm.maps.scalar import ScalarMap
from icm.maps.statistics import Spectrum, representatives

# Shares of the interval that a singular value may lie in, where φ and p are compared: one that begins at 0 is long.
_INSIDE = torch.cat([torch.zeros(1), torch.logspace(-12, -1, 23), torch.linspace(0.2, 1, 9)]).double()
_NARROW, _FEW_INSIDE = 0.2, torch.linspace(0, 1, 5).double()  # relative width of intervals where few will do
_SAFETY, _FEW = (
    3.0,
    32.0,
)  # rounding of quintics and cubics over its expectation, at most 3 + 32/k; seen: 2, k = 16: 3.9
_NODES = 48  # quantiles of the spectrum that rounding is computed for


@dataclass(frozen=True)
class Error:
    """Shares of ‖Q − Q*‖_F/‖Q*‖_F for one matrix: `fit` bounds what p − φ does to the singular values, `spectrum` what
    the uncertainty of the others does to φ, `rounding` is 3 + 32/k times what is expected of the working precision."""

    fit: float
    spectrum: float
    rounding: float

    @property
    def total(self) -> float:
        """The bound: the sum of the shares; ∞ where one is not a number."""
        total = self.fit + self.spectrum + self.rounding
        return total if total >= 0 else math.inf

    def __str__(self) -> str:
        shares = f"fit {self.fit:.1e}, spectrum {self.spectrum:.1e}, rounding {self.rounding:.1e}"
        return f"{self.total:.1e} ({shares})"


def fit_error(p: Composition, phi: ScalarMap, domain: float, spectrum: Spectrum) -> float:
    """`Error.fit` for φ(domain · x) ≈ φ(top) p(x), x = g/domain, for one element of `spectrum`."""
    length = float(phi(phi.top))
    x = spectrum.g / domain
    size = float((phi(spectrum.g) / length).norm())
    if size == 0.0:
        return 0.0
    if spectrum.tau is None:
        unit = (spectrum.top / domain) ** 2 * spectrum.slack
        low, high = (x.square() - unit).clamp(min=0).sqrt(), (x.square() + unit).sqrt().clamp(max=1.0)
        narrow = high - low < _NARROW * low
        few, many = (
            low[rows, None] + (high - low)[rows, None] * places
            for rows, places in ((narrow, _FEW_INSIDE), (~narrow, _INSIDE))
        )
        cells = torch.cat([few.flatten(), many.flatten()])
        miss = (p(cells) - phi(domain * cells) / length).abs()
        parts = miss[: few.numel()].view_as(few), miss[few.numel() :].view_as(many)
        return float(torch.cat([part.amax(-1) for part in parts]).norm()) / size
    places = torch.linspace(0, 1, 513, dtype=torch.float64).square()
    cells = torch.lerp(places[:-1, None], places[1:, None], torch.linspace(0, 1, 5, dtype=torch.float64))
    share = float(spectrum.top / domain)
    miss = (p(share * cells) - phi(spectrum.top * cells) / length).abs().amax(-1)
    tau = spectrum.tau.numpy()
    noise = float(spectrum.slack) * tau[0] * (1 + np.arange(len(tau)) ** 2.0)
    square = majorant(miss.square().numpy(), places[1:].numpy(), tau, noise)
    return math.sqrt(square) / size


def rounding_error(p: Composition, domain: float, spectrum: Spectrum, precision: Precision, aspect: float) -> float:
    """The share of rounding: 3 + 32/k times its expectation for the singular values of `spectrum`, g/domain ≤ 1, of
    matrices with sides in the ratio `aspect` ≥ 1."""
    nodes, weights = representatives(len(spectrum.g), _NODES)
    x = (spectrum.g[torch.from_numpy(nodes)] / domain).clamp(max=1.0)
    return expected_rounding(p, x, precision, aspect, torch.from_numpy(weights), _SAFETY + _FEW / len(spectrum.g))


def spread(sigma: Tensor, other: ScalarMap, g: Tensor) -> float:
    """‖σ − φ̃(g)‖/‖σ‖ for σ = φ(g) and another φ̃."""
    return float((sigma - other(g)).norm() / sigma.norm().clamp(min=1e-300))
