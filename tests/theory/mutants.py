"""Deliberately false claims: true ones with a hypothesis dropped, a sign turned, a constant wrong. The verifier has to
refute every one of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from icm.curvature import Power
from icm.solvers.certificate import reach
from icm.theory import Ball, Case, Claim, Expected, draw
from icm.theory.claims.alignment import losses, misaligned
from icm.theory.claims.cap import alpha, cap, reverse, reversed_margin, spread
from icm.theory.claims.certificate import certificate
from icm.theory.claims.concentration import concentration_spread, concentration_variance, shares
from icm.theory.claims.convexity import chord, convexity
from icm.theory.claims.equivalences import InItsNorm, icm_norm, muon, muon_exact, solved
from icm.theory.claims.equivalences_signs import adam, adam_signs, prodigy
from icm.theory.claims.equivalences_spectral import shampoo, shampoo_spectral
from icm.theory.claims.followed import descent, whole
from icm.theory.claims.homogenisation import homogenisation, ratios, reversal, several
from icm.theory.claims.kink_needed import beside, flat, kink_needed, rise, spectrum
from icm.theory.claims.norms import chain, gain, norm_family
from icm.theory.claims.one_function import one_function
from icm.theory.claims.operators import (
    below_quadratic,
    by_rows,
    columns_operator,
    max_entry_operator,
    nearer,
    polar_nearest,
    polar_ties,
    rows_operator,
    square_loss,
    tie,
)
from icm.theory.claims.orthogonalisation import exact as threshold_exact
from icm.theory.claims.orthogonalisation import kink, least_jump, orthogonalisation
from icm.theory.claims.quadratic import quadratic
from icm.theory.claims.quartic import deviation as quartic_deviation
from icm.theory.claims.quartic import quartic
from icm.theory.claims.steepest_descent import (
    descends,
    duality,
    full_rank,
    luxemburg,
    luxemburg_duality,
    max_over_tensors,
    modular,
    modular_norm,
    muon_limit,
    norm_duality,
    schatten_to_muon,
    spectral_over_layers,
    steepest_step,
    steps,
    towards_muon,
)
from icm.theory.claims.trained import apart, each, rest, trained
from icm.theory.claims.von_neumann import margin as trace
from icm.theory.claims.von_neumann import von_neumann
from icm.theory.claims.wall import loose, looser
from icm.theory.claims.wide import never
from icm.theory.curvatures import smooth, sub_quadratic


def false(claim: Claim, name: str, **changes) -> Claim:
    """The claim with something wrong in it."""
    return replace(claim, name=name, statement=f"false: {name}", expected=Expected.FAILS, proof=None, **changes)


def permuted(case: Case) -> Ball:
    """F* − F(U diag(σ*) P Vᵀ) over ⟨G, Q⟩, P a permutation of the singular vectors: as if alignment did not matter."""
    Q = case.solution.Q.nan_to_num(0.0)
    return (case.optimum - case.objective(Q.roll(1, -1))) / case.solution.gain.clamp(min=1e-300)


def unequal(case: Case) -> torch.Tensor:
    """Singular values that differ, and none far below rounding."""
    g = case.drawn
    return (g[:, -1] > 0.01 * g[:, 0]) & (g[:, -1] < 0.9 * g[:, 0]) & case.solved


def half_alpha(case: Case) -> Ball:
    """1 − ratio/(1 + α/2)."""
    return 1.0 - spread(case) / (1.0 + 0.5 * alpha(case))


def half_threshold(case: Case) -> torch.Tensor:
    """B − A between a half and nine tenths of the least jump that orthogonalises."""
    _, A, B = kink(case)
    jump = least_jump(case)[0]
    return ((B - A).middle >= 0.5 * jump) & ((B - A).middle <= 0.9 * jump)


def nothing_below(case: Case) -> Ball:
    """The least F(x) − F(r̃UVᵀ) over r̃Σg, x beside r̃UVᵀ or drawn: ≥ 0 if it is optimal."""
    radius, v = kink(case)[0], least_jump(case)[1]
    g = spectrum(case)
    sigma = torch.full_like(v, radius)
    x = torch.stack([sigma * (1 + step * v) for step in (1e-1, 1e-2, 1e-3, 1e-4)], 1).clamp(min=0)
    return (rise(case, g, sigma, x) / (radius * g.middle.sum(-1))[:, None]).amin(-1)


def wrong_sign(case: Case) -> Ball:
    """The certificate with −ρ‖(g − ∇f)₊‖ for +."""
    from icm.ball import norm

    sigma, g = case["sigma"], case.spectrum(case.G)
    slopes = case.slopes(sigma)
    missing = norm((g - slopes).clamp(0.0)) * reach(g.upper, case.n, case.H)
    bound = ((slopes - g) * sigma).sum() - missing
    size = (slopes.middle * sigma).sum(-1) + missing.middle + 1e-300
    return (bound - (case.mean(sigma) - (g * sigma).sum() - case.optimum)) / size


def without_reach(case: Case) -> Ball:
    """The certificate without its term in ρ."""
    sigma, g = case["sigma"], case.spectrum(case.G)
    slopes = case.slopes(sigma)
    bound = ((slopes - g) * sigma).sum()
    size = (slopes.middle * sigma).sum(-1) + (g.middle * sigma).sum(-1) + case.optimum.middle.abs() + 1e-300
    return (bound - (case.mean(sigma) - (g * sigma).sum() - case.optimum)) / size


def half_rank(case: Case) -> Ball:
    """α/(2 srank) − (max R/min R − 1)."""
    return 0.5 * alpha(case) / shares(case)[1] - (spread(case) - 1.0)


def once(case: Case) -> Ball:
    """E s²/(E s)² against n/(n+2) (1 + 1/r_eff), with 1 for the 2."""
    x = case.drawn / case.drawn[:, :1]
    squares = Ball.of(x) * x
    inverse = (squares * squares).sum() / (squares.sum() * squares.sum())
    second, first = case.mean(x, Power(4.0)), case.mean(x, Power(2.0))
    return second / (first * first) - case.n * (1.0 + inverse) / (case.n + 2)


def one_more(case: Case) -> Ball:
    """max |σ_i R(σ_i²) − g_i| over g₁ with B ~ Beta(½, n/2): one coordinate more for two, H = c r^p."""
    sigma, k, H = case.sigma.middle, case.k, case.H
    assert isinstance(H, Power)
    longer = torch.cat([sigma[:, None, :].expand(-1, k, -1), sigma[:, :, None]], -1).flatten(0, 1)
    mean = case.mean(longer, Power(H.exponent - 2, 0.5 * H.exponent * H.scale), dim=case.n + 1)
    R = 2.0 / Ball.of(float(case.n)) * Ball(mean.middle.view(-1, k), mean.radius.view(-1, k), mean.rigour)
    return ((sigma * R - case.g).abs() / case.g.middle[:, :1]).amax(-1)


def short_by_n(case: Case) -> Ball:
    """max |σ_i − g_i/(2c)| over σ₁: nG/(2c) without its n."""
    factor = 1.0 / (2.0 * float(getattr(case.H, "scale", 1.0)))
    return ((case.sigma - factor * case.g).abs() / case.sigma.middle[:, :1]).amax(-1)


def flat_of_smooth(case: Case) -> Ball:
    """How far apart σ* is, with the sign of a claim that it is flat."""
    sigma = case.sigma
    return 1e-3 - (sigma[:, 0] - sigma[:, -1]) / sigma[:, 0]


def always_polar(case: Case) -> Ball:
    """−loose: r̃UVᵀ optimal under a wall whatever H₀."""
    return -looser(case) - 0.5


def stays_flat(case: Case) -> Ball:
    """F does not fall from c·UVᵀ."""
    return -beside(case, flat(case)) - 0.5


def each_for_itself(case: Case, which: list, way: str, G: list[torch.Tensor]) -> list[torch.Tensor]:
    """Every layer with the step size of its own dual norm in place of the sum of all."""
    pairs = zip(which, G, case["weights"].unbind(-1), strict=True)
    sizes = [one.dual(case, g, p).middle / (case["sharpness"] * s * s) for (one, p), g, s in pairs]
    T = [one.make(p).dualize(g) for (one, p), g in zip(which, G, strict=True)]
    return [-size[:, None, None] * t for size, t in zip(sizes, T, strict=True)]


def times_weights(case: Case, which: list, way: str, G: list[torch.Tensor]) -> list[torch.Tensor]:
    """Steps that grow with the weights."""
    found = zip(steps(case, which, way, G), case["weights"].unbind(-1), strict=True)
    return [d * (s * s)[:, None, None] for d, s in found]


def all_of_muons(case: Case) -> Ball:
    """⟨G, Q*⟩/(‖Q*‖₂‖G‖_*) − 1."""
    return gain(case) / (case.sigma[:, 0] * case.g.sum()) - 1.0


def shortest_column(case: Case) -> Ball:
    """1 − ‖Mx‖₁/(‖col_j‖₁‖x‖₁) for the shortest column."""
    size = case.G.abs().sum(1).amin(-1)
    image = (Ball.of(case.G) * case["x"][:, None, :]).sum().abs().sum()
    return 1.0 - image / (size * Ball.of(case["x"].abs()).sum())


def mean_entry(case: Case) -> Ball:
    """1 − ‖Mx‖_∞/(mean|M| ‖x‖₁)."""
    size = case.G.abs().mean((1, 2))
    image = (Ball.of(case.G) * case["x"][:, None, :]).sum().abs().amax()
    return 1.0 - image / (size * Ball.of(case["x"].abs()).sum())


def another_power(case: Case) -> torch.Tensor:
    """Solved updates beside steepest descent in the norm of a power a tenth higher."""
    assert isinstance(case.H, Power)
    ours = solved(Power(case.H.exponent + 0.1), InItsNorm)
    return apart(trained(case, ours, 5), trained(case, solved(case.H), 5))


SPECTRAL = each(descent("spectral"), rest)
SIGNS = each(whole("max-entry"))

ALL = (
    false(homogenisation, "homogenisation-of-any-H", hypotheses={"several": several}, draw=draw(smooth)),
    false(homogenisation, "ratios-reversed", margin=lambda case: (1.0 - ratios(case)).amin(-1)),
    false(reversal, "reversal-turned", margin=lambda case: (ratios(case) - 1.0).amin(-1), draw=draw(sub_quadratic)),
    Claim(
        "alignment-permuted",
        "false: singular vectors in another order are as good",
        permuted,
        draw(smooth, shapes=((2, 2), (3, 3), (4, 4))),
        {"different singular values": unequal},
        expected=Expected.FAILS,
    ),
    false(cap, "cap-of-half-alpha", margin=half_alpha),
    false(reverse, "cap-reversed-turned", margin=lambda case: -reversed_margin(case) - 1e-3),
    false(
        orthogonalisation,
        "half-the-threshold",
        margin=nothing_below,
        equality=False,
        hypotheses={"m ≥ n": lambda case: case.m >= case.n, "half the threshold": half_threshold},
        draw=threshold_exact.draw,
    ),
    false(never, "orthogonal-for-fewer-outputs", margin=stays_flat),
    false(certificate, "certificate-with-the-wrong-sign", margin=wrong_sign),
    false(certificate, "certificate-without-its-reach", margin=without_reach),
    false(quartic, "quartic-with-the-whole-sum", margin=lambda case: quartic_deviation(case, 1.0)),
    false(quadratic, "quadratic-without-n", margin=short_by_n),
    false(concentration_variance, "variance-without-the-two", margin=once),
    false(concentration_spread, "half-the-spread", margin=half_rank),
    false(von_neumann, "von-neumann-turned", margin=lambda case: -trace(case)),
    false(convexity, "concavity", margin=lambda case: -chord(case)),
    false(norm_family, "norms-fall", margin=lambda case: -chain(case)),
    false(norm_duality, "dual-norms-a-thousandth-less", margin=lambda case: duality(case) - 1e-3),
    false(steepest_step, "steps-twice-as-long", margin=lambda case: descends(case, 2.0)),
    false(max_over_tensors, "signs-with-steps-of-their-own", margin=lambda case: modular(case, each_for_itself)),
    false(spectral_over_layers, "layers-with-steps-of-their-own", margin=lambda case: modular(case, each_for_itself)),
    false(modular_norm, "steps-that-grow-with-the-weights", margin=lambda case: modular(case, times_weights)),
    false(luxemburg_duality, "luxemburg-a-thousandth-less", margin=lambda case: luxemburg(case) - 1e-3),
    false(muon_limit, "muon-at-every-power", margin=all_of_muons, hypotheses={"different": unequal}),
    false(
        schatten_to_muon, "twice-as-fast-to-muon", margin=lambda case: towards_muon(case, 0.5),
        hypotheses={"full rank": full_rank, "different": unequal},
    ),
    false(max_entry_operator, "mean-entry-operator", margin=mean_entry),
    false(columns_operator, "shortest-column-operator", margin=shortest_column),
    false(rows_operator, "rows-of-the-same-p", margin=lambda case: by_rows(case, lambda p: p)),
    false(polar_nearest, "nearest-by-the-largest", margin=lambda case: nearer(case, 0)),
    false(polar_ties, "ties-at-full-rank", margin=lambda case: tie(case, 1.0), hypotheses={}, draw=draw("r^2")),
    false(square_loss, "half-the-square-loss-bound", margin=lambda case: below_quadratic(case, 0.5)),
    false(adam_signs, "adam-is-spectral", margin=lambda case: apart(trained(case, SPECTRAL), trained(case, adam()))),
    false(
        muon_exact, "muon-with-and-without-momentum",
        margin=lambda case: apart(trained(case, SPECTRAL), trained(case, each(muon("W"), muon("V"), rest))),
    ),
    false(
        prodigy, "escalators-change-nothing", needs=None,
        margin=lambda case: apart(trained(case, SIGNS), trained(case, each(whole("max-entry", escalator=1e-6)))),
    ),
    false(
        shampoo_spectral, "shampoo-is-sign-descent", hypotheses={},
        margin=lambda case: apart(trained(case, SIGNS), trained(case, shampoo(0.0))),
    ),
    false(icm_norm, "descent-in-another-power", margin=another_power),
    false(kink_needed, "smooth-and-flat", margin=flat_of_smooth, hypotheses={"different": unequal}, draw=draw(smooth)),
    false(loose, "polar-under-every-wall", margin=always_polar),
    false(misaligned, "turning-helps", margin=lambda case: -losses(case) - 1e-6),
    false(
        one_function, "one-function-of-another-n", margin=one_more, hypotheses={"solved": lambda case: case.usable},
        draw=draw(lambda rng: Power(round(float(rng.uniform(3, 8)), 2))),
    ),
)  # fmt: skip

MUTANTS: dict[str, Claim] = {claim.name: claim for claim in ALL}

impossible = Claim(
    "impossible",
    "holds of whatever meets what nothing meets",
    lambda case: case.sigma[:, 0],
    draw(Power(3.0)),
    {"g₁ < 0": lambda case: case.drawn[:, 0] < 0},
)
