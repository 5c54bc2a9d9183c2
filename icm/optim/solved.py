"""`ICM`: a torch optimizer whose update is the solution of the isotropic curvature model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icm.curvature import Wall
from icm.errors import InputError
from icm.maps.polynomial import Precision
from icm.measure import InputMoments
from icm.optim import adamw, matrices, records
from icm.optim.direction import Units
from icm.optim.gradients import Nonfinite, finite, refuse, report
from icm.optim.groups import groups
from icm.optim.layout import Layout
from icm.optim.options import Choice, check_group
from icm.optim.scaling import Scaling
from icm.optim.table import table

_SORTING = tuple(name for name in inspect.signature(groups).parameters if name not in ("model", "lr", "adamw_lr"))
_MUON = Wall(1.0)


class ICM(torch.optim.Optimizer):
    """W ← (1 − lr · weight_decay) W − lr · s(m, n) √k Q/‖Q‖_F with Q = argmin −Tr(QGᵀ) + E H(‖Qζ‖), G the momentum.

    For each matrix W (m outputs × n inputs, k = min(m, n)): B ← momentum · B + (1 − momentum) · gradient, and G is B
    or, with `nesterov`, momentum · B + (1 − momentum) · gradient again, as in torch.optim.Muon, which is what a wall
    alone gives.

    - params: an iterable of matrices or of groups, such as `icm.optim.groups(model)`, which also sorts what is no
      matrix into groups with "algorithm": "adamw". Those are trained by AdamW with their own lr, `betas` and `eps`.
    - curvature: H, its text such as "0.1*r^2 + 5*kink(1)", or a function of the step, from 0; one for each group.
    - units: "relative" divides G by the sum of its singular values first, so that H's slopes are in units of the
      orthogonality threshold and the size of the gradient changes nothing; "loss" takes G as it is.
    - scaling: s of `icm.optim.scaling.length`. With "none" the step is lr · Q: the program chooses its length.
    - backend: "products" solves anew every `refresh` steps, and where the gradient has left what the map was made for,
      and applies the map by at most `products` matrix products in `precision`; `tol` is the error asked for at a
      refresh, `errors` what was had. "exact" solves every step by an SVD in float64.
    - input_moments: an `icm.measure.InputMoments`, for inputs with a second moment C: Q̃ solves the program of
      G C^{−1/2}, and Q̃ C^{−1/2} takes the place of Q. `for_model` makes one.
    - cautious: weights of matrices decay only where the update shrinks them too (Chen et al., arXiv 2510.12402).
    - nonfinite: what NaN or infinite gradients do: "skip" leaves the step out with a RuntimeWarning, "raise" raises
      InputError; in both parameters and state stay as they were. "ignore" does not look, which on a GPU saves a wait.

    Under torch.compile a step with a wall is one graph for nonfinite="ignore"; other H, "exact", and looking at
    gradients break it.

    Momentum is kept in float32 for parameters of 16 bits. Gradients are not clipped, and with relative units clipping
    their norm changes only their weight in the momentum. State dicts resume bitwise; one of torch.optim.Muon loads.

    Raises InputError for options or parameters that cannot be used, and in `step` for sparse gradients, DtypeError for
    complex ones, SolveError where the program has no answer, by when momenta have moved: mend H and go on from a
    checkpoint. An optimizer with input moments cannot be copied or pickled; its state dict can.
    Source: Su, arXiv 2511.00674.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        curvature: Choice = _MUON,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        *,
        cautious: bool = False,
        scaling: Scaling = "match-rms-adamw",
        units: Units = "relative",
        backend: str = "products",
        refresh: int = 10,
        tol: float = 5e-2,
        products: int = 12,
        precision: Precision = "bf16",
        input_moments: InputMoments | None = None,
        adamw_lr: float | Tensor | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        nonfinite: Nonfinite = "skip",
    ):
        if nonfinite not in ("skip", "raise", "ignore"):
            raise InputError(f"nonfinite={nonfinite!r}: choose 'skip', 'raise' or 'ignore'")
        self.nonfinite: Nonfinite = nonfinite
        self.input_moments = input_moments
        self._adamw_lr = adamw_lr
        defaults = {
            "lr": lr, "curvature": curvature, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay,
            "cautious": cautious, "scaling": scaling, "units": units, "backend": backend, "refresh": refresh,
            "tol": tol, "products": products, "precision": precision, "betas": betas, "eps": eps, "algorithm": "icm",
            "step": 0,
        }  # fmt: skip
        super().__init__(params, defaults)

    @classmethod
    def for_model(
        cls,
        model: nn.Module,
        lr: float | Tensor | Mapping[str, float | Tensor] = 1e-3,
        *,
        input_moments: bool | Mapping[str, Any] = True,
        adamw_lr: float | Tensor | None = None,
        **options: Any,
    ) -> ICM:
        """The optimizer of a whole model: its parameters sorted by `icm.optim.groups`, which takes its options from
        here too, and the second moments of linear layers' inputs collected while it trains.

        `input_moments`: False for none, or the options of `icm.measure.InputMoments`; by default they are collected
        every `refresh` steps. Print the optimizer to see what gets what.
        """
        sorting = {name: options.pop(name) for name in _SORTING if name in options}
        sorted_groups = groups(model, lr=lr, adamw_lr=adamw_lr, **sorting)
        base = 1e-3 if isinstance(lr, Mapping) else lr
        moments = None
        if input_moments is not False:
            mine = [p for group in sorted_groups if group["algorithm"] == "icm" for _, p in group["params"]]
            given = {"every": options.get("refresh", 10)} | ({} if input_moments is True else dict(input_moments))
            moments = InputMoments(model, InputMoments.measurable(model, mine), **given)
        return cls(sorted_groups, lr=base, input_moments=moments, adamw_lr=adamw_lr, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As for every optimizer; a group may have its own of all options, and "algorithm": "adamw"."""
        group = dict(param_group)
        if group.get("algorithm", "icm") == "adamw":
            group.setdefault("layout", None)
            if "lr" not in group:
                group["lr"] = self._rate_of_adamw(group)
        else:
            group.setdefault("layout", Layout())
        super().add_param_group(group)
        added = self.param_groups[-1]
        names = added.get("param_names") or [f"parameter {i}" for i in range(len(added["params"]))]
        try:
            check_group(added, names)
        except Exception:
            self.param_groups.pop()
            raise

    def _rate_of_adamw(self, group: Mapping[str, Any]) -> float | Tensor:
        if self._adamw_lr is not None:
            return self._adamw_lr
        if group.get("scaling", self.defaults["scaling"]) != "match-rms-adamw":
            raise InputError(
                "a group trained by AdamW has no lr of its own, and that of the matrices means the same only with "
                "scaling='match-rms-adamw': pass adamw_lr, such as 3e-4"
            )
        return self.defaults["lr"]

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
            if self.input_moments is not None:
                self.input_moments.discard()
            return loss
        if self.input_moments is not None:
            self.input_moments.step()
        made: dict[str, Tensor] = {}
        for group, params in zip(self.param_groups, ready, strict=True):
            if params and group["algorithm"] == "adamw":
                adamw.step(params, self.state, group)
            elif params:
                if self.input_moments is not None:
                    matrices.renew_roots(params, self.state, self.input_moments, group, made)
                matrices.step(params, self.state, group)
            group["step"] += 1
        return loss

    def errors(self) -> dict[str, float]:
        """The bound of ‖Q − Q*‖_F/‖Q*‖_F at the last refresh, of the worst matrix of each parameter that has maps; with
        input moments that of Q̃."""
        found: dict[str, float] = {}
        for name, p in self._named():
            maps = [one.map for one in self.state.get(p, {}).get("memory", ()) if one]
            if any(maps):
                found[name] = max(map.error.total for map in maps if map)
        return found

    def _named(self) -> list[tuple[str, Tensor]]:
        count, named = 0, []
        for group in self.param_groups:
            names = group.get("param_names") or [f"parameter {count + i}" for i in range(len(group["params"]))]
            named += zip(names, group["params"], strict=True)
            count += len(group["params"])
        return named

    def state_dict(self) -> dict[str, Any]:
        """Numbers, text and tensors alone, as `torch.load(weights_only=True)` wants them; without layouts, which the
        model decides, and without curvatures that have no text (functions of the step, `Custom`)."""
        content = super().state_dict()
        content["state"] = {
            key: {
                name: [[records.written(one) for one in part] for part in value.parts] if name == "memory" else value
                for name, value in entry.items()
            }
            for key, entry in content["state"].items()
        }
        content["param_groups"] = [records.plain_group(group) for group in content["param_groups"]]
        if self.input_moments is not None:
            content["input_moments"] = self.input_moments.state_dict()
        return content

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the state was taken, bitwise, in the precision it was kept in; also from torch.optim.Muon, whose
        momentum, lr and adjust_lr_fn are taken over.

        Raises InputError for input moments that are on one side only, ValueError for other parameters; then nothing is
        changed.
        """
        content = dict(state_dict)
        moments = content.pop("input_moments", None)
        if (moments is None) != (self.input_moments is None) and content["state"]:
            here, there = ("measures", "has none") if moments is None else ("does not measure", "has some")
            raise InputError(
                f"the optimizer {here} input moments and the state {there}: build it as it was when the state was taken"
            )
        entries = content["state"]
        content["state"] = {}
        own = [dict(group) for group in self.param_groups]
        given = content["param_groups"]
        content["param_groups"] = [records.filled(g, mine) for g, mine in zip(given, own, strict=False)] + given[
            len(own) :
        ]
        if [len(group["params"]) for group in given] == [len(group["params"]) for group in own]:  # else super raises
            for group, theirs in zip(own, given, strict=True):
                for p, key in zip(group["params"], theirs["params"], strict=True):
                    records.check(entries.get(key, {}), p)
            if self.input_moments is not None and moments is not None:
                self.input_moments.load_state_dict(moments)
        super().load_state_dict(content)
        shared: dict[int, Tensor] = {}
        for group, theirs in zip(self.param_groups, given, strict=True):
            for p, key in zip(group["params"], theirs["params"], strict=True):
                if key in entries:
                    self.state[p] = records.placed(entries[key], p, group, shared)

    def __getstate__(self) -> dict[str, Any]:
        if self.input_moments is not None:
            raise InputError(
                "this optimizer measures a model by hooks and cannot be copied or pickled: keep its state_dict()"
            )
        return super().__getstate__() | {"nonfinite": self.nonfinite, "_adamw_lr": self._adamw_lr}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("input_moments", None)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} (", table(self.param_groups), *records.settings(self.param_groups)]
        if self.input_moments is not None:
            roots = {s["root"].data_ptr(): s["root"] for s in self.state.values() if "root" in s}
            held = sum(S.numel() * S.itemsize for S in roots.values())
            lines += [str(self.input_moments), f"their roots: {held / 2**20:.3g} MiB"]
        if found := self.errors():
            name = max(found, key=lambda key: found[key])
            lines.append(f"error at the last refresh: at most {found[name]:.1e} ({name})")
        return "\n".join([*lines, ")"])
