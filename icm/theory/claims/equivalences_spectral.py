"""Shampoo, SOAP and SCION beside steepest descent in the spectral norm."""

from __future__ import annotations

from typing import Any

import torch

from icm.theory.claims.followed import ANTHOLOGY, FAILS, LR, descent, equal, others, scion
from icm.theory.claims.trained import Before, Make, Network, each, matrices, networks, rest, well_conditioned

_SQUARE = ((2, 2), (3, 3), (4, 4))

_SPECTRAL = each(descent("spectral"), rest)
_RANKED: dict[str, Any] = {
    "draw": networks(shapes=_SQUARE),
    "hypotheses": {"no gradient has σ_k/σ₁ below 2·10⁻⁴": well_conditioned(_SPECTRAL)},
}


def _forget(optimizer: torch.optim.Optimizer) -> None:
    optimizer.state.clear()


def shampoo(eps: float, accumulates: bool = False) -> Make:
    """Shampoo of the matrices, without memory unless it `accumulates`."""

    def make(net: Network) -> Any:
        made = others().Shampoo(matrices(net), LR, matrix_eps=eps)
        return made if accumulates else Before(made, _forget)

    return each(make, rest)


def soap(eps: float) -> Make:
    """SOAP of the matrices without memory or averages, in the eigenbases of GGᵀ and GᵀG."""

    def make(net: Network) -> Any:
        never = {"weight_decay": 0.0, "precondition_frequency": 10**9}  # no later basis, which it takes in float32
        made = others().SOAP(matrices(net), LR, betas=(0.0, 0.0), shampoo_beta=0.0, eps=eps, **never)
        made.param_groups[0]["step"] = 1  # its first step sets up and moves nothing
        return Before(made, _forget)

    return each(make, rest)


shampoo_spectral = equal(
    "shampoo-spectral",
    "pytorch_optimizer's Shampoo with its state cleared before each step and matrix_eps 0 is steepest descent in the "
    "spectral norm, for square matrices.",
    r"(GG^\top)^{-1/4}\, G\, (G^\top G)^{-1/4} = U V^\top",
    f"{ANTHOLOGY}, section 3",
    _SPECTRAL,
    shampoo(0.0),
    peer=True,
    **_RANKED,
)
shampoo_eps = equal(
    "shampoo-with-eps",
    "pytorch_optimizer's Shampoo with its state cleared before each step and its matrix_eps of 10⁻⁶ is steepest "
    "descent in the spectral norm.",
    r"(\varepsilon I + GG^\top)^{-1/4}\, G\, (\varepsilon I + G^\top G)^{-1/4} = U V^\top",
    f"{ANTHOLOGY}, section 3, read with eps",
    _SPECTRAL,
    shampoo(1e-6),
    peer=True,
    **FAILS,
)
shampoo_default = equal(
    "shampoo-by-default",
    "pytorch_optimizer's Shampoo as it is, which accumulates, is steepest descent in the spectral norm.",
    r"(\textstyle\sum_t G_t G_t^\top)^{-1/4}\, G\, (\sum_t G_t^\top G_t)^{-1/4} = U V^\top",
    f"{ANTHOLOGY}, section 3, read with accumulation",
    _SPECTRAL,
    shampoo(1e-6, accumulates=True),
    peer=True,
    **FAILS,
)
soap_spectral = equal(
    "soap-spectral",
    "pytorch_optimizer's SOAP with betas 0, its state cleared before each step and its eps of 10⁻⁸ follows steepest "
    "descent in the spectral norm to 10⁻⁴: in the eigenbases of GGᵀ and GᵀG Adam's sign of diag(g), whose zeros are "
    "rounding errors that eps keeps small.",
    r"U\, \operatorname{sign}(U^\top G V)\, V^\top = U V^\top",
    "Vyas et al., SOAP, arXiv 2409.11321, without averages",
    _SPECTRAL,
    soap(1e-8),
    peer=True,
    **{**_RANKED, "slack": 1e-4, "resolution": 1e-3},
)
soap_without_eps = equal(
    "soap-without-eps",
    "pytorch_optimizer's SOAP with betas 0, its state cleared before each step and eps 10⁻³⁰⁰ is steepest descent in "
    "the spectral norm: so it would be if the zeros of diag(g) were exact, and had no sign.",
    r"\operatorname{sign}(U^\top G V) = I",
    "Vyas et al., SOAP, arXiv 2409.11321, without averages and eps",
    _SPECTRAL,
    soap(1e-300),
    peer=True,
    draw=networks(shapes=_SQUARE),
    **FAILS,
)
soap_default = equal(
    "soap-by-default",
    "pytorch_optimizer's SOAP as it is, with averages, is steepest descent in the spectral norm.",
    r"\beta_1 = \beta_2 = 0.95: \quad W \to W - \eta\, U V^\top",
    "Vyas et al., SOAP, arXiv 2409.11321, read without averages",
    _SPECTRAL,
    each(lambda net: others().SOAP(matrices(net), LR, weight_decay=0.0), rest),
    peer=True,
    **FAILS,
)

scion_default = equal(
    "scion-by-default",
    "pytorch_optimizer's SCION as it is, five quintics in bfloat16, is steepest descent in the RMS → RMS norm.",
    r"W \to W - \eta \sqrt{m/n}\, U V^\top",
    "Pethick et al., arXiv 2502.07529, read as UVᵀ",
    each(descent("rms-to-rms", momentum=0.9), rest),
    each(scion(norm_type=2), rest),
    peer=True,
    **FAILS,
)

CLAIMS = (
    shampoo_spectral,
    shampoo_eps,
    shampoo_default,
    soap_spectral,
    soap_without_eps,
    soap_default,
    scion_default,
)
