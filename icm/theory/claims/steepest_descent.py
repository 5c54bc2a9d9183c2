"""Steepest descent in a norm: argmin ⟨G, D⟩ + (λ/2)‖D‖², of one matrix and of many tensors.

What icm.norms computes stands beside values in balls, from entries and singular values. A step or a maximiser is held
to attain the bound to 10⁻¹² of it, and no competitor to go below: both are inequalities whose error is known.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, norm, stack
from icm.norms import FromCurvature, Modular, Schatten
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.lengths import (
    LENGTHS,
    MAX_ENTRY,
    SPECTRAL,
    Length,
    beside,
    exact_inner,
    kind,
    kinds,
    nonzero,
    others,
)
from icm.theory.claims.norms import exponent, gain, length, single, unit_powers
from icm.theory.curvatures import smooth
from icm.theory.instances import Draw, Instances, draw, rotate, spectra

REACHED = 1e-12  # relative, of a bound
_LEVEL = 1e-9  # relative, of a level set
_ANTHOLOGY = "Bernstein & Newhouse, arXiv 2409.20325"


def gradients(*extras: Callable[[Generator, Instances], object], decades: float = 3.0) -> Draw:
    """Gradients, diagonal or rotated, now and then of any size up to 10^±30."""

    def extra(rng: Generator, made: Instances) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for more in extras:
            found.update(more(rng, made))  # type: ignore[call-overload]
        return found

    def generate(rng: Generator, size: int) -> Instances:
        wide = 30.0 if rng.random() < 0.2 else decades
        return draw("r^2", rotated=bool(rng.random() < 0.6), decades=wide, extra=extra)(rng, size)

    return generate


def least(margins: list[Ball]) -> Ball:
    """The smallest margin (B,)."""
    return stack(margins).amin()


def duality(case: Case) -> Ball:
    """The least of 1 − ⟨G, V⟩/(‖G‖†‖V‖), ⟨G, T⟩/‖G‖† − 1 + 10⁻¹² and 1 + 10⁻¹² − ‖T‖, T = dualize(G)."""
    which, p = kind(case)
    T = which.make(p).dualize(case.G)
    V = beside(T, case["W"], case["mix"])
    dual = which.dual(case, case.G, p)
    holder = 1.0 - case.inner(case.G, V) / (dual * which.value(case, V, p))
    reached = case.inner(case.G, T) / dual - (1.0 - REACHED)
    return least([holder, reached, (1.0 + REACHED) - which.value(case, T, p)])


def descends(case: Case, scale: float = 1.0) -> Ball:
    """The least of 1 + J(D)/(‖G‖†²/2λ) over competitors D, and 10⁻¹² − 1 − J(D*)/(‖G‖†²/2λ) for D* = steepest(G, λ),
    J(D) = ⟨G, D⟩ + (λ/2)‖D‖²."""
    which, p = kind(case)
    norm_here, sharpness = which.make(p), case["sharpness"]
    dual = which.dual(case, case.G, p)

    def share(D: Tensor) -> Ball:
        size = which.value(case, D, p) * sharpness / dual  # ‖D‖ in units of ‖G‖†/λ
        return 2.0 * case.inner(case.G, D) * sharpness / dual / dual + size * size

    unit = (dual.middle / sharpness)[:, None, None]
    V = -(case["stretch"][:, None, None] * unit) * beside(norm_here.dualize(case.G), case["W"], case["mix"])
    own = [scale * norm_here.steepest(G, float(x)) for G, x in zip(case.G, sharpness, strict=True)]
    return least([1.0 + share(V), -share(torch.stack(own)) - (1.0 - REACHED)])


norm_duality = Claim(
    name="norm-duality",
    statement="For every norm of icm.norms with a dual in closed form ⟨G, V⟩ ≤ ‖G‖†‖V‖, and T = dualize(G) has ⟨G, T⟩ "
    "= ‖G‖† and ‖T‖ = 1 to 10⁻¹²: Frobenius, entries, Schatten, columns, rows, RMS → RMS, ℓ1 → RMS, Ky Fan.",
    latex=r"\langle G, V\rangle \le \|G\|^\dagger \|V\|, \qquad \langle G, T\rangle = \|G\|^\dagger,\ \|T\| = 1",
    source=f"{_ANTHOLOGY}, section 1; docs/norms.md",
    hypotheses={"G ≠ 0": nonzero},
    margin=duality,
    draw=gradients(kinds, others),
    proof="norm-duality",
)
steepest_step = Claim(
    name="steepest-step",
    statement="argmin ⟨G, D⟩ + (λ/2)‖D‖² is −(‖G‖†/λ) dualize(G), with the value −‖G‖†²/(2λ), for every such norm.",
    latex=r"\min_D\ \langle G, D\rangle + \tfrac{\lambda}{2}\|D\|^2 = -\frac{\|G\|^{\dagger 2}}{2\lambda}, \qquad "
    r"D^* = -\frac{\|G\|^\dagger}{\lambda}\, T",
    source=f"{_ANTHOLOGY}, Proposition 1",
    hypotheses={"G ≠ 0": nonzero},
    margin=descends,
    draw=gradients(kinds, others),
    proof="steepest-step",
)

# Many tensors: a matrix, one on top of it, and a bias

_LAYERS = ("G", "above", "bias")
_COMBINE = ("max", "sum", "rss")


def layers(rng: Generator, made: Instances) -> dict[str, Tensor]:
    """Two more tensors, their competitors, and a weight for each layer."""
    size, m, upper = len(made), made.m, int(rng.integers(1, 5))
    unit = torch.linalg.matrix_norm(made.G)[:, None, None]
    found = {}
    for name, shape in (("above", (upper, m)), ("bias", (m, 1))):
        scales = torch.from_numpy(10 ** rng.uniform(-2, 2, (size, 1, 1)))
        found[name] = rotate(rng, spectra(rng, size, min(shape))[0], *shape) * scales * unit
        found[f"{name} beside"] = torch.from_numpy(rng.standard_normal((size, *shape)))
    return {**found, "weights": torch.from_numpy(10 ** rng.uniform(-1, 1, (size, 3)))}


def norms_of(*which: Length | None, combine: str | None = None) -> Callable[[Generator, Instances], dict[str, Tensor]]:
    """The norms of the layers, any for None, and how they are combined, one choice for the batch."""

    def chosen(rng: Generator, made: Instances) -> dict[str, Tensor]:
        codes, ps = [], []
        for one in which:
            code = int(rng.integers(len(LENGTHS))) if one is None else LENGTHS.index(one)
            choices = (float("inf"),) if one is SPECTRAL else LENGTHS[code].choices
            codes.append(code)
            ps.append(choices[int(rng.integers(len(choices)))])
        way = _COMBINE.index(combine) if combine else int(rng.choice(3, p=[0.6, 0.2, 0.2]))
        size = len(made)
        found = {"kinds": torch.tensor([codes] * size), "ps": torch.tensor([ps] * size, dtype=torch.float64)}
        return {**found, "combine": torch.full((size,), way)}

    return chosen


def together(values: list[Ball], way: str) -> Ball:
    """max, Σ or ‖·‖₂ of the layers' numbers."""
    every = stack(values)
    return {"max": every.amax, "sum": every.sum, "rss": lambda: norm(every)}[way]()


