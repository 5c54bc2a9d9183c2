"""Adam, Prodigy and SCION beside descent by signs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from icm.optim import SteepestDescent
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.followed import ANTHOLOGY, FAILS, LR, PEER, SETTINGS, equal, others, scion, whole
from icm.theory.claims.trained import Make, Network, apart, each, every, matrices, networks, rest, trained

RADIUS = 3.0


def adam(**options: Any) -> Make:
    return each(lambda net: torch.optim.Adam(every(net), LR, **options))


_SIGNS = each(whole("max-entry"))

adam_signs = equal(
    "adam-max-entry",
    "torch.optim.Adam with betas 0 and eps 10⁻³⁰⁰ is steepest descent in the largest max-entry norm of all tensors.",
    r"\beta_1 = \beta_2 = 0: \quad W_l \to W_l - \eta\, \operatorname{sign} G_l",
    f"{ANTHOLOGY}, section 2",
    _SIGNS,
    adam(betas=(0.0, 0.0), eps=1e-300),
)
adam_eps = equal(
    "adam-with-eps",
    "torch.optim.Adam with betas 0 and its eps of 10⁻⁸ is sign descent.",
    r"G/(|G| + \varepsilon) = \operatorname{sign} G",
    f"{ANTHOLOGY}, section 2, read with eps",
    _SIGNS,
    adam(betas=(0.0, 0.0)),
    **FAILS,
)
adam_default = equal(
    "adam-by-default",
    "torch.optim.Adam with its averages, betas (0.9, 0.999), is sign descent.",
    r"\beta_1 = 0.9, \beta_2 = 0.999: \quad W_l \to W_l - \eta\, \operatorname{sign} G_l",
    f"{ANTHOLOGY}, section 2, read with averages",
    _SIGNS,
    adam(),
    **FAILS,
)


@contextmanager
def _sums_in(dtype: torch.dtype) -> Iterator[None]:
    """Tensors of this dtype where none is named."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def escalated(sums: torch.dtype, **options: Any) -> Callable[[Case], Tensor]:
    """Prodigy's run beside that of sign descent with its escalator, from 10⁻⁶ on."""

    def margin(case: Case) -> Tensor:
        ours = trained(case, each(whole("max-entry", 1.0, escalator=1e-6)))
        with _sums_in(sums):
            theirs = trained(case, each(lambda net: others().Prodigy(every(net), **options)))
        return apart(ours, theirs)

    return margin


def _prodigy(name: str, statement: str, margin: Callable[[Case], Tensor], **more: Any) -> Claim:
    return Claim(
        name=name,
        statement=statement,
        latex=r"\eta \to \max(\eta, \langle G, W_0 - W\rangle/\|G\|_1), \quad W \to W - \eta\, \operatorname{sign} G",
        source=f"{ANTHOLOGY}, section 4; Mishchenko & Defazio, arXiv 2306.06101",
        margin=margin,
        draw=networks(),
        needs=PEER,
        **{**SETTINGS, **more},
    )


prodigy = _prodigy(
    "prodigy-escalator",
    "pytorch_optimizer's Prodigy with betas 0, eps 10⁻³⁰⁰ and its sums in float64 is sign descent with an escalator.",
    escalated(torch.float64, betas=(0.0, 0.0), eps=1e-300),
)
prodigy_float32 = _prodigy(
    "prodigy-in-float32",
    "pytorch_optimizer's Prodigy with betas 0, its sums in float32 as they come, is sign descent with an escalator.",
    escalated(torch.float32, betas=(0.0, 0.0), eps=1e-300),
    **FAILS,
)
prodigy_default = _prodigy(
    "prodigy-by-default",
    "pytorch_optimizer's Prodigy with its averages, betas (0.9, 0.999), is sign descent with an escalator.",
    escalated(torch.float64),
    **FAILS,
)


def _frank_wolfe(net: Network) -> SteepestDescent:
    """Within max-entry balls of radius RADIUS/n, n inputs."""
    sizes = [{"params": [p], "weight": float(p.shape[1])} for p in matrices(net)]
    return SteepestDescent(sizes, LR, "max-entry", momentum=0.9, nesterov=False, mode="constrained", radius=RADIUS)


scion_signs = equal(
    "scion-signs",
    "pytorch_optimizer's SCION with the sign norm and its constraint is Frank and Wolfe's step in max-entry balls.",
    r"W \to (1-\eta) W - \eta\, (\rho/n) \operatorname{sign} G",
    "Pethick et al., arXiv 2502.07529",
    each(_frank_wolfe, rest),
    each(scion(norm_type=4, constraint=True, scale=RADIUS), rest),
    peer=True,
)

CLAIMS = (
    adam_signs,
    adam_eps,
    adam_default,
    prodigy,
    prodigy_float32,
    prodigy_default,
    scion_signs,
)
