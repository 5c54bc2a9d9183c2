"""A wall at r̃: Muon's update where H is nothing else, and what a wall does to an H that is something."""

from __future__ import annotations

from dataclasses import replace

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, stack
from icm.curvature import Curvature, Wall
from icm.sphere import expect
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.kink_needed import compared, falls, rise, spectrum
from icm.theory.curvatures import scale, smooth
from icm.theory.instances import Draw, Instances, diagonal, draw, rotate, spectra

_SHAPES = ((1, 1), (3, 1), (2, 3), (3, 3), (5, 3), (3, 7), (5, 5), (8, 8), (4, 6))
_ROUNDING = 1e-13  # relative distance of r̃UVᵀ as floats from it, with room
_MISFIT = 1e-12  # relative distance to which floats g and σ fit each other
_EPS = torch.finfo(torch.float64).eps


def _near_polar(rng: Generator, made: Instances) -> dict[str, Tensor]:
    """Matrices (size, m, n) to compare with, which the margin scales: near the polar factor of G, or any."""
    size, m, n = len(made), made.m, made.n
    U, _, Vt = torch.linalg.svd(made.G, full_matrices=False)
    away = torch.from_numpy(10 ** rng.uniform(-7, 1, (size, 1, 1)) * rng.standard_normal((size, m, n)))
    return {"Q": U @ Vt + away}


def polar(case: Case) -> Ball:
    """The worse of (F(Q) + r̃Σg)/(r̃Σg) for the drawn Q, scaled to ‖Q‖₂ = r̃, and −(F(Q*) + r̃Σg)/(r̃Σg) for the solver's
    Q*, which is r̃UVᵀ up to rounding where G has full rank; (B,)."""
    Q, r = case["Q"], case.H.wall
    total = spectrum(case).sum()
    drawn = 1.0 - case.inner(Q, case.G) / (case.spectrum(Q)[:, 0] * total)
    found = case.solution.Q.double()
    reached = case.inner(found, case.G) / (r * total)
    wall = (case.spectrum(found)[:, 0] / r).clamp(1.0)
    ends = [drawn, reached - 1.0, 1.0 - wall]
    least = stack(ends).amin(-1)
    return Ball(least.middle, least.radius + _ROUNDING, least.rigour)


wall_polar = Claim(
    name="wall-polar",
    statement="If H is 0 up to r̃ and ∞ beyond, r̃UVᵀ is optimal: F(Q) ≥ −r̃Σg for ‖Q‖₂ ≤ r̃, with equality at r̃UVᵀ, "
    "which icm.solve gives to rounding.",
    latex=r"H = \infty\,1_{r > \tilde r} \implies F(Q) \ge -\tilde r \textstyle\sum_i g_i = F(\tilde r\,UV^\top) "
    r"\quad (\|Q\|_2 \le \tilde r)",
    source="docs/theory.md, section 10: the linear minimisation over the spectral ball, Muon's update",
    hypotheses={
        "H is a wall alone": lambda case: isinstance(case.H, Wall),
        "G is not 0": lambda case: spectrum(case).middle[:, 0] > 0,
    },
    margin=polar,
    draw=draw(lambda rng: Wall(scale(rng)), rotated=True, extra=_near_polar),
    proof="wall-polar",
)


def free(H: Curvature) -> Curvature:
    """H without its wall."""
    rest = [part for part in H.parts if not isinstance(part, Wall)]
    return sum(rest[1:], rest[0])