Layers = list[tuple[Length, float]]


def steps(case: Case, which: Layers, way: str, G: list[Tensor]) -> list[Tensor]:
    """The steps of icm.norms.Modular, one element at a time."""
    norms = {name: one.make(p) for name, (one, p) in zip(_LAYERS, which, strict=True)}
    found = []
    for i in range(len(case)):
        weights = dict(zip(_LAYERS, case["weights"][i].tolist(), strict=True))
        model = Modular(norms, weights, way)  # type: ignore[arg-type]
        tensors: dict[str, Tensor] = dict(zip(_LAYERS, (g[i] for g in G), strict=True))
        found.append(model.steepest(tensors, float(case["sharpness"][i])))
    return [torch.stack([step[name] for step in found]) for name in _LAYERS]


def modular(case: Case, taken: Callable[[Case, Layers, str, list[Tensor]], list[Tensor]] = steps) -> Ball:
    """As `descends`, for N = max, Σ or ‖·‖₂ of s_l‖W_l‖_l and the steps of icm.norms.Modular, or those `taken`."""
    which = [(LENGTHS[k], p) for k, p in zip(case["kinds"][0].tolist(), case["ps"][0].tolist(), strict=True)]
    way, s, sharpness = _COMBINE[int(case["combine"][0])], case["weights"], case["sharpness"]
    dual_way = {"max": "sum", "sum": "max", "rss": "rss"}[way]
    G = [case.G, case["above"], case["bias"]]
    duals = [one.dual(case, g, p) / s[:, i] for i, ((one, p), g) in enumerate(zip(which, G, strict=True))]
    dual = together(duals, dual_way)

    def share(D: list[Tensor]) -> Ball:
        sizes = [one.value(case, d, p) * s[:, i] for i, ((one, p), d) in enumerate(zip(which, D, strict=True))]
        size = together(sizes, way) * sharpness / dual
        inner = stack([exact_inner(g, d) for g, d in zip(G, D, strict=True)]).sum()
        return 2.0 * inner * sharpness / dual / dual + size * size

    own = taken(case, which, way, G)
    W = [case["W"], case["above beside"], case["bias beside"]]
    length_ = case["stretch"][:, None, None]
    V = [length_ * beside(d, w, case["mix"]) for d, w in zip(own, W, strict=True)]
    return least([1.0 + share(V), -share(own) - (1.0 - REACHED)])


