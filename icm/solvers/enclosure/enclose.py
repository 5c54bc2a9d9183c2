"""`enclose`: F(Q), min F and the optimum's singular values between bounds that are theorems, by ball arithmetic.

Every rounding and every truncation is inside a ball (python-flint); G and Q are the floats they are. What the bounds
are made of is said in `bounds`, and where their integrals come from in `sphere` and `quadrature`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import to_tensor
from icm.errors import InputError, MissingPackageError, SolveError
from icm.program.ellipsoidal import Ellipsoid
from icm.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from flint import arb


class Interval(NamedTuple):
    """lower ≤ the number ≤ upper, rounded outwards to float64."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Enclosure:
    """Proved bounds on one program: F(Q) is in `value`, F* = min F in `optimum`, and F(Q) − F* ≤ gap.

    Under a wall r̃ the floats of Q may pass it by rounding, where F = ∞; then `value` is that of (1 − shrink) Q, which
    certainly does not, for the least `shrink` found; else shrink = 0. `sigma` holds an Interval for each singular value
    of the optimum, in the order of g, and `how` what proves it: "interval Newton", "wall" (it is the wall's radius),
    "exact" (the optimum is Q = 0, or all are the radius of a kink), "strong convexity", or "none". Unless that is
    "none", the singular values of the optimum are proved to be unique. `bits` is the working precision.
    """

    value: Interval
    optimum: Interval
    gap: float
    shrink: float
    sigma: tuple[Interval, ...]
    how: tuple[str, ...]
    bits: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers, texts and lists."""
        intervals = {"value": list(self.value), "optimum": list(self.optimum), "sigma": [list(x) for x in self.sigma]}
        return {**asdict(self), **intervals, "how": list(self.how)}

    def __str__(self) -> str:
        shrunk = f" at (1 − {self.shrink:.1e}) Q, which the wall allows" if self.shrink else ""
        lines = [
            f"F(Q) in {_show(self.value)}{shrunk}",
            f"F*   in {_show(self.optimum)}",
            f"gap  ≤ {self.gap:.1e}, proved in ball arithmetic at {self.bits} bits",
        ]
        lines += [
            f"σ_{i + 1}  in {_show(x)}  ({how})" for i, (x, how) in enumerate(zip(self.sigma, self.how, strict=True))
        ]
        return "\n".join(lines)


def enclose(solution: Solution, G: Float[Tensor, "m n"] | Any = None) -> Enclosure:
    """Rigorous bounds on F(Q), on min F and on the optimum's singular values, for the solution of one matrix.

    G (m, n) is the gradient that was solved for, by default the one that the solution keeps. G, Q and an input moment,
    as scaled to trace n in `solution.input_moment`, count as exactly the floats they are. The bounds hold for any Q
    whatever: a wrong solution shows as a large gap.

    Raises InputError for a batch, an unbounded program, a Q that is not finite, and an H with a part other than powers,
    exponentials, kinks, walls and tabulated ones; SolveError where even the highest precision decides nothing;
    MissingPackageError without python-flint.
    """
    if solution.value.ndim:
        raise InputError(
            f"the solution is a batch of shape {tuple(solution.value.shape)}: enclose one at a time, "
            "e.g. icm.enclose(icm.solve(G[0], H))"
        )
    if solution.statuses[0] is Status.UNBOUNDED:
        raise InputError("the program is unbounded: there is no Q and no minimum to enclose; see solution.direction")
    given = solution.gradient if G is None else G
    if given is None:
        raise InputError("this solution does not keep its G: pass it, as in icm.enclose(solution, G)")
    gradient, Q, sigma = (_exact(x) for x in (to_tensor(given, "G"), solution.Q, solution.sigma))
    if gradient.shape != Q.shape:
        raise InputError(f"G has shape {gradient.shape}, Q {Q.shape}: pass the G that was solved for")
    for name, array in (("G", gradient), ("Q", Q), ("sigma", sigma)):
        if not np.isfinite(array).all():
            raise InputError(f"{name} is not finite ({solution.statuses[0].value}): there is nothing to enclose")
    try:
        from flint import ctx

        from icm.solvers.enclosure.bounds import bounds
        from icm.solvers.enclosure.curvature import decompose
        from icm.solvers.enclosure.quadrature import BITS, Unresolved
    except ImportError as error:
        raise MissingPackageError("enclose computes in ball arithmetic: pip install python-flint") from error
    if solution.Q.dtype != torch.float64:
        # F* and σ* are those of the program, and any σ proves bounds on them: take it with all its digits.
        from icm.solvers.solve import solve

        precise = to_tensor(given, "G").double()
        again = solve(precise, solution.curvature, input_moment=solution.input_moment, on_failure="return")
        solution, sigma = (again, _exact(again.sigma)) if again.statuses[0].answers else (solution, sigma)
    v = None if solution.orthogonality is None else solution.orthogonality.v
    moment = _moment(solution, gradient)
    for bits in (BITS, 2 * BITS, 4 * BITS):
        with ctx.workprec(bits):
            try:
                near = None if v is None else _exact(v)
                found = bounds(decompose(solution.curvature), gradient, Q, sigma, near, moment)
            except Unresolved as error:  # a sign or a branch that these balls do not decide
                reason = error
                continue
            return Enclosure(
                value=Interval(_down(found.value[0]), _up(found.value[1])),
                optimum=Interval(_down(found.optimum[0]), _up(found.optimum[1])),
                gap=max(0.0, _up(found.value[1] - found.optimum[0])),
                shrink=0.0 if found.shrink.is_zero() else _up(found.shrink),
                sigma=tuple(_within(x, solution.curvature.wall) for x in found.sigma),
                how=tuple(found.how),
                bits=bits,
            )
    raise SolveError(f"not decided in ball arithmetic at {bits} bits: {reason}; H = {solution.curvature}", solution)


def _moment(solution: Solution, G: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The second moment of the inputs and an inverse square root of it; None where they are isotropic."""
    C = solution.input_moment
    if C is None:
        return None
    C = C.reshape(C.shape[-2:])
    return _exact(C), _exact(Ellipsoid.of(C, torch.from_numpy(G)).S)


def _exact(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def outward(x: arb) -> Interval:
    """Floats around the ball x."""
    return Interval(_down(x), _up(x))


def _down(x: arb) -> float:
    """The largest float found below x."""
    end = x.lower()
    rounded = float(end)
    return rounded if end == rounded else math.nextafter(rounded, -math.inf)


def _up(x: arb) -> float:
    """The least float found above x."""
    return 0.0 - _down(-x)


def _within(x: arb, wall: float) -> Interval:
    """The part of x in [0, wall], which is all of it where nothing is known."""
    return Interval(max(0.0, _down(x)), min(_up(x), wall)) if x.is_finite() else Interval(0.0, wall)


def _show(x: Interval) -> str:
    return f"[{x.lower!r}, {x.upper!r}]"
