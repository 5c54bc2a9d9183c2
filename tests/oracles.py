"""Two suites of exact identities: what every curvature, and every expectation over the sphere, must satisfy.

`check_curvature(H)` takes any H, with kinks and walls too, `check_expectation(H, sigma, dim)` any H without a wall
and positive σ that keep clear of its hinges. The expectation is passed in, so that meta-tests can pass a false one.
Tolerances are relative; the worst errors measured over all families and backends stand beside them.

ζ is uniform on the unit sphere of R^n, s = Σ λ_i ζ_i², λ = σ², ψ(s) = H'(√s)/(2√s), w_i = E[ψ ζ_i²].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import cvxpy
import mpmath
import numpy as np
import pytest
import sympy
import torch
from scipy.special import roots_jacobi
from torch import Tensor

import icm
from benchmarks.hinge_reference import HingeValues, hinge_reference
from benchmarks.reference import exponential_row, power_table
from icm.curvature import Curvature, Custom, Exponential, Kink, Power, Tabulated, Wall
from icm.sphere.expectation import Expectation, expect
from icm.sphere.rule import Rule, rule
from icm.sphere.sampling import mean_sampled, slopes_sampled

Evaluate = Callable[..., Expectation]

ROUNDING = 1e-13  # between evaluations that lose no digits; measured 2e-14. bend and stiffness: 5 ROUNDING
DIFFERENCES = 1e-10  # six-point differences with relative steps of 1/500; measured 7e-12


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def worst(found: Any, exact: Any) -> float:
    """max |found − exact| / |exact|, infinite where either is NaN; 0 = 0 and ∞ = ∞."""
    found, exact = torch.as_tensor(found, dtype=torch.float64), torch.as_tensor(exact, dtype=torch.float64)
    found, exact = torch.broadcast_tensors(found, exact)
    error = ((found - exact).abs() / exact.abs()).where(found != exact, 0.0)
    return float(error.nan_to_num(nan=math.inf).amax()) if error.numel() else 0.0


OFFSETS = tensor(-3, -2, -1, 1, 2, 3)
COEFFICIENTS = tensor(-1, 9, -45, 45, -9, 1) / 60
STEP = 2e-3


def difference(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """df/dx elementwise by six points x ± jh, h = x/500; error h⁶ f⁽⁷⁾/140. f maps (6, …) to (6, …)."""
    h = STEP * x
    return torch.tensordot(COEFFICIENTS, f(x + OFFSETS.view(-1, *[1] * x.ndim) * h), 1) / h


# --- curvatures -----------------------------------------------------------------------------------------------


def check_curvature(H: Curvature) -> None:
    """Every identity below, on radii around H's own length scale and around its hinges, up to the wall."""
    own = H.length_scale if math.isfinite(H.length_scale) else 1.0
    r = own * torch.logspace(-2, 0.8, 57, dtype=torch.float64)
    r = r[r < H.wall]
    hinges = tensor(*(c for c, _, _ in H.hinges if 0 < c < H.wall))
    r = torch.cat([r, *(hinges * (1 + offset) for offset in (-0.1, -0.02, 0.02, 0.1))]).sort().values
    r = r[r < H.wall]
    r = r[: len(r) // 3 * 3]  # `check_doors` folds them into rows of three
    check_shape(H, r)
    check_derivatives(H, away(H, r))
    check_corners(H)
    check_hinges(H, r)
    check_algebra(H, away(H, r))
    check_inverses(H, r)
    check_superquadratic(H)
    check_doors(H, r)
    if not any(isinstance(part, Custom) and part.sympy_form is None for part in H.parts):
        check_symbolic(H, r)
    if not any(isinstance(part, Custom) and part.cvxpy_form is None for part in H.parts):
        check_cvxpy(H, r)
    if not any(isinstance(part, Custom) for part in H.parts):
        check_text(H)


def away(H: Curvature, r: Tensor) -> Tensor:
    """The radii whose six points of `difference` keep clear of every hinge and of the wall, where H' is not smooth."""
    for c in (*(c for c, _, _ in H.hinges), H.wall):
        r = r[(r - c).abs() > 3.5 * STEP * r]
    return r


def check_shape(H: Curvature, r: Tensor) -> None:
    """H(0) = 0, H does not fall, and H(ta + (1−t)b) ≤ tH(a) + (1−t)H(b), across kinks too."""
    assert float(H(0.0)) == 0.0, "H(0) is not 0"
    assert bool((H(r).diff() >= 0).all()), "H falls"
    generator = torch.Generator().manual_seed(0)
    a, b = r[torch.randint(len(r), (2, 500), generator=generator)]
    t = torch.rand(500, generator=generator, dtype=torch.float64)
    chord = t * H(a) + (1 - t) * H(b)
    # Behind a kink H ≪ rH' carries the rounding of r.
    slack = 1e-15 * torch.maximum(a, b) * H.slope(torch.maximum(a, b)) if H.hinges else 0.0
    assert bool((H(t * a + (1 - t) * b) <= chord * (1 + 1e-14) + slack).all()), "H is above a chord"
    slopes = H.slope(r)
    assert bool((slopes.diff() >= -1e-15 * slopes[1:]).all()), "H' falls"
    assert bool((H.slope(r, side="left") <= slopes).all()), "a left slope exceeds the right one"
    assert bool((H.slope(r * 1e6) <= H.recession_slope * (1 + 1e-9)).all()), "H' exceeds its own limit"


def check_derivatives(H: Curvature, r: Tensor) -> None:
    """slope = dH/dr by autograd and by differences, second = dH'/dr, both slopes agree, all away from hinges."""
    x = r.clone().requires_grad_()
    y = H._value(x).sum()
    gradient = torch.autograd.grad(y, x)[0] if y.requires_grad else torch.zeros_like(x)  # a wall alone is constant
    assert worst(H.slope(r), gradient) < ROUNDING, "slope is not the derivative (autograd)"
    assert worst(difference(H, r), H.slope(r)) < DIFFERENCES, "slope is not the derivative (differences)"
    second, slope = H.second(r), H.slope(r)
    found, scale = difference(H.slope, r), second + slope / r
    assert float(((found - second).abs() / (scale + (scale == 0))).amax()) < DIFFERENCES, "second is not dH'/dr"
    assert torch.equal(H.slope(r, side="left"), slope), "the one-sided slopes differ without a kink"
    assert float(H.slope(0.0, side="left")) == 0.0, "the left slope at 0 is not 0"
    assert float(H.slope(0.0)) == H.initial_slope, "initial_slope is not H'(0+)"


def check_corners(H: Curvature) -> None:
    """Both slopes at every kink are one-sided differences and differ by its jump; at every other radius, those of the
    hinges among them, they agree; beyond the wall H and its slopes are ∞, and at the wall the right one only."""
    assert list(H.kinks) == sorted(H.kinks), "kinks are not sorted"
    assert all(0 < c < H.wall and jump > 0 for c, jump in H.kinks), "a kink that is none"
    for c, jump in H.kinks:
        left, right = float(H.slope(c, side="left")), float(H.slope(c))
        assert worst(right - left, jump) < ROUNDING * (1 + right / jump), f"the slopes at {c} do not differ by the jump"
        assert worst(one_sided(H, c, -1), left) < DIFFERENCES, f"the left slope at {c} is not the derivative"
        assert worst(one_sided(H, c, 1), right) < DIFFERENCES, f"the right slope at {c} is not the derivative"
        inside = tensor(left + 0.5 * jump, left)
        assert bool((H.radius_at_slope(inside) == c).all()), "a slope within a jump is not answered by the kink"
    kinks = {c for c, _ in H.kinks}
    for c in (c for c, _, _ in H.hinges if 0 < c < H.wall and c not in kinks):
        assert float(H.slope(c, side="left")) == float(H.slope(c)), f"a kink at {c} that kinks does not name"
    own = H.length_scale if math.isfinite(H.length_scale) else 1.0
    for radius in hidden_jumps(H, own * torch.logspace(-2, 0.8, 400, dtype=torch.float64)):
        raise AssertionError(f"a kink at {radius:g} that kinks does not name")
    if math.isfinite(H.wall):
        beyond = H.wall * tensor(1 + 1e-15, 1.5, 1e6)
        for found in (H(beyond), H.slope(beyond), H.slope(beyond, side="left"), H.slope(H.wall)):
            assert bool((found == math.inf).all()), "something finite beyond the wall"
        assert math.isfinite(float(H(H.wall))), "H is infinite at its wall"
        inside = H.wall * (1 - 1e-9)
        assert math.isfinite(float(H.slope(H.wall, side="left"))), "the left slope at the wall is infinite"
        assert float(H.slope(inside)) <= float(H.slope(H.wall, side="left")), "the left slope at the wall is too small"
        assert not bool(H.second(beyond).isnan().any()), "H'' is NaN beyond the wall"
        assert float(H.radius_at_slope(tensor(1e300))) == H.wall, "a slope beyond all is not answered by the wall"
        assert H.recession_slope == math.inf, "a wall without infinite slope"


def one_sided(H: Curvature, c: float, side: int) -> float:
    """H'(c±) from seven values at c, c ± h, …, c ± 6h, h = c/500 or less, short of the next hinge; error ~ h⁶ H⁽⁷⁾."""
    limit = H.wall if side > 0 else 0.0
    others = [other for other, _, _ in H.hinges if (other - c) * side > 0]
    h = min(STEP * c, min(abs(other - c) for other in (limit, *others)) / 8)
    x = c + side * h * torch.arange(7, dtype=torch.float64)
    weights = tensor(-49 / 20, 6, -15 / 2, 20 / 3, -15 / 4, 6 / 5, -1 / 6)
    return side * float(weights @ (H(x) - H(c))) / h


def hidden_jumps(H: Curvature, grid: Tensor) -> list[float]:
    """Where H' jumps between neighbours of the grid without a hinge or the wall between them: halving towards the
    larger rise, a smooth one shrinks to nothing."""
    grid = grid[grid < H.wall]
    low, high = grid[:-1], grid[1:]
    for c, _, _ in H.hinges:
        clear = (c < low) | (c > high)
        low, high = low[clear], high[clear]
    below, above = H.slope(low), H.slope(high)
    rise = above - below
    for _ in range(24):
        middle = 0.5 * (low + high)
        at = H.slope(middle)
        left = at - below >= above - at
        low, below = torch.where(left, low, middle), torch.where(left, below, at)
        high, above = torch.where(left, middle, high), torch.where(left, at, above)
    return high[(above - below > 1e-3 * rise) & (above - below > 1e-9 * above)].tolist()


def check_hinges(H: Curvature, r: Tensor) -> None:
    """Σ jump·(r − c)₊ + ½·rise·(r − c)₊², sorted, is the share of H that families without hinges do not have."""
    hinges = H.hinges
    assert [c for c, _, _ in hinges] == sorted({c for c, _, _ in hinges}), "hinges are not sorted, or repeat a radius"
    assert all(c >= 0 and jump >= 0 for c, jump, _ in hinges), "a hinge with a negative radius or jump"
    found, exact, size = torch.zeros_like(r), torch.zeros_like(r), torch.zeros_like(r)
    for c, jump, rise in hinges:
        x = (r - c).clamp(min=0)
        found += jump * x + 0.5 * rise * x.square()
        size += jump * r + 0.5 * abs(rise) * r * x  # of the terms, whose differences carry their rounding
    for part in H.parts:
        if part.hinges or isinstance(part, Kink | Tabulated):
            exact += part(r)
    assert bool(((found - exact).abs() <= 1e-14 * size).all()), "the hinges do not add up to H"


def check_algebra(H: Curvature, r: Tensor) -> None:
    """cH, H(a·) and H + K are what they say, with their slopes; sums are flat; lengths scale by 1/a."""
    K = icm.Power(2.5, scale=0.3)
    r = away(H.dilate(1.7), r)
    for made, value, slope, second in (
        (3.0 * H, 3 * H(r), 3 * H.slope(r), 3 * H.second(r)),
        (H * 0.25, H(r) / 4, H.slope(r) / 4, H.second(r) / 4),
        (H.dilate(1.7), H(1.7 * r), 1.7 * H.slope(1.7 * r), 1.7**2 * H.second(1.7 * r)),
        (H + K, H(r) + K(r), H.slope(r) + K.slope(r), H.second(r) + K.second(r)),
        (K + H + H, 2 * H(r) + K(r), 2 * H.slope(r) + K.slope(r), 2 * H.second(r) + K.second(r)),
        (0.0 * H, 0 * r, 0 * r, 0 * r),
    ):
        assert worst(made(r), value) < ROUNDING, f"{made}: value"
        assert worst(made.slope(r), slope) < ROUNDING, f"{made}: slope"
        assert worst(made.second(r), second) < ROUNDING, f"{made}: second"
        assert all(part.parts == (part,) for part in made.parts), f"{made}: a sum inside a sum"
    assert (H + K).recession_slope == math.inf
    assert (0.0 * H).recession_slope == (0.0 if H.wall == math.inf else math.inf)
    if H.recession_slope == 0:
        assert H.length_scale == math.inf, "H = 0 has a length scale"
    elif not (H.length_scale == H.wall and float(H(H.wall)) <= 1):  # H may stay below 1 up to its wall
        assert worst(float(H(H.length_scale)), 1.0) < ROUNDING, "H(length_scale) is not 1"
    for a in (1e-5, 0.3, 1e5):
        assert worst(H.dilate(a).length_scale, H.length_scale / a) < ROUNDING, "length_scale does not scale"


def check_inverses(H: Curvature, r: Tensor) -> None:
    """radius_at_slope inverts the slope where it rises; every r with H(r) ≤ cr is within radius_at_chord(c)."""
    slope, chord = H.slope(r), H(r) / r
    rises = H.second(r) * r > 1e-3 * slope
    assert worst(H.radius_at_slope(slope)[rises], r[rises]) < 1e-12, "radius_at_slope is not the inverse slope"
    flat = H.radius_at_slope(slope)
    assert bool((flat >= r * (1 - 1e-12)).all()), "radius_at_slope is below a radius with that slope"
    bound = H.radius_at_chord(chord * (1 + 1e-15))
    assert bool((bound >= r * (1 - 1e-12)).all()), "radius_at_chord is below a point under the line"
    beyond = bound[bound.isfinite()] * (1 + 1e-9)
    assert bool((H(beyond) >= (chord[bound.isfinite()] * beyond) * (1 - 1e-9)).all()), "H dips under the line again"
    if H.initial_slope > 1e-100:  # autograd of a Custom sees 0+ at 1e-150
        low = tensor(0.5 * H.initial_slope)
        assert float(H.radius_at_slope(low)) <= 1e-290, "a slope below H'(0+) is reached somewhere"


def check_superquadratic(H: Curvature) -> None:
    """The verdict on ψ's growth is that of a grid over eight decades, to rounding."""
    own = H.length_scale if math.isfinite(H.length_scale) else 1.0
    r = own * torch.logspace(-7, 1, 801, dtype=torch.float64)
    behind = torch.cat([tensor(0), torch.logspace(-5, 0, 51, dtype=torch.float64)])
    r = torch.cat([r, *(c * (1 + behind) for c, _, _ in H.hinges)]).sort().values
    r = r[(r > 0) & (r < H.wall)]
    psi = H.slope(r) / (2 * r)
    rising = bool((psi.diff() >= -1e-13 * psi[1:]).all())
    assert bool(H.is_superquadratic()) == rising, (
        f"is_superquadratic is {H.is_superquadratic()}, the grid says {rising}"
    )


def check_doors(H: Curvature, r: Tensor) -> None:
    """Values have the shape, dtype and kind of the radii; lists count as float64; bad radii are refused."""
    for method in (H, H.slope, H.second):
        assert method(r.reshape(-1, 3)).shape == (len(r) // 3, 3)
        assert method(r.float()).dtype == torch.float32
        assert worst(method(r.float()), method(r.float().double())) < 3e-6, "float32 loses more than rounding"
        assert torch.equal(method(r.tolist()), method(r))
        assert method(r.numpy()).dtype == torch.float64
        assert method(3).dtype == torch.float64
        for bad in (-1.0, math.nan):
            with pytest.raises(icm.errors.InputError, match=str(bad)):
                method([1.0, bad])


def check_symbolic(H: Curvature, r: Tensor) -> None:
    """The sympy form, differentiated by sympy and evaluated to 30 digits, gives value, slope and second."""
    radius = sympy.Symbol("r", positive=True)
    form = H.sympy(radius)
    for order, method in enumerate((H, H.slope, H.second)):
        # Piecewise, because the derivative of Max is written with distributions.
        exact = sympy.lambdify(radius, sympy.diff(form.rewrite(sympy.Piecewise), radius, order), "mpmath")
        with mpmath.workdps(30):
            values = [float(exact(mpmath.mpf(float(x)))) for x in r]
        assert worst(method(r), values) < ROUNDING, f"derivative {order} is not that of the sympy form"
    if math.isfinite(H.wall):
        assert form.subs(radius, 2 * H.wall) == sympy.oo, "the sympy form is finite beyond the wall"


def check_cvxpy(H: Curvature, r: Tensor) -> None:
    """The cvxpy form is convex to cvxpy and evaluates to H."""
    t = cvxpy.Variable(len(r), nonneg=True)
    expression = H.cvxpy(t)
    assert expression.is_convex(), "cvxpy does not see that H is convex"
    t.value = r.numpy()
    # cvxpy's e^x − 1 − x cancels at small radii; H is 1 at the length scale.
    error = (torch.as_tensor(expression.value) - H(r)).abs() / (1 + H(r))
    assert float(error.amax()) < 1e-13, "the cvxpy form has other values"
    if math.isfinite(H.wall):
        t.value = 1.01 * H.wall * (r / r).numpy()
        assert bool((torch.as_tensor(expression.value) == math.inf).all()), "the cvxpy form is finite beyond the wall"


def check_text(H: Curvature) -> None:
    """parse(str(H)) is H, and equal curvatures hash alike."""
    again = icm.parse(str(H))
    assert again == H, f"{H} reads as {again}"
    assert hash(again) == hash(H)


# --- expectations ---------------------------------------------------------------------------------------------


def check_expectation(
    H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate = expect, tol: float = ROUNDING, samples: int = 8000
) -> None:
    """Every identity below; `tol` for those without differences. σ (k,) positive and distinct, with H' > 0 somewhere
    below the largest, and none within 1% of a hinge of H, where the law has no second derivatives."""
    assert all(abs(s - c) >= 0.01 * s for s in sigma.tolist() for c in radii_of(H)), "a σ_i beside a hinge"
    check_padding(H, sigma, dim, evaluate, tol)
    if radii_of(H):
        check_reference(H, sigma, dim, evaluate, tol)
    else:
        check_sums(H, sigma, dim, evaluate, tol)
    check_gradient(H, sigma, dim, evaluate)
    check_hessian(H, sigma, dim, evaluate)
    check_order(H, sigma, dim, evaluate)
    check_batch(H, sigma, dim, evaluate, tol)
    check_samples(H, sigma, dim, evaluate, samples)
    if dim == 2 and len(sigma) == 2:
        check_arcs(H, sigma, evaluate, tol)
    if dim <= 3 and len(sigma) == dim and not radii_of(H):
        check_quadrature(H, sigma, dim, evaluate, tol)


def radii_of(H: Curvature) -> list[float]:
    """Where H' or H'' jumps."""
    return [c for c, _, _ in H.hinges if c > 0]


def weights(e: Expectation) -> Tensor:
    """w_i = E[ψ ζ_i²]: ∂f/∂σ_i = 2σ_i w_i = 2x_i weight_i."""
    return e.weight / e.size[..., None]


def check_padding(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate, tol: float) -> None:
    """Zeros in σ are what dim pads with, and a permutation permutes."""
    e = evaluate(H, sigma, dim)
    padded = evaluate(H, torch.cat([sigma, sigma.new_zeros(dim - len(sigma))]), dim)
    turned = evaluate(H, sigma.flip(0), dim)
    assert worst(padded.value, e.value) < tol, "explicit zeros change the value"
    assert worst(turned.value, e.value) < tol, "the order of σ changes the value"
    for name in ("weight", "bend", "slopes", "stiffness"):
        base = getattr(e, name)
        loose = 5 * tol if name in ("bend", "stiffness") else tol
        # Hinges of either sign cancel in a bend: the largest one tells how much was there.
        unit = 2 * base.abs().amax() if name == "bend" and radii_of(H) else 0.0
        same, flipped = getattr(padded, name)[: len(sigma)], getattr(turned, name).flip(0)
        assert worst(same + unit, base + unit) < loose, f"explicit zeros change {name}"
        assert worst(flipped + unit, base + unit) < loose, f"the order of σ changes {name}"
    assert bool((padded.slopes[len(sigma) :] == 0).all()), "a slope at σ_i = 0 is not 0"


def check_sums(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate, tol: float) -> None:
    """Σ w_i = Eψ over all n and Σ λ_i w_i = E[sψ], by the rule for the law of s; Euler's relation for a power."""
    padded = torch.cat([sigma, sigma.new_zeros(dim - len(sigma))])
    e = evaluate(H, padded, dim)
    law = law_of(tuple(padded.tolist()))
    r = padded.amax() * law.nodes.sqrt()
    assert worst(e.value, law.p @ H(r)) < tol, "the value is not that of the rule"
    if len(sigma) == dim:
        assert worst(weights(e).sum(), law.p @ (H.slope(r) / (2 * r))) < tol, "Σ w_i is not Eψ"
    along = (padded.square() * weights(e)).sum()
    assert worst(along, law.p @ (H.slope(r) * r / 2)) < tol, "Σ λ_i w_i is not E[sψ]"
    assert worst((padded * e.slopes).sum(), 2 * along) < tol, "slopes are not 2σw"
    if isinstance(H, icm.Power):
        assert worst((padded * e.slopes).sum(), H.exponent * e.value) < tol, "Euler's relation fails"


@cache
def law_of(padded: tuple[float, ...]) -> Rule:
    """The rule for the law of s/σ₁² (it knows nothing of H)."""
    x = torch.tensor(padded, dtype=torch.float64)
    return rule(x / x.amax(), len(padded))


def exact_mean(H: Curvature, sigma: Any, dim: int) -> tuple[float, np.ndarray]:
    """E H(‖Qζ‖) and its slopes (k,) from 25 digits, for H of powers, exponentials, kinks, tables and walls, σ (k,) with
    zeros or not: ball arithmetic that shares no code with the library. At σ = c·1 a kink at c has its left slopes."""
    sigma = np.asarray(sigma, dtype=np.float64)
    value, slopes = 0.0, np.zeros(len(sigma))
    if not sigma.max() > 0:
        return value, slopes
    if not sigma.max() <= H.wall:
        return math.inf, slopes
    terms = [(part.scale, part.exponent) for part in H.parts if isinstance(part, Power)]
    for part in H.parts:
        if isinstance(part, Exponential):
            row = exponential_row(part.rate * sigma, dim, 1.0, digits=25)
            value += part.scale * float(row[0])
            slopes += part.scale * part.rate * np.array([float(x) for x in row[1:]])
        else:
            assert isinstance(part, Power | Kink | Tabulated | Wall), f"no reference for {part}"
    for c, jump, rise in H.hinges:
        if c == 0:
            terms += [(jump, 1.0), (rise / 2, 2.0)]
            continue
        at = hinge_values(tuple(sigma.tolist()), dim, c)
        # ½(r − c)₊² = ½(s − c²)₊ − c(r − c)₊
        value += (jump - rise * c) * at.value + rise / 2 * at.hinge
        slopes += 2 * sigma * ((jump - rise * c) * at.weights + rise / 2 * at.hinge_weights)
    for scale, p in ((scale, p) for scale, p in terms if scale):
        row = power_table(sigma, dim, [p], digits=25)[0]
        value += scale * float(row[0])
        slopes += scale * np.array([float(x) for x in row[1:]])
    return value, slopes


@cache
def hinge_values(sigma: tuple[float, ...], dim: int, radius: float) -> HingeValues:
    """25 digits of everything at one radius."""
    return hinge_reference(sigma, dim, radius)


def check_reference(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate, tol: float) -> None:
    """Value and slopes are those of 25 digits; so are w and w' of each hinge alone, with ½ψ(c)δ(s − c²) in them; and
    E[rH'] = Σ σ_i ∂_i f is jump (E(r − c)₊ + c P(r > c)) for a kink."""
    e = evaluate(H, sigma, dim)
    value, slopes = exact_mean(H, sigma, dim)
    assert worst(e.value, value) < tol, "the value is not that of ball arithmetic"
    assert worst(e.slopes, slopes) < tol, "the slopes are not those of ball arithmetic"
    if isinstance(H, Kink):
        at = hinge_values(tuple(sigma.tolist()), dim, H.radius)
        total = H.jump * (at.value + H.radius * at.tail)
        assert worst((sigma * e.slopes).sum(), total) < tol, "Σ σ_i ∂_i f is not E[rH']"
        assert worst(weights(e), H.jump * at.weights) < tol, "the weights are not those of ball arithmetic"
        bend = H.jump * at.bend * float(e.size) ** 3
        error = (e.bend - torch.as_tensor(bend)).abs().amax()
        assert float(error) < 5 * tol * float(e.weight.amax()), "bend is not that of ball arithmetic"


def check_arcs(H: Curvature, sigma: Tensor, evaluate: Evaluate, tol: float) -> None:
    """n = 2: value and slopes by Gauss–Legendre quadrature over the angle of ζ, broken where r crosses a hinge."""
    (a, b), e = sigma.tolist(), evaluate(H, sigma, 2)
    shares = [(c - b) * (c + b) / ((a - b) * (a + b)) for c in radii_of(H)]
    breaks = sorted([0.0, math.pi / 2, *(math.acos(math.sqrt(x)) for x in shares if 0 < x < 1)])
    x, w = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(80))
    low, high = tensor(*breaks[:-1])[:, None], tensor(*breaks[1:])[:, None]
    angle, p = ((low + high + (high - low) * x) / 2).flatten(), ((high - low) * w / math.pi).flatten()
    zeta = torch.stack([angle.cos(), angle.sin()], -1).square()
    r = (zeta @ sigma.square()).sqrt()
    assert worst(e.value, p @ H(r)) < tol, "the value is not that of quadrature over the circle"
    slopes = sigma * ((p * H.slope(r) / r) @ zeta)
    assert worst(e.slopes, slopes) < tol, "the slopes are not those of quadrature over the circle"


def steps(H: Curvature, sigma: Tensor) -> Tensor:
    """Relative steps (k,) of differences in σ: f is analytic in σ_i as far as the next hinge, a hundred steps away."""
    clear = torch.stack([(sigma - c).abs() / sigma for c in (0.0, *radii_of(H))]).amin(0)
    return (clear / 100).clamp(max=STEP)


def check_gradient(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate) -> None:
    """slopes_i = ∂f/∂σ_i, by differences of the value; errors relative to f/σ_i."""
    e, step = evaluate(H, sigma, dim), steps(H, sigma)
    found = torch.tensordot(COEFFICIENTS, evaluate(H, moved(sigma, step), dim).value, 1) / (step * sigma)
    share = float(((found - e.slopes).abs() * sigma).amax() / e.value)
    assert share < DIFFERENCES, f"slopes are not the gradient of the value: {share:.1e}"


def check_hessian(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate) -> None:
    """∂²f/∂σ_i∂σ_j by differences of the slopes: 2σ_iσ_j (w_i − w_j)/(λ_i − λ_j) off the diagonal, and on it
    stiffness_i + 2x_i² bend_i/σ₁ = 2w_i + 4λ_i E[ψ'ζ_i⁴]; errors relative to slope_j/σ_i."""
    e, step = evaluate(H, sigma, dim), steps(H, sigma)
    found = torch.tensordot(COEFFICIENTS, evaluate(H, moved(sigma, step), dim).slopes, 1) / (step * sigma)[:, None]
    lam, w = sigma.square(), weights(e)
    gap = lam[:, None] - lam
    exact = 2 * sigma[:, None] * sigma * (w[:, None] - w) / gap.where(gap != 0, 1.0)
    exact = exact + torch.diag(e.stiffness + 2 * e.x.square() * e.bend / e.size)
    share = float(((found - exact).abs() * sigma[:, None] / e.slopes).amax())
    assert share < DIFFERENCES, f"stiffness, bend and weights are not the Hessian: {share:.1e}"
    assert worst(e.stiffness, 2 * w + 4 * e.x.square() * e.bend / e.size) < 1e-14, "stiffness is not d(σR)/dσ"


def moved(sigma: Tensor, step: Tensor) -> Tensor:
    """σ with one entry at a time moved to the points of `difference`: (6, k, k)."""
    return sigma + OFFSETS[:, None, None] * torch.diag(step * sigma)


def check_order(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate) -> None:
    """f rises in every σ_i; w_i rises with σ_i where ψ rises, and falls where ψ falls; xR(x²) rises for every H."""
    e = evaluate(H, sigma, dim)
    raised = sigma + torch.diag(0.1 * sigma)
    assert bool((evaluate(H, raised, dim).value > e.value).all()), "f falls in some σ_i"
    at = sigma.argsort()
    assert bool((e.slopes[at].diff() > 0).all()), "slopes are not ordered like σ"
    assert bool((e.stiffness > 0).all()), "xR(x²) falls"
    if H.is_superquadratic():
        assert bool((weights(e)[at].diff() >= -1e-13 * weights(e)[at][1:]).all()), "w falls though ψ rises"


def check_batch(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate, tol: float) -> None:
    """A batch, of any shape and with a zero spectrum in it, holds what its elements give alone."""
    rows = torch.stack([sigma, 0 * sigma, sigma * 0.5, sigma.flip(0) ** 1.5])
    together = evaluate(H, rows.reshape(2, 2, -1), dim)
    for i, row in enumerate(rows):
        alone, at = evaluate(H, row, dim), (i // 2, i % 2)
        for name in ("value", "slopes", "weight"):
            error = worst(getattr(together, name)[at], getattr(alone, name))
            assert error < tol, f"{name} of batch element {i} differs by {error:.1e}"
    assert float(together.value[0, 1]) == 0.0, "f(0) is not 0"
    assert bool((together.slopes[0, 1] == 0).all()), "the slopes at 0 are not 0"


def check_samples(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate, samples: int) -> None:
    """Value and slopes are within five standard errors of sampled ones."""
    e = evaluate(H, sigma, dim)
    for found, (sampled, error) in (
        (e.value, mean_sampled(H, sigma, dim, samples, seed=1)),
        (e.slopes, slopes_sampled(H, sigma, dim, samples, seed=2)),
    ):
        # Without spread (n = 1) what is left is rounding.
        assert bool(((found - sampled).abs() <= 5 * error + 1e-14 * found).all()), "sampling disagrees"


def check_quadrature(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate, tol: float) -> None:
    """Value, weights, bend and R by product quadrature on (ζ_i²) ~ Dirichlet(½, …, ½):

    E h, w_i = E[ψζ_i²], bend_i = σ₁³ ⅔ E[ψ'ζ_i⁴] and w_i = (1/n) E ψ((1−B)s + Bλ_i), B ~ Beta(1, n/2)."""
    lam, zeta, p = sigma.square(), *dirichlet(dim)
    s = zeta @ lam
    r = s.sqrt()
    e = evaluate(H, sigma, dim)
    psi, dpsi = H.slope(r) / (2 * r), (r * H.second(r) - H.slope(r)) / (4 * r**3)
    assert worst(e.value, p @ H(r)) < tol, "the value is not that of product quadrature"
    assert worst(weights(e), (p * psi) @ zeta) < tol, "the weights are not those of product quadrature"
    bend = e.size**3 * ((p * dpsi) @ zeta.square()) * 2 / 3
    scale = float(e.weight.amax())
    assert float((e.bend - bend).abs().amax()) < 5 * tol * scale, "bend is not ⅔ E[ψ'ζ_i⁴]"
    B, q = beta(1.0, dim / 2, 18)
    r = ((1 - B)[:, None, None] * s + B[:, None, None] * lam[:, None]).sqrt()
    R = torch.einsum("b,bis,s->i", q, H.slope(r) / (2 * r), p) / dim
    assert worst(weights(e), R) < tol, "w_i is not E ψ((1−B)s + Bλ_i)/n"


def beta(a: float, b: float, order: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss–Jacobi quadrature for the Beta(a, b) law on [0, 1]."""
    x, w = roots_jacobi(order, b - 1, a - 1)
    return torch.as_tensor((1 + x) / 2), torch.as_tensor(w / w.sum())


def dirichlet(dim: int, order: int = 20) -> tuple[Tensor, Tensor]:
    """Nodes (N, dim) and weights (N,) for the law of (ζ_i²), broken off a stick: ζ_1² ~ Beta(½, (n−1)/2)."""
    if dim == 1:
        return torch.ones(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    t, p = beta(0.5, (dim - 1) / 2, order)
    rest, q = dirichlet(dim - 1, order)
    nodes = torch.cat([t[:, None, None].expand(-1, len(q), 1), (1 - t)[:, None, None] * rest], -1)
    return nodes.reshape(-1, dim), (p[:, None] * q).reshape(-1)
