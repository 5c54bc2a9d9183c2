"""What was measured of one layer: H(r) with its uncertainty, its exponent, and an H of the library made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icm.curvature import Curvature, Wall
from icm.errors import FileError, InputError
from icm.measure.fit import Fit, Kind, fit
from icm.measure.tally import Tally
from icm.paths import check_output, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.95
_CLEAR = 3.0  # times the noise floor: means above it are resolved
_ROUNDINGS = 4.0  # of the gradient, in units of eps: what a backward pass loses
_FORMAT = "icm measurements 1"


@dataclass(frozen=True)
class Exponent:
    """p of H(r) ∝ r^p, with its confidence interval; `radii` are those it was fitted to."""

    value: float
    low: float
    high: float
    radii: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Measurement:
    """H(r) of one layer, m outputs × n inputs, in units of the loss: the mean over directions, tokens and examples of

        L(y + δ) − L(y) − ⟨∇L(y), δ⟩,   ‖δ‖ = r,

    y the layer's output and L the sum of an example's loss terms (Su, arXiv 2511.00674, section 2 and figure 1).
    positions "one": one token of an example displaced at a time; "all": all at once, the remainder over their number.

    All figures are float64, one per radius unless said otherwise. `tally` holds the sums they are made of; `eps` is
    that of the precision in which the model computed.
    """

    layer: str
    m: int
    n: int
    radii: Float[Tensor, " radii"]
    tally: Tally
    positions: str
    directions: int
    tokens: int | None
    seed: int
    eps: float

    @property
    def count(self) -> int:
        """Remainders per radius."""
        return int(self.tally.weight)

    @property
    def examples(self) -> int:
        """Examples that they come from: the clusters of the interval."""
        return int(self.tally.examples)

    @property
    def left_out(self) -> int:
        """Examples without a loss, such as those whose labels are all ignored: they are in no mean."""
        return int(self.tally.left_out)

    @property
    def mean(self) -> Float[Tensor, " radii"]:
        """H(r)."""
        return self.tally.mean[:-1]

    @property
    def ratio(self) -> Float[Tensor, " radii"]:
        """H(r)/r²: flat where the loss is quadratic."""
        return self.mean / self.radii**2

    @property
    def standard_error(self) -> Float[Tensor, " radii"]:
        """Of the mean, with examples as clusters: tokens and directions of one example are not independent."""
        return self.tally.covariance.diagonal()[:-1].clamp(min=0).sqrt()

    @property
    def interval(self) -> Float[Tensor, "2 radii"]:
        """Low and high ends of the 95 % confidence intervals of H(r), each radius by itself."""
        return self.interval_at(LEVEL)

    def interval_at(self, level: float) -> Float[Tensor, "2 radii"]:
        """mean ± t·standard error, t the quantile of Student's law; where examples are skewed, as a few with large
        remainders make them, the end on that side is Hall's, by the inverse of a cubic in t (Hall, J. R. Statist. Soc.
        B 54 (1992) 221), if that is further out. Degrees of freedom: the tally's `clusters` − 1."""
        t, error = self._quantile(level, float(self.tally.clusters)), self.standard_error
        skew = self.tally.skewness[:-1]
        below, above = _hall(t, skew).clamp(min=t), (-_hall(-t, skew)).clamp(min=t)
        return torch.stack([self.mean - below * error, self.mean + above * error])

    @property
    def spread(self) -> Float[Tensor, " radii"]:
        """Standard deviation of single remainders over |H(r)|: 0 in the model, where the radius alone decides."""
        return self._over_mean(self._variance)

    @property
    def spread_directions(self) -> Float[Tensor, " radii"]:
        """The part of `spread` that is between directions at one token (of one example, where all are displaced)."""
        return self._over_mean(self._within)

    @property
    def spread_tokens(self) -> Float[Tensor, " radii"]:
        """The part of `spread` that is between tokens; the squares of both parts add up."""
        return self._over_mean((self._variance - self._within).clamp(min=0))

    @property
    def explained(self) -> float:
        """The share of the variance of all remainders, every radius counting the same, that the radius explains: 1 if
        the loss is isotropic around every token, alike for all of them. The largest radii weigh most."""
        between = float(self.mean.var(correction=0))
        return between / (between + float(self._variance.mean())) if between > 0 else 0.0

    @property
    def negative(self) -> Float[Tensor, " radii"]:
        """The share of negative remainders, which no convex loss has."""
        return self.tally.negative[:-1] / self.tally.weight

    @property
    def floor(self) -> Float[Tensor, " radii"]:
        """What rounding can do to H(r). Remainders at the radius r₀, 16 roundings of the output, are rounding alone:
        their mean, and twice their deviation and the gradient's rounding times r, averaged over examples."""
        noise = self.tally.square[-1] + (_ROUNDINGS * self.eps) ** 2 * self.tally.linear[:-1]
        return self.tally.mean[-1].abs() + 2 * (noise / self.tally.weight / self.tally.examples).sqrt()

    @property
    def resolved(self) -> Bool[Tensor, " radii"]:
        """Whether H(r) is positive and stands clear of rounding: above three times the floor, at a radius above r₀."""
        return (self.mean > _CLEAR * self.floor) & (self.radii > self.tally.noise_radius / self.tally.weight)

    @property
    def input_norm(self) -> float:
        """Root mean square of ‖u‖ over positions."""
        return math.sqrt(float(self.tally.inputs / self.tally.rows))

    @property
    def output_norm(self) -> float:
        """Root mean square of ‖y‖ over positions: radii beyond it are larger than what is displaced."""
        return math.sqrt(float(self.tally.outputs / self.tally.rows))

    def exponent(
        self, from_radius: float | None = None, to_radius: float | None = None, level: float = LEVEL
    ) -> Exponent:
        """p of H(r) ∝ r^p: least squares of log H over log r, on the resolved radii in [from_radius, to_radius].

        The interval is that of the examples drawn, by the covariance of the means (delta method, Student's law, as
        many examples as the tally's `shares` say, those with large remainders count for more); that H is no power it
        does not show. Raises InputError where fewer than two radii are left.
        """
        low, high = from_radius or 0.0, math.inf if to_radius is None else to_radius
        used = self.resolved & (self.radii >= low * (1 - 1e-12)) & (self.radii <= high * (1 + 1e-12))
        if int(used.sum()) < 2:
            raise InputError(
                f"{self.layer}: {int(used.sum())} radii from {low:g} to {high:g} stand clear of rounding, and an "
                f"exponent needs two; {self._remedy}"
            )
        x, mean = self.radii[used].log(), self.mean[used]
        weight = (x - x.mean()) / (x - x.mean()).square().sum()
        value = float(weight @ mean.log())
        slope = weight / mean
        error = float((slope @ self.tally.covariance[:-1, :-1][used][:, used] @ slope).clamp(min=0).sqrt())
        c, shares = self.tally.clusters, self.tally.shares[:-1][used].amin()
        error *= float((shares / (shares - 1) * (c - 1) / c).sqrt())
        width = self._quantile(level, float(shares)) * error
        return Exponent(value, value - width, value + width, tuple(self.radii[used].tolist()))

    def fit(self, kind: Kind | str = "tabulated", unit_inputs: bool = False, within: bool = False) -> Fit:
        """The convex nondecreasing H of a family nearest to the resolved means, in relative least squares, with its
        distance: the root mean square of the relative deviations.

        kind: "power", c r^p with p ≥ 1; "quadratic+power", a r² + b r^p with p ≥ 1 and a, b ≥ 0; "tabulated", a
        Tabulated through the nearest values that a convex nondecreasing H with H(0) = 0 can take.

        unit_inputs: H(s·r) with s = `input_norm`, so that `icm.solve` can take it: there inputs are ζ = u/‖u‖ and
        ‖Qu‖ = ‖u‖·‖Qζ‖. G is then the gradient of the summed loss over the number of displaced positions.

        within: with a wall at the largest radius measured. Nothing is known beyond it, and an H that grows like a line
        there need not bound the program.

        Raises InputError where no radius is resolved, or too few for the kind.
        """
        if not bool(self.resolved.any()):
            raise InputError(
                f"{self.layer}: no H(r) is positive and clear of rounding (floor {float(self.floor.max()):.1e}); "
                f"{self._remedy}"
            )
        found = fit(self.radii[self.resolved], self.mean[self.resolved], kind)
        H = found.curvature + Wall(float(self.radii[self.resolved].max())) if within else found.curvature
        return Fit(H.dilate(self.input_norm) if unit_inputs else H, found.distance)

    def to_curvature(
        self, kind: Kind | str = "tabulated", unit_inputs: bool = False, within: bool = False
    ) -> Curvature:
        """The curvature of `fit`."""
        return self.fit(kind, unit_inputs, within).curvature

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and lists; `from_dict` takes them back."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        return kept | {"radii": self.radii.tolist(), "tally": self.tally.to_dict()}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Measurement:
        radii = torch.tensor(kept["radii"], dtype=torch.float64)
        return cls(**{**kept, "radii": radii, "tally": Tally.from_dict(kept["tally"])})

    def summary(self) -> dict[str, Any]:
        """The figures, as numbers and lists for JSON."""
        low, high = self.interval.tolist()
        per_radius = ("radii", "mean", "ratio", "spread", "spread_directions", "spread_tokens", "negative", "floor")
        single = ("layer", "m", "n", "positions", "directions", "tokens", "seed", "count", "examples", "left_out",
                  "explained")  # fmt: skip
        return (
            {name: getattr(self, name) for name in (*single, "input_norm", "output_norm")}
            | {name: getattr(self, name).tolist() for name in (*per_radius, "resolved")}
            | {"low": low, "high": high}
        )

    def save(self, path: str | Path) -> Path:
        """Write as .json, whole or not at all. Raises FileError for a path that cannot be written."""
        return save([self], path)

    @classmethod
    def load(cls, path: str | Path) -> Measurement:
        """The measurement in a file that `save` wrote. Raises FileError for any other file, and for one of several."""
        found = load(path)
        if len(found) != 1:
            raise FileError(f"{path} holds {len(found)} measurements; read them with icm.measure.load")
        return next(iter(found.values()))

    def plot(self, path: str | Path | None = None) -> Figure:
        """H(r)/r² over r, as `icm.plots.plot_curvatures` draws it for several layers."""
        from icm.plots import plot_curvatures

        return plot_curvatures([self], path)

    def _quantile(self, level: float, clusters: float) -> float:
        """t with P(|T| ≤ t) = level for Student's law of clusters − 1 degrees of freedom."""
        if not 0 < level < 1:
            raise InputError(f"level={level} must be between 0 and 1, such as 0.95")
        from scipy.stats import t

        return float(t.ppf(0.5 + level / 2, clusters - 1)) if self.examples > 1 else math.inf

    @property
    def _remedy(self) -> str:
        negative = int((self.mean < -_CLEAR * self.floor).sum())
        if negative:
            return (
                f"at {negative} H is negative, as no curvature of the library is; measure other radii, more examples, "
                "or another layer"
            )
        if int(self.resolved.sum()) > 1:
            return "give a smaller from_radius, or measure more radii from there on"
        return "measure larger radii, or with dtype=torch.float64"

    @property
    def _variance(self) -> Tensor:
        return (self.tally.square[:-1] / self.tally.weight - self.mean**2).clamp(min=0)

    @property
    def _within(self) -> Tensor:
        spare = self.tally.weight - self.tally.tokens
        inside = (self.tally.square - self.tally.token)[:-1].clamp(min=0)
        return inside / spare if spare > 0 else torch.zeros_like(inside)

    def _over_mean(self, variance: Tensor) -> Tensor:
        return variance.sqrt() / self.mean.abs()


def save(measurements: Mapping[str, Measurement] | Iterable[Measurement], path: str | Path) -> Path:
    """Write measurements as .json, whole or not at all. Raises FileError for a path that cannot be written."""
    target = check_output(path, (".json",))
    every = measurements.values() if isinstance(measurements, Mapping) else measurements
    return write_json(target, {"format": _FORMAT, "measurements": [one.to_dict() for one in every]})


def load(path: str | Path) -> dict[str, Measurement]:
    """The measurements in a file that `save` wrote, by layer. Raises FileError for any other file."""
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
        if kept["format"] != _FORMAT:
            raise KeyError(kept["format"])
        found = [Measurement.from_dict(one) for one in kept["measurements"]]
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{path} holds no measurements ({type(error).__name__}: {error}); write them with save"
        ) from error
    return {one.layer: one for one in found}


def _hall(t: float, skew: Tensor) -> Tensor:
    """The s with s + a s²/3 + a² s³/27 + a/6 = t, a the skewness of a mean."""
    a = torch.where(skew.abs() < 1e-6, 1e-6, skew)
    x = 1 + a * (t - a / 6)
    return 3 / a * (x.sign() * x.abs() ** (1 / 3) - 1)
