"""The factors of a network's gradients, averaged from step to step, and their inverse square root."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from icm.errors import InputError
from icm.symmetry.coordinates import coordinates, parameters
from icm.symmetry.network import Label, Network


def direction(
    params: Sequence[Tensor], live: Sequence[bool], state: MutableMapping[Tensor, Any], group: Mapping[str, Any]
) -> list[Tensor]:
    """(Σ̂ + δ)^{−1/2} G for the parameters of one network, in float64, and the averages moved on.

    M ← decay · M + (1 − decay) · X Xᵀ/dim λ, over the share of it that is not the zero start. Parameters without a
    gradient are no part of Σ̂, and what is known of them stays: entries between one of them and another are multiplied
    by √decay, which leaves M positive semidefinite. While only one gradient is known X itself is decomposed, which
    tells singular values to 1e-16 of the largest; M tells them to 1e-8.
    """
    network, decay = group["network"], group["decay"]
    G = [
        _wide(p.grad if alive and p.grad is not None else torch.zeros_like(p))
        for p, alive in zip(params, live, strict=True)
    ]
    X = coordinates(G, network)
    known = [state[p].get("weight", 0.0) for p in params]
    kept = [decay if alive else 1.0 for alive in live]
    weights = [k * w + (1 - decay) * alive for k, w, alive in zip(kept, known, live, strict=True)]
    alone = not any(k * w for k, w, alive in zip(kept, known, live, strict=True) if alive)
    eps = max(torch.finfo(torch.promote_types(p.dtype, torch.float32)).eps for p in params)
    averages: dict[Label, Tensor] = {}
    for label, x in X.items():
        if decay:
            fade, fill = (_rows(network, label, values).to(x) for values in (kept, live))
            new = x @ x.mT * ((1 - decay) / network.dimension(label))
            old = state[params[0]].get(_key(label))
            if old is not None:
                new += fade.sqrt()[:, None] * old * fade.sqrt()
            state[params[0]][_key(label)] = new
            if not alone:
                scale = fill / _rows(network, label, [w or 1.0 for w in weights]).to(x).sqrt()
                averages[label] = scale[:, None] * new * scale
    for p, weight in zip(params, weights, strict=True):
        if decay:
            state[p]["weight"] = weight
    damping = group["damping"]
    if damping:
        count = sum(p.numel() for p, alive in zip(params, live, strict=True) if alive)
        traces = {label: x.square().sum() for label, x in X.items()}
        traces |= {label: network.dimension(label) * M.trace() for label, M in averages.items()}
        total = torch.stack(list(traces.values())).sum()
        damping = damping * total / count
    Y = {}
    for label, x in X.items():
        near = ((8 + max(x.shape) ** 0.5) * eps) ** 2
        if averages:
            floor = 8 * len(x) * torch.finfo(x.dtype).eps
            cut = max(near, floor) if group["cut"] is None else group["cut"]
            Y[label] = inverse_root(averages[label], damping, cut) @ x
        else:
            cut = near if group["cut"] is None else group["cut"]
            Y[label] = whitened(x, network.dimension(label), damping, cut)
    return parameters(Y, network)


def inverse_root(M: Tensor, damping: float | Tensor, cut: float) -> Tensor:
    """(M + damping)^{−1/2} for symmetric M (μ, μ); eigenvalues up to `cut` times the largest are taken as 0, and where
    nothing is added their power as 0 too."""
    w, U = torch.linalg.eigh(M)
    lifted = w.where(w > cut * w[-1:], 0.0) + damping
    live = lifted > 0
    return (U * lifted.where(live, 1.0).rsqrt().where(live, 0.0)) @ U.mT


def whitened(X: Tensor, dimension: int, damping: float | Tensor, cut: float) -> Tensor:
    """(X Xᵀ/dimension + damping)^{−1/2} X for X (μ, k) from its singular values: √dimension · U Vᵀ without damping."""
    U, s, Vh = torch.linalg.svd(X, full_matrices=False)
    live = s > cut**0.5 * s[:1]
    s = s.where(live, 1.0) / dimension**0.5
    ratio = s / (s * s + damping).sqrt() if isinstance(damping, Tensor) else torch.ones_like(s)
    return (U * (ratio.where(live, 0.0) * dimension**0.5)) @ Vh


def check(entry: Mapping[str, Any], network: Network) -> None:
    """Raise InputError for a state whose factors are not those of the network."""
    for name, value in entry.items():
        if not name.startswith("factor "):
            continue
        sizes = {_key(label): network.multiplicity(label) for label in network.labels}
        if tuple(value.shape) != (sizes.get(name, 0),) * 2:
            raise InputError(
                f"the state has a {name} of shape {tuple(value.shape)}, which {network} has not: load the state of the "
                "same model"
            )


def _key(label: Label) -> str:
    return "factor " + ("–".join(map(str, label)) or "fixed")


def _rows(network: Network, label: Label, values: Sequence[float]) -> Tensor:
    """Each parameter's value for each of its copies in M, (μ,)."""
    counts = [network.copies(axes, label) for axes in network.parameters]
    return torch.tensor(values, dtype=torch.float64).repeat_interleave(torch.tensor(counts))


def _wide(tensor: Tensor) -> Tensor:
    """In float64, or float32 where the device has none."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)