def _plain_weights(rng: Generator, made: Instances) -> dict[str, Tensor]:
    return {"weights": torch.ones(len(made), 3, dtype=torch.float64)}


max_over_tensors = Claim(
    name="max-over-tensors",
    statement="In the largest max-entry norm of all tensors steepest descent is W_l ← W_l − η sign(G_l), one η = (1/λ) "
    "Σ_k Σ|G_k| for all.",
    latex=r"\Delta W_l = -\eta\, \operatorname{sign} G_l, \quad \eta = \tfrac{1}{\lambda} \sum_k \|G_k\|^\dagger",
    source=f"{_ANTHOLOGY}, Proposition 3",
    hypotheses={"G ≠ 0": nonzero},
    margin=modular,
    draw=gradients(others, layers, _plain_weights, norms_of(MAX_ENTRY, MAX_ENTRY, MAX_ENTRY, combine="max")),
    proof="modular-norm",
)
spectral_over_layers = Claim(
    name="spectral-over-layers",
    statement="In the largest spectral norm of all layers steepest descent is W_l ← W_l − η U_lV_lᵀ, one η = (1/λ) Σ_k "
    "tr Σ_k for all.",
    latex=r"\Delta W_l = -\eta\, U_l V_l^\top, \quad \eta = \tfrac{1}{\lambda} \sum_k \operatorname{tr} \Sigma_k",
    source=f"{_ANTHOLOGY}, Proposition 5",
    hypotheses={"G ≠ 0": nonzero},
    margin=modular,
    draw=gradients(others, layers, _plain_weights, norms_of(SPECTRAL, SPECTRAL, SPECTRAL, combine="max")),
    proof="modular-norm",
)
modular_norm = Claim(
    name="modular-norm",
    statement="In max_l s_l‖W_l‖_l steepest descent is W_l ← W_l − (η/s_l) T_l, η = (1/λ) Σ_k ‖G_k‖_k†/s_k, T_l = "
    "dualize(G_l); with Σ_l or a root of the sum of squares for the largest, as icm.norms.Modular says.",
    latex=r"\Delta W_l = -\frac{\eta}{s_l}\, T_l, \quad \eta = \tfrac{1}{\lambda} \sum_k \|G_k\|_k^\dagger/s_k",
    source=f"{_ANTHOLOGY}, Proposition 7; docs/norms.md",
    hypotheses={"G ≠ 0": nonzero},
    margin=modular,
    draw=gradients(others, layers, norms_of(None, None, None)),
    proof="modular-norm",
)

# Curvatures as norms, and the way from SGD to Muon


def luxemburg(case: Case) -> Ball:
    """The least of 1 − ⟨G, V⟩/N†(G) for a V inside E H(‖Vζ‖) ≤ 1, ⟨G, T⟩/N† − 1 + 10⁻⁹ and 1 + 10⁻⁹ − E H(‖Tζ‖)."""
    norm_here = FromCurvature(case.H)
    low, high = norm_here.bounds(case.G)
    dual, T = Ball.between(low, high, case.spectrum(case.G).rigour), norm_here.dualize(case.G)
    V = norm_here.normalize(beside(T, case["W"], case["mix"]), 1.0 - _LEVEL)
    inside = case.mean(case.spectrum(V)).upper <= 1
    holder = 1.0 - case.inner(case.G, V) / dual
    holder = Ball(holder.middle, holder.radius.where(inside, torch.inf), holder.rigour)
    level = (1.0 + _LEVEL) - case.mean(case.spectrum(T) * (1.0 - _LEVEL))
    return least([holder, case.inner(case.G, T) / dual - (1.0 - _LEVEL), level])


