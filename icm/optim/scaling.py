"""How long a step is: lr · s(m, n) · √k for an update of unit Frobenius norm, k = min(m, n)."""

from __future__ import annotations

import math
from typing import Literal, get_args

from icm.errors import InputError

Scaling = Literal["match-rms-adamw", "spectral", "original", "none"]


def length(scaling: Scaling, m: int, n: int) -> float:
    """s(m, n) √k, the Frobenius norm of the step over lr, for a matrix of m outputs × n inputs.

    "match-rms-adamw": s = 0.2 √max(m, n), so that entries have the root mean square 0.2 usual of AdamW (Moonlight,
    arXiv 2502.16982); "original": s = √max(1, m/n) (K. Jordan et al., Muon); "spectral": s = √(m/n), a change of
    the outputs' root mean square of lr for inputs of root mean square 1 (Yang, Simon & Bernstein, arXiv
    2310.17813). These are those of torch.optim.Muon, by these names the first two. Raises InputError for "none",
    which has no length of its own, and other names.
    """
    if scaling == "match-rms-adamw":
        s = 0.2 * math.sqrt(max(m, n))
    elif scaling == "original":
        s = math.sqrt(max(1.0, m / n))
    elif scaling == "spectral":
        s = math.sqrt(m / n)
    else:
        raise InputError(f"scaling={scaling!r} gives no length: choose 'match-rms-adamw', 'spectral' or 'original'")
    return s * math.sqrt(min(m, n))


def check(scaling: str) -> None:
    """Raise InputError for a name that is none of `Scaling`."""
    if scaling not in get_args(Scaling):
        raise InputError(f"scaling={scaling!r}: choose one of {', '.join(map(repr, get_args(Scaling)))}")
