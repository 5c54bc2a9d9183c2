"""The certificate: no point is further above the optimum than its gap says."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, norm
from icm.solvers.certificate import reach
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.curvatures import smooth
from icm.theory.instances import Instances, draw


def points(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Spectra to certify: near the size of the optimum, some of their entries 0."""
    size = (len(made), made.k)
    x = rng.uniform(0, 1, size) * (rng.uniform(0, 1, size) < 0.8) * 10 ** rng.uniform(-1, 1, (size[0], 1))
    return {"sigma": torch.from_numpy(x) * made.H.length_scale}


def margin(case: Case) -> Ball:
    """The bound less what it bounds, over the bound's largest term."""
    sigma, g = case["sigma"], case.spectrum(case.G)
    slopes = case.slopes(sigma)
    rho = reach(g.upper, case.n, case.H) * (1 + 1e-12)  # it is computed in float64
    excess = (slopes - g).clamp(0.0)
    missing = (g - slopes).clamp(0.0)
    bound = ((slopes - g) * sigma).sum() + norm(missing) * rho
    value = case.mean(sigma) - (g * sigma).sum()
    size = (slopes.middle * sigma).sum(-1) + norm(missing).middle * rho + excess.middle.sum(-1) + value.middle.abs()
    return (bound - (value - case.optimum)) / size


certificate = Claim(
    name="certificate",
    statement="F(σ) − F* ≤ ⟨∇f(σ) − g, σ⟩ + ρ ‖(g − ∇f(σ))₊‖₂ for every σ ≥ 0, where ρ ≥ ‖σ*‖₂ is the largest t "
    "with H(κ_n t) ≤ ‖g‖₂ t.",
    latex=r"F(\sigma) - F^* \le \langle \nabla f(\sigma) - g, \sigma\rangle + \rho\,\|(g - \nabla f(\sigma))_+\|_2",
    source="the certificate of icm.solve",
    hypotheses={"solved": lambda case: case.solved},
    margin=margin,
    draw=draw(smooth, extra=points),
    proof="certificate",
)

CLAIMS = (certificate,)
