"""SGD and Muon as the two ends of one family of norms: Schatten's, and that of the solved update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.random import Generator
from torch import Tensor

from icm.curvature import Curvature, Power
from icm.norms import FromCurvature, Spectral
from icm.solvers import solve
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.followed import ANTHOLOGY, COST, FAILS, LR, SETTINGS, descent, equal, whole
from icm.theory.claims.trained import Before, Make, Network, apart, each, every, matrices, networks, rest, trained

_CONVERGING = {"ns_coefficients": (15 / 8, -10 / 8, 3 / 8), "ns_steps": 60}  # to UVᵀ; Muon's own never settle


class _Float64(Tensor):
    """A gradient that stays what it is where bfloat16 is asked for."""

    def bfloat16(self, *args: Any, **options: Any) -> Tensor:
        return self.as_subclass(Tensor).double().clone()


def _in_float64(optimizer: torch.optim.Optimizer) -> None:
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        p.grad = p.grad.as_subclass(_Float64)


def muon(name: str, exact: bool = True, **options: Any) -> Callable[[Network], Any]:
    """torch.optim.Muon of one matrix at LR, whatever its shape; in float64 if `exact`."""

    def make(net: Network) -> Any:
        p = net[name]
        lr = LR / math.sqrt(max(1.0, p.shape[0] / p.shape[1]))  # which Muon multiplies by that root
        settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0, **options}
        made = torch.optim.Muon([p], lr=lr, **settings)
        return Before(made, _in_float64) if exact else made

    return make


class Quintics(Spectral):
    """UVᵀ as Muon takes it: five times x ↦ 3.4445x − 4.7750x³ + 2.0315x⁵ on the singular values of G/‖G‖_F."""

    def _dualize(self, G: Tensor) -> Tensor:
        from icm.maps import apply, known

        return apply(known("newton-schulz"), G, None, "fp64")


def _muons(**options: Any) -> Make:
    return each(muon("W", **options), muon("V", **options), rest)


AVERAGED: dict[str, Any] = {"momentum": 0.9, "nesterov": True}

sgd = equal(
    "sgd-schatten-2",
    "torch.optim.SGD with momentum 0.9 and Nesterov's is steepest descent in the root of the sum of squares of all "
    "tensors' Schatten-2 norms.",
    r"p = 2: \quad W_l \to W_l - \eta\, G_l",
    f"{ANTHOLOGY}; docs/norms.md",
    each(whole("schatten(2)", 10 * LR, combine="rss", length="dual", **AVERAGED)),
    each(lambda net: torch.optim.SGD(every(net), LR, momentum=0.9, nesterov=True)),
)
muon_exact = equal(
    "muon-schatten-infinity",
    "torch.optim.Muon, in float64 and with coefficients that converge, is steepest descent in the Schatten-∞ norm.",
    r"p = \infty: \quad W_l \to W_l - \eta\, U V^\top",
    f"{ANTHOLOGY}, section 3; Jordan et al., Muon, 2024",
    each(descent("schatten(inf)", **AVERAGED), rest),
    _muons(**_CONVERGING),
)
muon_quintics = equal(
    "muon-quintics",
    "torch.optim.Muon in float64, with its own coefficients, is steepest descent with five of its quintics for UVᵀ.",
    r"W_l \to W_l - \eta\, U\, p^{\circ 5}(g/\|g\|)\, V^\top",
    "Jordan et al., Muon, 2024",
    each(descent(Quintics(), **AVERAGED), rest),
    _muons(),
)
muon_default = equal(
    "muon-by-default",
    "torch.optim.Muon as it is, five quintics in bfloat16, is steepest descent in the spectral norm.",
    r"p^{\circ 5}(g/\|g\|) = 1",
    "Jordan et al., Muon, 2024, read as UVᵀ",
    each(descent("spectral", **AVERAGED), rest),
    _muons(exact=False),
    **FAILS,
)

# The solved update


class Solved:
    """W ← W − LR Q*, Q* the optimum of the program for each matrix's gradient."""

    def __init__(self, nets: list[Network], H: Curvature | str):
        self.nets, self.H = nets, H

    def update(self, G: Tensor) -> Tensor:
        """Q* (B, m, n) for gradients G."""
        return solve(G, self.H, on_failure="return").Q

    @torch.no_grad()
    def step(self) -> None:
        shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for p in (p for net in self.nets for p in matrices(net)):
            shapes.setdefault(p.shape, []).append(p)
        for params in shapes.values():  # of one shape together
            Q = self.update(torch.stack([p.grad for p in params if p.grad is not None]))
            for p, q in zip(params, Q, strict=True):
                p.sub_(LR * q)


class InItsNorm(Solved):
    """W ← W − LR (N†/p)^{1/(p−1)} T with N†(G) and T of the Luxemburg norm of H = r^p."""

    def update(self, G: Tensor) -> Tensor:
        H = self.H
        assert isinstance(H, Power)
        norm = FromCurvature(H)
        size = (norm.dual(G) / H.exponent) ** (1 / (H.exponent - 1))
        return size[:, None, None] * norm.dualize(G)


def solved(H: Curvature | str, kind: type[Solved] = Solved) -> Make:
    return lambda nets: [kind(nets, H), *map(rest, nets)]


def in_its_norm(case: Case) -> Tensor:
    """The run of solved updates beside that of steepest descent in the norm of H."""
    return apart(trained(case, solved(case.H, InItsNorm)), trained(case, solved(case.H)))


def _powers(rng: Generator) -> Curvature:
    return Power(round(float(rng.uniform(2.0, 8.0)), 2))


def _ends(case: Case) -> Tensor:
    """The larger distance of H = r² from gradient descent at n/2, and of the wall at 1 from Muon, both by torch."""

    def sgd(net: Network) -> Any:
        groups = [{"params": [p], "lr": LR * p.shape[1] / 2} for p in matrices(net)]
        return torch.optim.SGD(groups, LR)

    polar = _muons(momentum=0.0, nesterov=False, **_CONVERGING)
    first = apart(trained(case, solved("r^2")), trained(case, each(sgd, rest)))
    return torch.maximum(first, apart(trained(case, solved("wall(1)")), trained(case, polar)))


icm_norm = Claim(
    name="icm-in-its-norm",
    statement="Updates that icm.solve finds for H = r^p, 2 ≤ p ≤ 8, are steepest descent in the Luxemburg norm of r^p "
    "with the length (N†/p)^{1/(p−1)}: two solvers, one for the program and one for the dual norm.",
    latex=r"W \to W - \eta\, (N_p^\dagger(G)/p)^{1/(p-1)}\, T, \quad N_p(T) = 1, \langle G, T\rangle = N_p^\dagger(G)",
    source="docs/theory.md, section 7",
    margin=in_its_norm,
    draw=networks(_powers, shapes=((3, 3), (5, 5), (3, 4))),
    **{**SETTINGS, "cost": 10 * COST},
)
icm_ends = Claim(
    name="icm-from-sgd-to-muon",
    statement="Updates that icm.solve finds are torch.optim.SGD's at n/2 times the rate for H = r², and for a wall at "
    "1 those of torch.optim.Muon in float64, with coefficients that converge.",
    latex=r"H = r^2: Q^* = \frac{n}{2} G, \qquad H = \infty\ (r > 1): Q^* = U V^\top",
    source="docs/theory.md, sections 3 and 7",
    margin=_ends,
    draw=networks(),
    **{**SETTINGS, "cost": 2 * COST},
)

CLAIMS = (sgd, muon_exact, muon_quintics, muon_default, icm_norm, icm_ends)
