"""Two optimizers followed side by side on the gradients of small networks.

Margins are distances between two runs over the way gone, so that a claim that fails says by how much. They come from
floating point alone and are graded as sampled: a run of another's code has no error bound. What the others' defaults
add (eps, averages, a polynomial in bfloat16) has claims of its own, which are expected to fail.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from icm.norms import Norm
from icm.optim import SteepestDescent
from icm.theory.claim import Claim
from icm.theory.claims.trained import Make, Network, apart, every, matrices, networks, trained
from icm.theory.evidence import Expected

LR = 0.01
PEER = "pytorch_optimizer"
COST = 100  # of a run, in instances of other claims
ANTHOLOGY = "Bernstein & Newhouse, arXiv 2409.20325"
SETTINGS: dict[str, Any] = {"equality": True, "enclosable": False, "slack": 1e-10, "cost": COST}
FAILS: dict[str, Any] = {"expected": Expected.FAILS}


def equal(
    name: str, statement: str, latex: str, source: str, ours: Make, theirs: Make, *, peer: bool = False, **more: Any
) -> Claim:
    """The claim that two optimizers make the same runs."""
    return Claim(
        name=name,
        statement=statement,
        latex=latex,
        source=source,
        margin=lambda case: apart(trained(case, ours), trained(case, theirs)),
        **{"draw": networks(), **SETTINGS, **({"needs": PEER} if peer else {}), **more},
    )


def others() -> Any:
    """The package of the others' optimizers."""
    return importlib.import_module(PEER)


def descent(norm: str | Norm, **options: Any) -> Callable[[Network], SteepestDescent]:
    """Steepest descent of the matrices."""
    plain = {"momentum": 0.0, "nesterov": False}
    return lambda net: SteepestDescent(matrices(net), LR, norm, **{**plain, **options})


def whole(norm: str, lr: float = LR, **options: Any) -> Callable[[Network], SteepestDescent]:
    """Steepest descent of all tensors."""
    plain = {"momentum": 0.0, "nesterov": False}
    return lambda net: SteepestDescent(every(net), lr, norm, **{**plain, **options})


def scion(**options: Any) -> Callable[[Network], Any]:
    """pytorch_optimizer's SCION of the matrices, with momentum 0.9 as others say it."""
    return lambda net: others().SCION(matrices(net), lr=LR, momentum=0.1, **options)
