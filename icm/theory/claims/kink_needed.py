"""Proposition 3.4: without a kink nothing but an orthogonal gradient has an orthogonal update.

What shows that a point is not optimal, here and in the claims beside this one, is a spectrum that is exhibited: F falls
from it by at least half of what the slope there promises.
"""

from __future__ import annotations

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball
from icm.curvature import Curvature
from icm.sphere import expect
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.curvatures import kinked, smooth
from icm.theory.instances import Instances, diagonal

STEPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
SPREAD = 1e-3  # relative distance of g from equal, below which float64 cannot see F fall
_SHAPES = ((2, 2), (3, 3), (5, 5), (3, 2), (4, 3), (9, 5), (2, 3), (3, 7), (8, 8))


def spectrum(case: Case) -> Ball:
    """The singular values (B, k) of G, descending: the entries themselves where G is diagonal."""
    g = case.G.diagonal(dim1=1, dim2=2)
    if torch.equal(case.G, diagonal(g, case.m, case.n)):
        return Ball.of(g.abs().sort(-1, descending=True).values)
    return case.spectrum(case.G)


def compared(case: Case, sigma: Tensor) -> Tensor:
    """The drawn spectra (B, s, k) that σ (B, k) is compared with; half of σ if none were drawn."""
    drawn = case.instances.extra.get("spectra")
    return 0.5 * sigma[:, None] if drawn is None else drawn


def rise(case: Case, g: Ball, sigma: Tensor, x: Tensor) -> Ball:
    """F(x) − F(σ) (B, s) for spectra x (B, s, k), beside σ (B, k)."""
    size, moved = x.shape[1], Ball.of(x) - sigma[:, None]
    mean = case.mean(x.flatten(0, 1))
    mean = Ball(mean.middle.view(-1, size), mean.radius.view(-1, size), mean.rigour)
    at = case.mean(sigma)
    drop = (Ball(g.middle[:, None], g.radius[:, None], g.rigour) * moved).sum()
    return mean - Ball(at.middle[:, None].expand(-1, size), at.radius[:, None], at.rigour) - drop


def falls(case: Case, g: Ball, sigma: Tensor, v: Tensor, slope: Ball) -> Ball:
    """(max_ε (F(σ) − F(σ+εv))/ε − slope/2)/|slope| (B,), over a few steps ε: ≥ 0 if F falls from σ (B, k) along v
    (B, k) at the rate `slope` (B,), and negative if it does not fall. F is convex, so that no step has a greater rate
    than the least one, and none more than the slope. In ball arithmetic the steps are the best in float64 and the
    least one."""
    longest = sigma.amax(-1, keepdim=True) / v.abs().amax(-1, keepdim=True).clamp(min=1e-300)

    def rates(at: Case, share: Tensor) -> Ball:
        steps = share * longest
        x = (sigma[:, None] + steps[..., None] * v[:, None]).clamp(min=0)
        return -rise(at, g, sigma, x) / steps

    share = torch.tensor(STEPS, dtype=torch.float64).expand(len(sigma), -1)
    found = rates(Case(case.instances), share)
    if case.rigorous:
        best = share.gather(1, found.lower.argmax(-1, keepdim=True))
        found = rates(case, torch.cat([best, share[:, -1:]], 1))
    high = torch.minimum(found.upper.amax(-1), slope.upper)
    low = torch.minimum(found.lower.amax(-1), high)
    rate = Ball.between(low, high, found.rigour)
    return (rate - 0.5 * slope) / slope.abs()


def beside(case: Case, sigma: Tensor) -> Ball:
    """`falls` along v = g − ∇f(σ), on the support of σ (B, k): the rate is ‖v‖² wherever f is differentiable."""
    g = spectrum(case)
    v = (g.middle - case.slopes(sigma).middle).where(sigma > 0, 0.0)
    return falls(case, g, sigma, v, (Ball.of(v) * (g - case.slopes(sigma))).sum())


def flat(case: Case) -> Tensor:
    """c (1, …, 1) (B, k) for the drawn radius c, 0 where g is 0."""
    return case["radius"][:, None] * (spectrum(case).middle > 0)


def unequal(case: Case) -> Tensor:
    """Positive singular values further apart than SPREAD."""
    g = spectrum(case).middle
    least = g.where(g > 0, torch.inf).amin(-1)
    return g[:, 0] - least >= SPREAD * g[:, 0]


def smooth_at(case: Case) -> Tensor:
    """No kink of H is near the drawn radius, and no wall below it."""
    radii = torch.tensor([c for c, _ in case.H.kinks], dtype=torch.float64)
    return ((case["radius"][:, None] / radii - 1).abs() > 1e-3).all(-1) & (case["radius"] < case.H.wall)


def around(rng: Generator, H: Curvature, c: Tensor, m: int, n: int, zeros: bool = False) -> Instances:
    """Gradients whose best multiple of the polar factor has the radius c (B,): g = ∂f(c, …, c)(1 + y), Σ y = 0."""
    size, k = len(c), min(m, n)
    support = torch.ones(size, k, dtype=torch.float64)
    if zeros:
        support = (torch.arange(k) < torch.from_numpy(rng.integers(2, k, (size, 1)))).double()
    s = expect(H, c[:, None] * support, n).slopes
    y = torch.from_numpy(rng.standard_normal((size, k))) * support
    y = (y - y.sum(-1, keepdim=True) / support.sum(-1, keepdim=True)) * support
    y = y / y.abs().amax(-1, keepdim=True).clamp(min=1e-300)
    y = y * torch.from_numpy(rng.choice([0.001, 0.01, 0.1, 0.5, 0.9], (size, 1)))
    g = (s * (1 + y)).sort(-1, descending=True).values
    return Instances(diagonal(g, m, n), H, {"radius": c})


def _draw(rng: Generator, size: int) -> Instances:
    m, n = _SHAPES[rng.integers(len(_SHAPES))]
    H = smooth(rng) if rng.random() < 0.7 else kinked(rng)
    scale = H.kinks[0][0] if H.kinks else H.length_scale
    c = scale * torch.from_numpy(10 ** rng.uniform(-1, 1, size))
    return around(rng, H, c, m, n)


kink_needed = Claim(
    name="kink-needed",
    statement="If H is differentiable at c and c·UVᵀ is optimal, all g_i are equal: beside c·UVᵀ with other g, F falls "
    "along g − ∇f at no less than half of the rate ‖g − ∇f‖².",
    latex=r"H\ \text{differentiable at}\ c,\ c\,UV^\top\ \text{optimal} \implies g_1 = \dots = g_n",
    source="Su, arXiv 2511.00674, Proposition 3.4",
    hypotheses={"H is differentiable at c": smooth_at, "g not all equal": unequal},
    margin=lambda case: beside(case, flat(case)),
    draw=_draw,
    proof="kink-needed",
)

CLAIMS = (kink_needed,)
