"""AdamW for what is no matrix: torch's own, on float32 copies where parameters have 16 bits."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


def step(params: Sequence[Tensor], state: MutableMapping[Tensor, Any], group: Mapping[str, Any]) -> None:
    """One step of torch.optim.AdamW with the group's lr, betas, eps and weight_decay; state in float32 at least."""
    copies, gradients = [], []
    for p in params:
        kind = torch.promote_types(p.dtype, torch.float32)
        mine = state[p]
        if "step" not in mine:
            mine["step"] = torch.zeros((), dtype=torch.float32)
            for name in ("exp_avg", "exp_avg_sq"):
                mine[name] = torch.zeros_like(p, dtype=kind, memory_format=torch.preserve_format)
        copies.append(p.to(kind))
        gradients.append(p.grad.to(kind))  # type: ignore[union-attr]
    adamw(
        copies,
        gradients,
        [state[p]["exp_avg"] for p in params],
        [state[p]["exp_avg_sq"] for p in params],
        [],
        [state[p]["step"] for p in params],
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
    for p, copy in zip(params, copies, strict=True):
        if copy is not p:
            p.copy_(copy)
