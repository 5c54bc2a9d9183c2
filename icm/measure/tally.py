"""Sums over remainders that never grow: what means, intervals and spreads are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums over examples e of what was measured at R radii and, last, at the radius r₀ of the noise, float64.

    For an example, n its number of remainders and S (R+1) their sums:

        weight = Σ n      weight2 = Σ n²      weight3 = Σ n³      examples = Σ 1
        total = Σ S       mixed = Σ n S       mixed2 = Σ n² S
        outer = Σ S Sᵀ    squared = Σ n S²    cubed = Σ S³
        square = Σ x² over all remainders x   token = Σ over tokens of (Σ_d x)² / directions
        tokens = number of tokens             negative = number of x < 0
        linear = Σ ⟨∇L, δ⟩²                   noise_radius = Σ n r₀
        outputs, inputs = Σ ‖y_t‖², Σ ‖u_t‖² over rows positions
        left_out = number of examples without any remainder, in none of the sums above but the last
    """

    weight: Tensor
    weight2: Tensor
    weight3: Tensor
    examples: Tensor
    total: Tensor
    mixed: Tensor
    mixed2: Tensor
    outer: Tensor
    squared: Tensor
    cubed: Tensor
    square: Tensor
    token: Tensor
    tokens: Tensor
    negative: Tensor
    linear: Tensor
    noise_radius: Tensor
    outputs: Tensor
    inputs: Tensor
    rows: Tensor
    left_out: Tensor

    @classmethod
    def empty(cls, radii: int) -> Tally:
        """Of nothing yet, for that many radii."""
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_PER_RADIUS, (radii + 1,)) | {
            "outer": (radii + 1, radii + 1)
        }
        return cls(**{f.name: torch.zeros(shapes.get(f.name, ()), dtype=torch.float64) for f in fields(cls)})

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "radii tokens directions examples"],
        linear: Float[Tensor, "radii tokens directions examples"],
        real: Float[Tensor, "tokens examples"],
        noise_radius: float,
        rows: tuple[int, float, float],
    ) -> Tally:
        """Of one batch: remainders and linear terms, NaN nowhere, for the tokens that are `real` (1 or 0).

        rows: the number of positions, Σ ‖y‖² and Σ ‖u‖².
        """
        sums = BatchSums(x.shape[0], x.shape[3])
        for each, terms, kept in zip(x.unbind(1), linear.unbind(1), real, strict=True):
            sums.add(each, terms, kept)
            sums.next()
        return sums.tally(noise_radius, rows)

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def mean(self) -> Tensor:
        """(R+1,) Σ S / Σ n."""
        return self.total / self.weight

    @property
    def clusters(self) -> Tensor:
        """(Σ n)²/Σ n², the examples that would say as much if all had equally many remainders."""
        return self.weight**2 / self.weight2

    @property
    def shares(self) -> Tensor:
        """(R+1,) (Σ S)²/Σ S², at most `clusters` and two at least: the same by their shares of the mean, for what is
        made of ratios of means."""
        return (self.total**2 / self.outer.diagonal()).clamp(max=float(self.clusters)).clamp(min=2)

    @property
    def covariance(self) -> Tensor:
        """(R+1, R+1) of the means, by clusters: c/(c−1) Σ_e (S_e − n_e mean)(S_e − n_e mean)ᵀ / (Σ n)², c = `clusters`;
        NaN for one example."""
        return self._scatter * (self.clusters / (self.clusters - 1)) / self.weight**2

    @property
    def skewness(self) -> Tensor:
        """(R+1,) of the means: Σ_e z³ / (Σ_e z²)^(3/2), z = S_e − n_e mean, times √(c(c−1))/(c−2), the correction for
        samples of c = `clusters`; 0 below three, and where rounding drowns the scatter of z."""
        mean, c = self.mean, self.clusters
        second = self._scatter.diagonal()
        third = self.cubed - 3 * mean * self.squared + 3 * mean**2 * self.mixed2 - mean**3 * self.weight3
        clear = second > _CLEAR * self.outer.diagonal()
        if c < 3 - 1e-9:
            return torch.zeros_like(mean)
        return torch.where(clear, third / second.clamp(min=0) ** 1.5, 0.0) * (c * (c - 1)).sqrt() / (c - 2)

    @property
    def _scatter(self) -> Tensor:
        mean = self.mean
        cross = torch.outer(self.mixed, mean)
        return self.outer - cross - cross.T + self.weight2 * torch.outer(mean, mean)

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name).tolist() for f in fields(self)}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Tally:
        kept = {"left_out": 0.0} | dict(kept)  # older files counted none
        return cls(**{f.name: torch.tensor(kept[f.name], dtype=torch.float64) for f in fields(cls)})


class BatchSums:
    """What `Tally.of` makes of a batch, token by token and a few directions at a time: memory for their sums."""

    def __init__(self, radii: int, examples: int):
        self._S = torch.zeros(radii, examples, dtype=torch.float64)
        self._n = torch.zeros(examples, dtype=torch.float64)
        self._per_radius = {
            name: torch.zeros(radii, dtype=torch.float64) for name in ("square", "token", "negative", "linear")
        }
        self._tokens = 0.0
        self._token, self._real, self._drawn = torch.zeros_like(self._S), torch.zeros_like(self._n), 0

    def add(
        self,
        x: Float[Tensor, "radii directions examples"],
        linear: Float[Tensor, "radii directions examples"],
        real: Float[Tensor, " examples"],
    ) -> None:
        """Some directions at one token, which `next` ends, of each example that is `real` (1 or 0)."""
        x, linear, real = x.double().cpu(), linear.double().cpu(), real.double().cpu()
        x, linear = x * real, linear * real
        self._token += x.sum(1)
        self._real, self._drawn = real, self._drawn + x.shape[1]
        for name, value in (
            ("square", x.square().sum((1, 2))),
            ("negative", (x < 0).double().sum((1, 2))),
            ("linear", linear.square().sum((1, 2))),
        ):
            self._per_radius[name] += value

    def next(self) -> None:
        """What is added from here on is of another token."""
        if self._drawn:
            self._S += self._token
            self._n += self._real * self._drawn
            self._tokens += float(self._real.sum())
            self._per_radius["token"] += (self._token.square() / self._drawn).sum(1)
            self._token.zero_()
            self._drawn = 0

    def tally(self, noise_radius: float, rows: tuple[int, float, float]) -> Tally:
        """The sums over this batch's examples."""
        self.next()
        S, n = self._S, self._n
        positions, outputs, inputs = (torch.tensor(float(x), dtype=torch.float64) for x in rows)
        return Tally(
            weight=n.sum(),
            weight2=n.square().sum(),
            weight3=n.pow(3).sum(),
            examples=(n > 0).double().sum(),
            total=S.sum(-1),
            mixed=S @ n,
            mixed2=S @ n.square(),
            outer=S @ S.T,
            squared=S.square() @ n,
            cubed=S.pow(3).sum(-1),
            tokens=torch.tensor(self._tokens, dtype=torch.float64),
            noise_radius=n.sum() * noise_radius,
            outputs=outputs,
            inputs=inputs,
            rows=positions,
            left_out=(n == 0).double().sum(),
            **self._per_radius,
        )


_PER_RADIUS = ("total", "mixed", "mixed2", "squared", "cubed", "square", "token", "negative", "linear")
_CLEAR = 1e-10  # of sums of squares: below it their third powers are rounding
