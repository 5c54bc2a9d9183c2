"""`SteepestDescent`: a torch optimizer for steepest descent in any norm, or the norm of all tensors that they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.norms.modular import Combine
from icm.optim import adamw, descent, descent_options, records
from icm.optim.descent import Choice, Part
from icm.optim.escalator import Escalator
from icm.optim.gradients import Nonfinite, finite, refuse, report
from icm.optim.groups import groups
from icm.optim.layout import Layout
from icm.optim.norm_roles import role_norms
from icm.optim.stacks import Column
from icm.optim.table import table
from icm.optim.tuned import exponents

_SORTING = tuple(name for name in inspect.signature(groups).parameters if name not in ("model", "lr", "adamw_lr"))


class SteepestDescent(torch.optim.Optimizer):
    """W ← (1 − lr · weight_decay) W − η T with T = argmax ⟨G, T⟩ over ‖T‖ ≤ 1, G the momentum.

    B ← momentum · B + (1 − momentum) · gradient, and G is B or, with `nesterov`, momentum · B + (1 − momentum) ·
    gradient again. Each group has a `norm` and a `weight` s; all of an optimizer's matrices together have the norm N of
    `icm.norms.Modular` that `combine` makes: max s‖W‖, Σ s‖W‖ ("sum"), or (Σ s²‖W‖²)^{1/2} ("rss"). With the u there,

    - length="unit": η = lr · u/s, a step of N-length lr; in "max" each matrix moves by lr/s, for itself;
    - length="dual": η = lr · N†(G) · u/s, steepest descent of sharpness 1/lr: argmin ⟨G, D⟩ + N(D)²/(2 lr). In "rss"
      that is lr · ‖G‖†/s² for each matrix itself, so that the Frobenius norm makes gradient descent of it:
      torch.optim.SGD of the learning rate (1 − momentum) · lr.

    Options, for each group its own but for combine, escalator and nonfinite:

    - norm: an `icm.norms.Norm`, its text such as "schatten(3)", a function of the step, from 0, or `icm.optim.Tuned`,
      with which every matrix learns its own Schatten p: `exponents` tells them.
    - mode="constrained": W ← (1 − lr) W − lr · radius · u/s · T, Frank and Wolfe's step: weights with N(W) ≤ radius
      stay there while lr ≤ 1, others come there (Scion, Pethick et al., arXiv 2502.07529).
    - normalize: after a step, W ← radius/s · W/‖W‖, each matrix on its norm's sphere, as nGPT's rows are on theirs
      (Loshchilov et al., arXiv 2410.01131); T is of norm 1 already. To first order that undoes what of a step goes
      along W; nothing is projected onto the tangent space before.
    - escalator: an `Escalator`, or the start of one; steps are lr · η long for an η that grows as Prodigy's.
    - cautious, nonfinite: as of `icm.optim.ICM`. layout: how a group's tensors are stacks of matrices, each of which
      has the norm; by default matrices, or columns if some tensor of the group is no matrix.

    A group with "algorithm": "adamw" is trained by AdamW. Momentum is kept in float32 for parameters of 16 bits. State
    dicts resume bitwise. Under torch.compile a step is one graph for nonfinite="ignore" and norms that take no
    decomposition.

    Raises InputError for options or parameters that cannot be used, and in `step` for sparse gradients, DtypeError for
    complex ones.
    Source: Bernstein & Newhouse, arXiv 2409.20325.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        norm: Choice = "rms-to-rms(products, precision=bf16)",
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        *,
        mode: Literal["unconstrained", "constrained"] = "unconstrained",
        length: Literal["unit", "dual"] = "unit",
        combine: Combine = "max",
        weight: float = 1.0,
        radius: float = 1.0,
        normalize: bool = False,
        cautious: bool = False,
        escalator: Escalator | float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        nonfinite: Nonfinite = "skip",
    ):
        if nonfinite not in ("skip", "raise", "ignore"):
            raise InputError(f"nonfinite={nonfinite!r}: choose 'skip', 'raise' or 'ignore'")
        self.nonfinite: Nonfinite = nonfinite
        self.combine: Combine = combine
        self.escalator = Escalator(escalator) if isinstance(escalator, (int, float)) else escalator
        self.eta = None if self.escalator is None else torch.tensor(self.escalator.start, dtype=torch.float64)
        defaults = {
            "lr": lr, "norm": norm, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay,
            "mode": mode, "length": length, "weight": weight, "radius": radius, "normalize": normalize,
            "cautious": cautious, "betas": betas, "eps": eps, "algorithm": "norm", "step": 0,
        }  # fmt: skip
        super().__init__(params, defaults)

    @classmethod
    def for_model(cls, model: nn.Module, lr: float | Tensor, **options: Any) -> SteepestDescent:
        """The optimizer of a whole model, each parameter in the norm of its role: `icm.optim.role_norms`, which takes
        its options, `norms` and `weights` among them, from here. Print the optimizer to see what gets what.

        With `normalize`, biases, gains, vectors and other tensors that no layer multiplies by are left free.
        """
        sorting = {name: options.pop(name) for name in (*_SORTING, "norms", "weights") if name in options}
        found = role_norms(model, **sorting)
        if options.get("normalize"):
            for group in found:
                if isinstance(group["layout"], Column):
                    group.setdefault("normalize", False)
        return cls(found, lr, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As for every optimizer; a group may have its own of most options, and "algorithm": "adamw"."""
        group = dict(param_group)
        group["params"] = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        if group.get("layout") is None and group.get("algorithm", "norm") != "adamw":
            tensors = [each[1] if isinstance(each, tuple) else each for each in group["params"]]
            group["layout"] = Layout() if all(p.ndim == 2 for p in tensors) else Column()
        group.setdefault("layout", None)
        super().add_param_group(group)
        added = self.param_groups[-1]
        names = added.get("param_names") or [f"parameter {i}" for i in range(len(added["params"]))]
        try:
            descent_options.check(added, names, self.combine, self.escalator)
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
        ready = [
            [p for p in group["params"] if p.grad is not None and p.requires_grad and p.numel()]
            for group in self.param_groups
        ]
        gradients = [p.grad for params in ready for p in params]
        for params in ready:
            for p in params:
                refuse(p, p.grad)
        if self.nonfinite != "ignore" and not finite(gradients):
            report(self.nonfinite)
            return loss
        together = self.combine != "max" or self.eta is not None
        held: list[Part] = []
        for group, params in zip(self.param_groups, ready, strict=True):
            if params and group["algorithm"] == "adamw":
                adamw.step(params, self.state, group)
            elif params:
                for part in descent.parts(params, self.state, group):
                    if together or group["length"] == "dual":
                        held.append(part)
                    else:
                        part.apply(group["lr"])
            group["step"] += 1
        if held:
            self._apply(held)
        return loss

    def _apply(self, held: list[Part]) -> None:
        """The step of matrices that are to be looked at together."""
        device = held[0].params[0].device
        duals = [d.to(device) for part in held for d in part.duals()]
        lengths = [x.to(device) for part in held for x in part.lengths()] if self.combine == "sum" else []
        dual, u = descent.shares(torch.cat(duals), torch.cat(lengths) if lengths else None, self.combine)
        shares = list(u.split([len(d) for d in duals]))
        eta, against = self.eta, torch.zeros((), dtype=torch.float64, device=device)
        for part in held:
            if eta is not None:
                for p in part.params:
                    self.state[p].setdefault("start", p.detach().clone())
                against += part.against([self.state[p]["start"] for p in part.params]).to(device)
        for part in held:
            rate = part.group["lr"] if eta is None else part.group["lr"] * eta
            mine = [shares.pop(0).to(T.device) for T in part.T]
            part.apply(rate * dual if part.group["length"] == "dual" else rate, mine if self.combine != "max" else None)
        if self.escalator is not None and eta is not None:
            self.eta = self.escalator.next(eta.to(device), against, dual.double())

    def exponents(self) -> dict[str, list[float]]:
        """The Schatten p of each matrix of the parameters whose norm is `icm.optim.Tuned`, by name, so far."""
        named = descent.named(self.param_groups)
        return {name: exponents(self.state[p]) for name, p in named if "shape" in self.state.get(p, {})}

    def state_dict(self) -> dict[str, Any]:
        """Numbers, text and tensors alone, as `torch.load(weights_only=True)` wants them; without layouts, which the
        model decides, and without norms that have no text."""
        content = super().state_dict()
        content["param_groups"] = [descent_options.plain(group) for group in content["param_groups"]]
        if self.eta is not None:
            content["escalator"] = self.eta
        return content

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the state was taken, bitwise, in the precision it was kept in.

        Raises InputError for an escalator on one side only and states of other shapes, ValueError for other parameters;
        then nothing is changed.
        """
        content = dict(state_dict)
        eta = content.pop("escalator", None)
        if (eta is None) != (self.eta is None):
            here, there = ("has an", "has none") if eta is None else ("has no", "has one")
            raise InputError(f"the optimizer {here} escalator and the state {there}: build it as it was")
        entries, given = content["state"], content["param_groups"]
        own = [dict(group) for group in self.param_groups]
        content["state"] = {}
        content["param_groups"] = [records.filled(g, mine) for g, mine in zip(given, own, strict=False)]
        content["param_groups"] += given[len(own) :]
        if [len(group["params"]) for group in given] == [len(group["params"]) for group in own]:  # else super raises
            for group, theirs in zip(own, given, strict=True):
                for p, key in zip(group["params"], theirs["params"], strict=True):
                    records.check(entries.get(key, {}), p)
        super().load_state_dict(content)
        self.eta = None if eta is None else eta.detach().clone()
        for group, theirs in zip(self.param_groups, given, strict=True):
            for p, key in zip(group["params"], theirs["params"], strict=True):
                if key in entries:
                    self.state[p] = records.placed(entries[key], p, group, {})

    def __getstate__(self) -> dict[str, Any]:
        own = ("nonfinite", "combine", "escalator", "eta")
        return super().__getstate__() | {name: getattr(self, name) for name in own}

    def __repr__(self) -> str:
        rows = [descent_options.described(group) for group in self.param_groups]
        lines = [f"{type(self).__name__} (", table(rows), *descent_options.settings(self.param_groups)]
        lines.append(f"combine={self.combine}")
        if self.eta is not None:
            lines.append(f"{self.escalator}: η = {float(self.eta):.4g}")
        return "\n".join([*lines, ")"])