def _around(below: bool) -> Draw:
    """g beside the common slope s of f at (r̃, …, r̃): min g from s on, or below it."""

    def generate(rng: Generator, size: int) -> Instances:
        m, n = _SHAPES[rng.integers(len(_SHAPES))]
        k, H = min(m, n), smooth(rng)
        r = float(f"{H.length_scale * 10 ** rng.uniform(-0.3, 0.3):.4g}")
        s = expect(H, torch.full((1, k), r, dtype=torch.float64), n).slopes
        g, names = spectra(rng, size, k)
        least = (
            rng.choice([0.1, 0.9, 0.99, 0.998], (size, 1)) if below else rng.choice([1.0, 1.001, 1.1, 3.0], (size, 1))
        )
        g = s * (torch.from_numpy(least) + (g - g[:, -1:]) * torch.from_numpy(10 ** rng.uniform(-3, 1, (size, 1))))
        x = r * torch.from_numpy(1 - rng.uniform(0, 1, (size, 4, k)) ** rng.choice([1, 4, 12], (size, 4, 1)))
        return Instances(diagonal(g, m, n), H + Wall(r), {"spectra": x}, tuple(names))

    return generate


def _corner(case: Case) -> tuple[Tensor, Ball]:
    """(r̃, …, r̃) and the slopes of f there, both (B, k); one slope, as all are the same."""
    sigma = torch.full((len(case), case.k), case.H.wall, dtype=torch.float64)
    slopes = case.slopes(sigma[:1], free(case.H))
    return sigma, Ball(slopes.middle.expand(len(case), -1), slopes.radius.expand(len(case), -1), slopes.rigour)


def _has_more(case: Case) -> bool:
    return len(case.H.parts) > 1 and case.H.wall < torch.inf


def criterion(case: Case) -> Ball:
    """F* − F(r̃UVᵀ) over r̃Σg (B,): at least −r̃ Σ(∂f − g)₊, by convexity in the box, at most what the drawn spectra
    reach."""
    g, (sigma, slopes) = spectrum(case), _corner(case)
    size = (g * sigma).sum().middle
    proven = ((slopes - g).clamp(0.0) * sigma).sum() / size
    reached = (rise(case, g, sigma, compared(case, sigma)) / size[:, None]).amin(-1)
    return Ball.between(-proven.upper, reached.upper.clamp(max=0), min(proven.rigour, reached.rigour))


def _pressed(case: Case) -> Tensor:
    return spectrum(case).middle.amin(-1) >= _corner(case)[1].middle.amax(-1) * (1 - 4 * _EPS)


held = Claim(
    name="wall-criterion",
    statement="For H = H₀ up to r̃ and ∞ beyond, r̃UVᵀ is optimal if min g ≥ ∂f₀(r̃, …, r̃)/∂σ_i = E[H₀′(r) r]/(k r̃), "
    "r = r̃‖UVᵀζ‖.",
    latex=r"g_{\min} \ge \frac{E[H_0'(r)\,r]}{k\tilde r},\ r = \tilde r\,\|UV^\top\zeta\| \implies "
    r"F(\tilde r\,UV^\top) = F^*",
    source="docs/theory.md, section 10: the optimality conditions of a box",
    hypotheses={"H is a wall and more": _has_more, "min g ≥ the slope at r̃UVᵀ": _pressed},
    margin=criterion,
    equality=True,
    draw=_around(below=False),
    proof="wall-criterion",
)


def looser(case: Case) -> Ball:
    """How F falls from r̃UVᵀ, inside the wall, along −e_k."""
    g, (sigma, slopes) = spectrum(case), _corner(case)
    v = torch.zeros_like(sigma)
    v[:, -1] = -1.0
    inside = Case(replace(case.instances, H=free(case.H)), case.rigorous)
    return falls(inside, g, sigma, v, slopes[:, -1] - g[:, -1])


def _slack(case: Case) -> Tensor:
    return spectrum(case).middle.amin(-1) <= _corner(case)[1].middle.amin(-1) * (1 - 1e-3)


loose = Claim(
    name="wall-loose",
    statement="For H = H₀ up to r̃ and ∞ beyond, r̃UVᵀ is not optimal if min g < ∂f₀(r̃, …, r̃)/∂σ_i: F falls along "
    "−e_k, into the wall's inside, at no less than half of the slope there.",
    latex=r"g_{\min} < \frac{E[H_0'(r)\,r]}{k\tilde r} \implies F(\tilde r\,UV^\top) > F^*",
    source="docs/theory.md, section 10",
    hypotheses={"H is a wall and more": _has_more, "min g < the slope at r̃UVᵀ": _slack},
    margin=looser,
    draw=_around(below=True),
    proof="wall-criterion",
)


