"""`SymO`: a torch optimizer that takes the curvature of whole networks, not layer by layer, from their symmetry."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from textwrap import wrap
from typing import Any

import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.optim import adamw, averaged_factors, records
from icm.optim.chains import Chain, Declared, chains, of_shapes
from icm.optim.gradients import Nonfinite, finite, refuse, report
from icm.optim.groups import groups
from icm.optim.table import WIDTH, table
from icm.symmetry.network import Network

_SORTING = ("heads", "embeddings", "options")
_OWN = ("network", "role", "layout", "reasons")  # set by the model, not kept in a state dict
_NUMBERS = (
    ("decay", 0.0, 1.0),
    ("damping", 0.0, math.inf),
    ("weight_decay", 0.0, math.inf),
    ("eps", 0.0, math.inf),
)


class SymO(torch.optim.Optimizer):
    """W ← (1 − lr · weight_decay) W − lr · (Σ̂ + δ)^{−1/2} G for all parameters of a network together.

    G is the gradient and Σ̂ what it says of the second moment of gradients over all networks that are as likely as this
    one: averaged over the symmetry, which permutes hidden neurons and for odd activations flips their signs
    (`icm.symmetry.factors`), and from step to step with `decay`, corrected for its start at 0. Σ̂ has blocks of the
    widths of inputs and outputs, which are decomposed in float64 at every step.

    - params: the parameters of one chain of layers, W₁, b₁, W₂, … as `nn.Sequential.parameters()` gives them, or groups
      of which each is one, with its "network", an `icm.symmetry.Network`, or its "activation". `for_model` finds the
      chains of a model. A group with "algorithm": "adamw" is trained by AdamW with `adamw_lr`, `betas`, `eps`.
    - decay: 0 takes the gradient of this step alone. Then, and at the first step, a two-layer tanh network moves by
      √d₁·U Vᵀ with U, V of [G₁, G₂ᵀ]: Muon on its layers, joined along the hidden neurons.
    - damping: δ in units of the mean eigenvalue of Σ̂, so that the size of the gradient changes nothing.
    - cut: eigenvalues of a block up to `cut` times its largest are taken as 0, and so is their inverse. By default what
      rounding in the gradient's dtype, or in the block, may have made.
    - nonfinite: as of `icm.optim.ICM`.

    lr has AdamW's units: the root mean square of an entry's step is about lr, and at most lr/√(1 − decay).
    Gradients below 1e-150 or above 1e150 are not told from 0 and infinity. Averages take 8 μ² bytes for each block of
    size μ; `print` tells the largest. State dicts resume bitwise.

    Raises InputError for options or parameters that cannot be used, and in `step` for sparse gradients, DtypeError for
    complex ones.
    Source: Bernacchia (ICML 2025).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        decay: float = 0.95,
        damping: float = 0.0,
        cut: float | None = None,
        weight_decay: float = 0.0,
        *,
        activation: str | None = None,
        adamw_lr: float | Tensor | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        nonfinite: Nonfinite = "skip",
    ):
        if nonfinite not in ("skip", "raise", "ignore"):
            raise InputError(f"nonfinite={nonfinite!r}: choose 'skip', 'raise' or 'ignore'")
        self.nonfinite: Nonfinite = nonfinite
        self._adamw_lr = adamw_lr
        defaults = {
            "lr": lr, "decay": decay, "damping": damping, "cut": cut, "weight_decay": weight_decay,
            "activation": activation, "betas": betas, "eps": eps, "algorithm": "symo",
        }  # fmt: skip
        super().__init__(params, defaults)

    @classmethod
    def for_model(
        cls,
        model: nn.Module,
        lr: float | Tensor,
        *,
        networks: Declared | None = None,
        largest: int = 8192,
        **options: Any,
    ) -> SymO:
        """The optimizer of a whole model: one group for each chain that `icm.optim.chains` finds, with what `networks`
        declares, and everything else sorted by `icm.optim.groups` for AdamW, whose `heads`, `embeddings` and `options`
        are taken from here. Chains with a block above `largest` go to AdamW too. Warns (UserWarning) where no chain is
        left.

        Print the optimizer to see what was found, and why.
        """
        sorting = {name: options.pop(name) for name in _SORTING if name in options}
        known = set(inspect.signature(cls).parameters)
        if unknown := [name for name in options if name not in known]:
            raise InputError(f"{unknown[0]!r} is no option of SymO: those are {', '.join(sorted(known - {'params'}))}")
        found, reasons, taken = [], {}, set()
        for chain in chains(model, networks):
            size = max(map(chain.network.multiplicity, chain.network.labels))
            if size > largest:
                reasons |= {
                    id(p): f"{chain.reason}: a block of {size}×{size}, largest={largest}" for _, p in chain.params
                }
            else:
                found.append(_group(chain, size))
                taken |= {id(p) for _, p in chain.params}
        if not found:
            warnings.warn(
                "no chain of layers is trained by SymO, all parameters are AdamW's: declare networks={'*.mlp': ('fc1', "
                "'relu', 'fc2')} with the names of your layers where forward calls activations as functions",
                UserWarning,
                stacklevel=2,
            )
        for group in groups(model, adamw=("*",), **sorting):
            rest = [(name, p) for name, p in group["params"] if id(p) not in taken]
            if rest:
                why = tuple(reasons.get(id(p), "in no chain of layers") for _, p in rest)
                found.append(group | {"params": rest, "reasons": why})
        return cls(found, lr, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As for every optimizer; a group is one network, or has "algorithm": "adamw"."""
        group = dict(param_group)
        if group.get("algorithm", "symo") == "adamw":
            group.setdefault("network", None)
            if "lr" not in group:
                group["lr"] = self.defaults["lr"] if self._adamw_lr is None else self._adamw_lr
        super().add_param_group(group)
        added = self.param_groups[-1]
        try:
            if added["algorithm"] == "symo" and added.get("network") is None:
                if added["activation"] is None:
                    raise InputError(
                        "activation=None: say which activation is between the layers, 'tanh' or 'relu' for instance, "
                        "or take SymO.for_model(model, lr), which reads it"
                    )
                added["network"] = of_shapes([p.shape for p in added["params"]], added["activation"])
            _check(added)
        except Exception:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what `closure`, which reevaluates the model, gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        alive = [
            [p.grad is not None and p.requires_grad and p.numel() > 0 for p in group["params"]]
            for group in self.param_groups
        ]
        ready = [
            [p for p, each in zip(group["params"], live, strict=True) if each]
            for group, live in zip(self.param_groups, alive, strict=True)
        ]
        for params in ready:
            for p in params:
                refuse(p, p.grad)
        if self.nonfinite != "ignore" and not finite([p.grad for params in ready for p in params]):
            report(self.nonfinite)
            return loss
        for group, params, live in zip(self.param_groups, ready, alive, strict=True):
            if params and group["algorithm"] == "adamw":
                adamw.step(params, self.state, group)
            elif params:
                moves = averaged_factors.direction(group["params"], live, self.state, group)
                for p, move, each in zip(group["params"], moves, live, strict=True):
                    if each:
                        _move(p, move, group)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Numbers, text and tensors alone, as `torch.load(weights_only=True)` wants them; without networks, which the
        model decides."""
        content = super().state_dict()
        content["param_groups"] = [
            {name: value for name, value in group.items() if name not in _OWN} for group in content["param_groups"]
        ]
        return content

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the state was taken, bitwise, in the precision it was kept in.

        Raises InputError for states of other networks, ValueError for other parameters; then nothing is changed.
        """
        content = dict(state_dict)
        entries, given = content["state"], content["param_groups"]
        own = [dict(group) for group in self.param_groups]
        content["state"] = {}
        content["param_groups"] = [records.filled(g, mine) for g, mine in zip(given, own, strict=False)]
        content["param_groups"] += given[len(own) :]
        if [len(group["params"]) for group in given] == [len(group["params"]) for group in own]:  # else super raises
            for group, theirs in zip(own, given, strict=True):
                for p, key in zip(group["params"], theirs["params"], strict=True):
                    records.check(entries.get(key, {}), p)
                    if group["network"] is not None:
                        averaged_factors.check(entries.get(key, {}), group["network"])
        super().load_state_dict(content)
        for group, theirs in zip(self.param_groups, given, strict=True):
            for p, key in zip(group["params"], theirs["params"], strict=True):
                if key in entries:
                    self.state[p] = records.placed(entries[key], p, group, {})

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"nonfinite": self.nonfinite, "_adamw_lr": self._adamw_lr}

    def __repr__(self) -> str:
        shown = [
            {"role": "network" if g["algorithm"] == "symo" else "–", "reasons": _reasons(g)} | g
            for g in self.param_groups
        ]
        lines: dict[str, list[str]] = {}
        for i, group in enumerate(self.param_groups):
            text = ", ".join(f"{name}={group[name]}" for name in ("decay", "damping", "cut", "weight_decay"))
            if group["algorithm"] == "adamw":
                text = f"AdamW, betas={group['betas']}, eps={group['eps']:g}, weight_decay={group['weight_decay']:g}"
            lines.setdefault(text, []).append(str(group.get("role", i)))
        said = [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in lines.items()]
        folded = [part for one in said for part in wrap(one, WIDTH, subsequent_indent="    ", break_on_hyphens=False)]
        return "\n".join([f"{type(self).__name__} (", table(shown), *folded, ")"])


def _group(chain: Chain, size: int) -> dict[str, Any]:
    reasons = tuple(f"{axes.name} of {chain.reason}; blocks up to {size}×{size}" for axes in chain.network.parameters)
    return {
        "params": list(chain.params),
        "algorithm": "symo",
        "network": chain.network,
        "role": "network",
        "reasons": reasons,
    }


def _reasons(group: Mapping[str, Any]) -> tuple[str, ...]:
    network = group["network"]
    if network is None:
        return ("",) * len(group["params"])
    return tuple(
        f"{axes.name} of {'–'.join(map(str, network.widths))} {network.activation}" for axes in network.parameters
    )


def _move(p: Tensor, move: Tensor, group: Mapping[str, Any]) -> None:
    wide = p.to(torch.promote_types(p.dtype, torch.float32))
    if group["weight_decay"]:
        wide = wide * (1 - group["lr"] * group["weight_decay"])
    p.copy_(wide - (group["lr"] * move).to(wide.dtype))


def _check(group: Mapping[str, Any]) -> None:
    """Raise InputError for a group that cannot be trained, by naming the option or the parameter and the remedy."""
    for name, least, below in _NUMBERS:
        value = group[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < below:
            raise InputError(f"{name}={value!r}: a number ≥ {least:g}{f' and < {below:g}' if below < math.inf else ''}")
    cut, rate = group["cut"], group["lr"]
    if cut is not None and (isinstance(cut, bool) or not isinstance(cut, (int, float)) or not 0 <= cut < 1):
        raise InputError(f"cut={cut!r}: a number ≥ 0 and < 1, or None for what rounding may have made")
    if isinstance(rate, Tensor) and rate.numel() != 1:
        raise InputError(f"lr is a tensor of {rate.numel()} numbers: it holds one")
    if not isinstance(rate, Tensor) and not (isinstance(rate, (int, float)) and 0 <= rate < math.inf):
        raise InputError(f"lr={rate!r}: a number ≥ 0, or a tensor that holds one")
    if group["algorithm"] == "adamw":
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise InputError(f"betas={group['betas']!r}: two numbers ≥ 0 and < 1, AdamW's decays")
        return
    if group["algorithm"] != "symo":
        raise InputError(f"algorithm={group['algorithm']!r}: a group is trained by 'symo' or by 'adamw'")
    network = group["network"]
    if not isinstance(network, Network):
        raise InputError(f"network={network!r}: an icm.symmetry.Network says which layers these parameters are")
    shapes = [tuple(p.shape) for p in group["params"]]
    if wrong := [axes.name for axes, shape in zip(network.parameters, shapes, strict=False) if axes.shape != shape]:
        raise InputError(f"{wrong[0]} of {network} has another shape than its parameter: {shapes}")
    if len(shapes) != len(network.parameters):
        raise InputError(f"{len(shapes)} parameters for {network}, which has {len(network.parameters)}")