luxemburg_duality = Claim(
    name="luxemburg-duality",
    statement="The Luxemburg norm N(W) = inf {t: E H(‖Wζ‖/t) ≤ 1} has, for every H, the dual that "
    "icm.norms.FromCurvature finds: ⟨G, V⟩ ≤ N†(G) for E H(‖Vζ‖) ≤ 1, with equality to 10⁻⁹ at its dualize(G).",
    latex=r"E\,H(\|V\zeta\|) \le 1 \implies \langle G, V\rangle \le N^\dagger(G) = \langle G, T\rangle",
    source="docs/norms.md",
    hypotheses={"G ≠ 0": nonzero},
    margin=luxemburg,
    draw=draw(smooth, rotated=True, extra=others),
    enclosable=False,
    cost=5,
    proof="luxemburg-duality",
)


def against_muon(case: Case) -> Ball:
    """⟨G, Q*⟩/(‖Q*‖₂‖G‖_*) − (E|ζ₁|^p)^{1/p}."""
    one = torch.zeros_like(case.drawn)
    one[:, 0] = 1.0
    least_share = length(case, one, exponent(case))
    return gain(case) / (case.sigma[:, 0] * case.g.sum()) - least_share


muon_limit = Claim(
    name="muon-limit",
    statement="For H = c r^p, p > 1, Q* gains at least (E|ζ₁|^p)^{1/p} of what Muon's update gains at its spectral "
    "norm: ⟨G, Q*⟩ ≥ (E|ζ₁|^p)^{1/p} ‖G‖_*‖Q*‖₂, and this factor tends to 1 as p → ∞.",
    latex=r"\langle G, Q^*\rangle \ge (E|\zeta_1|^p)^{1/p}\, \|G\|_* \|Q^*\|_2",
    source="docs/norms.md; this project",
    hypotheses={
        "H is a power": single,
        "p > 1": lambda case: exponent(case) > 1,
        "G ≠ 0": nonzero,
        "solved": lambda case: case.usable,
    },
    margin=against_muon,
    draw=draw(unit_powers(1.05, 40.0)),
    proof="muon-limit",
)


def exponents_drawn(rng: Generator, made: Instances) -> dict[str, Tensor]:
    """A Schatten exponent for the batch, from 2 on."""
    p = float(f"{2 + 10 ** rng.uniform(-1, 3):.4g}") if rng.random() < 0.8 else 2.0
    return {"p": torch.full((len(made),), p, dtype=torch.float64)}


def towards_muon(case: Case, factor: float = 1.0) -> Ball:
    """The least of log κ/(p − 1) + 10⁻¹² − (1 − t_k/t_1) and, at p = 2, 10⁻¹² − |t − g/‖g‖₂|, t = dualize(G)'s."""
    p = float(case["p"][0])
    g, t = case.spectrum(case.G), case.spectrum(Schatten(p).dualize(case.G))
    rate = factor * (g[:, 0] / g[:, -1]).log() / (Ball.of(p) - 1.0)
    found = rate + REACHED - (1.0 - t[:, -1] / t[:, 0])
    return found if p != 2 else least([found, REACHED - (t - g / norm(g)[:, None]).abs().amax()])


def full_rank(case: Case) -> Tensor:
    """g_k ≥ 10⁻⁶ g_1."""
    return case.drawn[:, -1] >= 1e-6 * case.drawn[:, 0]


schatten_to_muon = Claim(
    name="schatten-to-muon",
    statement="Steepest descent in Schatten-p goes from SGD's direction at p = 2 to Muon's: the singular values of "
    "dualize(G) have t_k/t_1 ≥ 1 − log(g_1/g_k)/(p − 1).",
    latex=r"1 - t_k/t_1 \le \frac{\log(g_1/g_k)}{p - 1}",
    source="docs/norms.md; this project",
    hypotheses={"G has full rank": full_rank},
    margin=towards_muon,
    draw=draw("r^2", rotated=True, extra=exponents_drawn),
    proof="schatten-to-muon",
)

CLAIMS = (
    norm_duality,
    steepest_step,
    max_over_tensors,
    spectral_over_layers,
    modular_norm,
    luxemburg_duality,
    muon_limit,
    schatten_to_muon,
)
