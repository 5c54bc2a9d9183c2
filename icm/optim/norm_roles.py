"""Which norm each parameter of a model is trained in, by the role it plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from icm.errors import InputError
from icm.networks import nearest
from icm.norms import RMS, MaxEntry, Norm, OneToRMS, RMSToRMS
from icm.optim.descent import norm_at
from icm.optim.groups import groups
from icm.optim.layout import Layout
from icm.optim.roles import ROLES, Role
from icm.optim.stacks import Column, KernelPositions, positions
from icm.optim.tuned import Tuned

_LINEAR = RMSToRMS(method="products", precision="bf16")
_NORMS: Mapping[Role, Norm] = {
    "matrices": _LINEAR,
    "convolutions": _LINEAR,
    "experts": _LINEAR,
    "fused": _LINEAR,
    "embeddings": OneToRMS(),
    "heads": MaxEntry(),
    "norms": MaxEntry(),
    "biases": RMS(),
    "vectors": MaxEntry(),
    "others": RMS(),
}
ADAMW = "adamw"
_HEAD = 5.0  # how many times as far logits move as other outputs: small models then train best
_GAIN = 3.0  # and how many times less far gains do


class _Way(NamedTuple):
    """How a parameter is trained: by AdamW where the norm is None."""

    norm: Norm | Tuned | None
    layout: Layout
    weight: float


def role_norms(
    model: nn.Module,
    *,
    norms: Mapping[str, Norm | Tuned | str] | None = None,
    weights: Mapping[str, float] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    **declared: Any,
) -> list[dict[str, Any]]:
    """Every parameter of `model` in groups for `SteepestDescent`, by the roles of `icm.optim.groups`, each with a norm
    in which a step of length 1 changes the layer's outputs by at most 1 (a head's by 5, a gain's by 1/3), and the
    weight s that makes it so:

        matrices, experts, fused   RMS→RMS            √(n/m)‖W‖₂: outputs' root mean square, of inputs' 1
        convolutions               K · RMS→RMS        for each of the K kernel positions, whose outputs add up
        embeddings                 ℓ1→RMS             of each token's vector; free tables (positions) likewise
        heads                      n/5 · max-entry    ℓ1→ℓ∞: the largest logit; their biases: max-entry
        norms                      3 · max-entry      the RMS→RMS norm of the diagonal matrix that a gain is
        vectors                    max-entry          likewise
        biases, others             RMS                what they add

    For a head of n inputs |Wx| ≤ max|W_ij| ‖x‖₁ ≤ n max|W_ij| at root mean square 1: no logit changes by more than so
    much, where RMS→RMS bounds their mean square over the vocabulary alone; and every entry moves alike, as in Adam and
    in Scion (arXiv 2502.07529), however rare the word. Logits saturate where hidden outputs do not, and take longer
    steps, as they do there. Bits per byte of a language model of width 64 after 200 steps, each at its better lr of
    0.03 and 0.06: 3.27 at n, 3.24 at n/5, 3.27 at n/20; at 0.06, 3.52 for the rows' Euclidean norms, 3.71 for RMS→RMS.
    With momentum 0.9, 3.11 with gains at max-entry, 3.02 at 3 · max-entry, 3.03 at 10. An embedding's column whose
    momentum is not 0 moves by the full length, though its token is rare.

    - norms: other ones, {"heads": "rms-to-rms", "matrices": Tuned()}; "adamw" gives a role to AdamW, with the
      optimizer's betas and eps.
    - weights: s is multiplied by this, {"heads": 0.1} makes the head's steps ten times as long. Where a role's norm is
      another one than above, s is this alone.
    - options: of a role's groups, {"norms": {"momentum": 0.0}}, and `declared`: fused, per_head, experts, matrices,
      heads, embeddings, as in `icm.optim.groups`.

    Raises InputError for unknown roles, and as `icm.optim.groups`.
    """
    given: dict[str, Norm | Tuned | None] = {}
    for chosen, norm in (norms or {}).items():
        given[chosen] = None if norm == ADAMW else norm_at(norm, 0)
    for option, named in (("norms", given), ("weights", weights or {})):
        for one in named:
            if one not in ROLES:
                like = nearest(one, ROLES, 1)[0]
                raise InputError(f"{option}: {one!r} is no role, perhaps {like!r}; the roles are {', '.join(ROLES)}")
    found: list[dict[str, Any]] = []
    for group in groups(model, options=options, **declared):
        role: Role = group["role"]
        kept = {key: value for key, value in group.items() if key not in ("params", "reasons", "algorithm", "layout")}
        by_way: dict[_Way, tuple[list[tuple[str, Tensor]], list[str]]] = {}
        for (name, p), reason in zip(group["params"], group["reasons"], strict=True):
            own, reasons = by_way.setdefault(_way(role, p, group["layout"], given, weights or {}), ([], []))
            own.append((name, p))
            reasons.append(reason)
        for way, (own, reasons) in by_way.items():
            how = {"norm": way.norm, "weight": way.weight} if way.norm is not None else {}
            algorithm = ADAMW if way.norm is None else "norm"
            layout = None if way.norm is None else way.layout
            found.append(
                how | kept | {"params": own, "algorithm": algorithm, "layout": layout, "reasons": tuple(reasons)}
            )
    return found


def _way(
    role: Role, p: Tensor, layout: Layout | None, given: Mapping[str, Norm | Tuned | None], weights: Mapping[str, float]
) -> _Way:
    shape, weight = tuple(p.shape), float(weights.get(role, 1.0))
    wide = sum(size > 1 for size in shape)
    norm, factor = given.get(role, _NORMS[role]), 1.0
    if layout is not None:
        if role == "convolutions" and not layout.divided:
            layout = KernelPositions(layout.kind, groups=layout.groups)
            factor = positions(shape)
    elif role == "heads" and len(shape) == 2:
        layout, factor = Layout(), shape[1] / _HEAD
    elif wide == 2 and role in ("embeddings", "others") and len(shape) >= 2 and shape[-1] > 1 and shape[-2] > 1:
        layout = Layout("transposed" if len(shape) == 2 else "experts-transposed")
        norm = given.get(role, _NORMS["embeddings"])
    else:
        layout, factor = Column(), _GAIN if role == "norms" else 1.0
        if role == "embeddings":
            norm = given.get(role, RMS())
    return _Way(norm, layout, weight * (factor if role not in given else 1.0))