def _clipped(rng: Generator, size: int) -> Instances:
    """σ ≤ r̃ with some entries at r̃, and g = ∇f₀(σ) plus a pressure ≥ 0 there."""
    m, n = _SHAPES[rng.integers(len(_SHAPES))]
    k, H = min(m, n), smooth(rng)
    r = float(f"{H.length_scale * 10 ** rng.uniform(-0.3, 0.3):.4g}")
    share = torch.from_numpy(rng.uniform(0.05, 1, (size, k))).sort(-1, descending=True).values
    at_wall = torch.arange(k) < torch.from_numpy(rng.integers(0, k + 1, (size, 1)))
    sigma = r * share.where(~at_wall, 1.0)
    slopes = expect(H, sigma, n).slopes
    pressure = torch.from_numpy(rng.uniform(0, 3, (size, k)) * (rng.random((size, k)) < 0.8)).sort(-1).values.flip(-1)
    g = slopes * (1 + pressure * at_wall)
    rotated = rng.random() < 0.3
    G = rotate(rng, g, m, n) if rotated else diagonal(g, m, n)
    return Instances(G, H + Wall(r), {"sigma": sigma})


def above(case: Case) -> Ball:
    """(F(σ) − F*)/⟨g, σ⟩ (B,) for the drawn σ, F* as the solver's gap bounds it."""
    sigma, g = case["sigma"], spectrum(case)
    size = (g * sigma).sum()
    return (case.mean(sigma, free(case.H)) - size - case.optimum) / size.middle


def clips(case: Case) -> Ball:
    """`above` for a σ that fits g. What keeps the floats from fitting exactly adds up to r̃ Σ|∂f − g| over the entries
    that it moves, by convexity in the box."""
    sigma, g = case["sigma"], spectrum(case)
    rest = case.slopes(sigma, free(case.H)) - g
    misfit = rest.abs().where(sigma < case.H.wall, rest.clamp(0.0)).upper.sum(-1) * case.H.wall
    found = above(case)
    return Ball(found.middle, found.radius + misfit / (g.middle * sigma).sum(-1) * (1 + 1e-12), found.rigour)


def _fits(case: Case) -> Tensor:
    """Whether the drawn σ fits g: stationary below the wall, with a pressure ≥ 0 at it."""
    sigma, g = case["sigma"], spectrum(case).middle
    slopes = expect(free(case.H), sigma, case.n).slopes
    rest, unit = g - slopes, _MISFIT * g[:, :1]
    fits = (rest.abs() <= unit).where(sigma < case.H.wall, rest >= -unit)
    return (fits & (sigma <= case.H.wall)).all(-1)


clipped = Claim(
    name="wall-clips",
    statement="For H = H₀ up to r̃ and ∞ beyond, σ*_i = min(φ(g_i), r̃), φ the increasing function of stationarity: a σ "
    "with ∂f₀/∂σ_i = g_i where σ_i < r̃ and ∂f₀/∂σ_i ≤ g_i where σ_i = r̃ has F(σ) = F*.",
    latex=r"\sigma^*_i = \min(\varphi(g_i), \tilde r): \quad \partial_i f_0(\sigma) = g_i\ (\sigma_i < \tilde r),\ "
    r"\partial_i f_0(\sigma) \le g_i\ (\sigma_i = \tilde r) \implies F(\sigma) = F^*",
    source="docs/theory.md, section 10",
    hypotheses={"H is a wall and more": _has_more, "σ fits g": _fits, "solved": lambda case: case.solved},
    margin=clips,
    equality=True,
    draw=_clipped,
    proof="wall-clips",
)

CLAIMS = (wall_polar, held, loose, clipped)
