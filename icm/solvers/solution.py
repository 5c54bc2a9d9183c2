"""What a solve returns: the update, what it is worth, and how much of that is certain."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from icm.arrays import nest
from icm.curvature import Curvature
from icm.solvers.flat import Orthogonality
from icm.sphere import Law, law


class Status(Enum):
    """How a solve ended, with a sentence each."""

    OPTIMAL = "optimal: the gap (for products the error of Q) is within the tolerance"
    SAMPLED = "optimal for the sampled objective; value and gap are those of the exact one"
    INACCURATE = "inaccurate: the reference solver itself reports a reduced accuracy on the sampled program"
    UNBOUNDED = "unbounded: the objective falls without end along the direction"
    UNDECIDED = "undecided: G meets the slope of H at infinity to within rounding, so the program may be unbounded"
    OVERFLOW = "overflow: the optimum is too large or too small for the number type; rescale G or H"
    STALLED = "stalled: the gap (for products the error of Q) is what could be reached, and above the tolerance"

    @property
    def answers(self) -> bool:
        """Whether the program is answered as asked; otherwise `solve` raises."""
        return self in (Status.OPTIMAL, Status.SAMPLED, Status.UNBOUNDED)

    def __str__(self) -> str:
        return self.name.lower()

    def __repr__(self) -> str:
        return f"Status.{self.name}"


@dataclass(frozen=True, eq=False)
class Solution:
    """An update Q with its certificate; one per batch element, leading dimensions as in G.

    Q (…, m, n) and sigma (…, k), its singular values in the order of g, have G's dtype; g (…, k) are G's own,
    descending, float64, like gain = ⟨G, Q⟩, value = F(Q) and gap ≥ F(Q) − F* (…). `orthogonal` (…) says whether
    Q ≠ 0 is a multiple of the polar factor on G's range, as far as G's dtype and the method resolve it. Where the
    program is unbounded, Q is NaN, value −∞, gap ∞, and F falls along `direction` D (…, m, n), of unit Frobenius norm.
    For H with a finite slope at 0 or infinity, margin (…) is max ⟨G, D⟩/E‖Dζ‖ less the slope of H at infinity:
    positive where the program is unbounded. For H with a kink or a wall, the spectral methods say in `orthogonality`
    why Q is, or is not, a multiple of the polar factor, with the dual multiplier or the direction of descent that
    proves it; the others leave it None, and `orthogonal` is then a test on Q to 1e−6. `gradient` is G as it was given.
    method="products" says in `error` (…) how far Q is from the exact one, ‖Q − Q*‖_F/‖Q*‖_F, which its tol bounds; its
    g and sigma are what products tell of the singular values, and its gap is an estimate.

    For inputs with a second moment C, `input_moment` (…, n, n) is C at trace n, float64, and g and sigma are the
    singular values of G C^{−1/2} and Q C^{1/2}: those that the law of ‖Qζ‖ depends on. So `orthogonal` and `error` are
    about Q C^{1/2} as well. Where inputs are isotropic it is None.

    Where G or a number of H requires grad, Q, sigma, g, gain and value are differentiable in it, once (see `implicit`;
    gap and the rest are not), and every derivative of a Q that exists is finite: equal singular values of G are no
    exception. Where Q* has only one-sided derivatives (a singular value just touches a wall, a kink just holds Q,
    Q* = 0 is just optimal), it is that of the side on which the solve put Q. A zero singular value of G counts as fixed
    where σ*/g has no limit there (behind a wall that holds the others, or at G = 0 for H with H''(0) = 0), and so does
    every direction in which the optimum is not unique. Where there is no Q, what is asked of it has the gradient NaN.
    """

    Q: Float[Tensor, "*batch m n"]
    sigma: Float[Tensor, "*batch k"]
    g: Float[Tensor, "*batch k"]
    gain: Float[Tensor, "*batch"]
    value: Float[Tensor, "*batch"]
    gap: Float[Tensor, "*batch"]
    statuses: tuple[Status, ...]
    orthogonal: Bool[Tensor, "*batch"]
    iterations: Int[Tensor, "*batch"]
    method: str
    tol: float
    curvature: Curvature
    direction: Float[Tensor, "*batch m n"] | None = None
    margin: Float[Tensor, "*batch"] | None = None
    orthogonality: Orthogonality | None = None
    gradient: Float[Tensor, "*batch m n"] | None = None
    error: Float[Tensor, "*batch"] | None = None
    input_moment: Float[Tensor, "*b n n"] | None = None

    @property
    def dim(self) -> int:
        """n, the dimension of ζ."""
        return self.Q.shape[-1]

    @property
    def status(self) -> Any:
        """The Status, or nested tuples of them in G's batch shape."""
        return nest(iter(self.statuses), tuple(self.value.shape))

    @property
    def relative_gap(self) -> Float[Tensor, "*batch"]:
        """gap / ⟨G, Q⟩ (…): what `tol` bounds, but for products; the gap itself at Q = 0, ∞ where there is no Q."""
        gain = self.gain.detach()
        ratio = (self.gap / gain).where(gain != 0, self.gap)
        return ratio.where(~ratio.isnan(), math.inf)

    def law(self) -> Law:
        """The law of ‖Qζ‖, ζ uniform on the unit sphere of R^dim, or C^{1/2} times that."""
        return law(self.sigma, self.dim)

    def detach(self) -> Solution:
        """The same numbers outside any autograd graph."""
        names = ("Q", "sigma", "g", "gain", "value")
        return replace(self, **{name: getattr(self, name).detach() for name in names})

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure of sigma against g, both over their largest; saved if `path` is given."""
        from icm.plots import plot_spectra

        return plot_spectra([self.detach()], path=path)

    def __repr__(self) -> str:
        if self.value.ndim:
            worst = float(self.relative_gap.max())
            return f"Solution({tuple(self.Q.shape)}, {self.method}, relative gap ≤ {worst:.1e})"
        return (
            f"Solution({self.statuses[0]}, value={float(self.value.detach()):.9g}, gap={float(self.gap):.1e}, "
            f"H = {self.curvature}, {tuple(self.Q.shape)}, {self.method}, {int(self.iterations)} iterations)"
        )
