"""Two suites of exact identities: what every curvature, and every expectation over the sphere, must satisfy.

`check_curvature(H)` needs a smooth H with a finite length scale, `check_expectation(H, sigma, dim)` any smooth H and
positive σ. The expectation is passed in, so that meta-tests can pass a false one. Tolerances are relative;
the worst errors measured over all families and backends stand beside them.

ζ is uniform on the unit sphere of R^n, s = Σ λ_i ζ_i², λ = σ², ψ(s) = H'(√s)/(2√s), w_i = E[ψ ζ_i²].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import cvxpy
import mpmath
import pytest
import sympy
import torch
from scipy.special import roots_jacobi
from torch import Tensor

import icm
from icm.curvature import Curvature, Custom
from icm.sphere.law import Expectation, expect
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
    """Every identity below, on radii around H's own length scale."""
    r = H.length_scale * torch.logspace(-2, 0.8, 57, dtype=torch.float64)
    check_shape(H, r)
    check_derivatives(H, r)
    check_algebra(H, r)
    check_inverses(H, r)
    check_superquadratic(H)
    check_doors(H, r)
    if not any(isinstance(part, Custom) and part.sympy_form is None for part in H.parts):
        check_symbolic(H, r)
    if not any(isinstance(part, Custom) and part.cvxpy_form is None for part in H.parts):
        check_cvxpy(H, r)
    if not any(isinstance(part, Custom) for part in H.parts):
        check_text(H)


def check_shape(H: Curvature, r: Tensor) -> None:
    """H(0) = 0, H does not fall, and H(ta + (1−t)b) ≤ tH(a) + (1−t)H(b)."""
    assert float(H(0.0)) == 0.0, "H(0) is not 0"
    assert bool((H(r).diff() >= 0).all()), "H falls"
    generator = torch.Generator().manual_seed(0)
    a, b = r[torch.randint(len(r), (2, 500), generator=generator)]
    t = torch.rand(500, generator=generator, dtype=torch.float64)
    chord = t * H(a) + (1 - t) * H(b)
    assert bool((H(t * a + (1 - t) * b) <= chord * (1 + 1e-14)).all()), "H is above a chord"
    slopes = H.slope(r)
    assert bool((slopes.diff() >= -1e-15 * slopes[1:]).all()), "H' falls"
    assert bool((H.slope(r * 1e6) <= H.recession_slope * (1 + 1e-9)).all()), "H' exceeds its own limit"


def check_derivatives(H: Curvature, r: Tensor) -> None:
    """slope = dH/dr by autograd and by differences, second = dH'/dr, both slopes agree where there is no kink."""
    x = r.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(H._value(x).sum(), x)
    assert worst(H.slope(r), gradient) < ROUNDING, "slope is not the derivative (autograd)"
    assert worst(difference(H, r), H.slope(r)) < DIFFERENCES, "slope is not the derivative (differences)"
    second = H.second(r)
    found = difference(H.slope, r)
    assert float(((found - second).abs() / (second + H.slope(r) / r)).amax()) < DIFFERENCES, "second is not dH'/dr"
    assert torch.equal(H.slope(r, side="left"), H.slope(r)), "the one-sided slopes differ without a kink"
    assert float(H.slope(0.0, side="left")) == 0.0, "the left slope at 0 is not 0"
    assert float(H.slope(0.0)) == H.initial_slope, "initial_slope is not H'(0+)"
    assert H.kinks == ()
    assert H.wall == math.inf


def check_algebra(H: Curvature, r: Tensor) -> None:
    """cH, H(a·) and H + K are what they say, with their slopes; sums are flat; lengths scale by 1/a."""
    K = icm.Power(2.5, scale=0.3)
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
    assert (0.0 * H).recession_slope == 0.0
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
    r = H.length_scale * torch.logspace(-7, 1, 801, dtype=torch.float64)
    psi = H.slope(r) / (2 * r)
    rising = bool((psi.diff() >= -1e-13 * psi[1:]).all())
    assert bool(H.is_superquadratic()) == rising, (
        f"is_superquadratic is {H.is_superquadratic()}, the grid says {rising}"
    )


def check_doors(H: Curvature, r: Tensor) -> None:
    """Values have the shape, dtype and kind of the radii; lists count as float64; bad radii are refused."""
    for method in (H, H.slope, H.second):
        assert method(r.reshape(-1, 3)).shape == (19, 3)
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
        exact = sympy.lambdify(radius, sympy.diff(form, radius, order), "mpmath")
        with mpmath.workdps(30):
            values = [float(exact(mpmath.mpf(float(x)))) for x in r]
        assert worst(method(r), values) < ROUNDING, f"derivative {order} is not that of the sympy form"


def check_cvxpy(H: Curvature, r: Tensor) -> None:
    """The cvxpy form is convex to cvxpy and evaluates to H."""
    t = cvxpy.Variable(len(r), nonneg=True)
    expression = H.cvxpy(t)
    assert expression.is_convex(), "cvxpy does not see that H is convex"
    t.value = r.numpy()
    # cvxpy's e^x − 1 − x cancels at small radii; H is 1 at the length scale.
    error = (torch.as_tensor(expression.value) - H(r)).abs() / (1 + H(r))
    assert float(error.amax()) < 1e-13, "the cvxpy form has other values"


def check_text(H: Curvature) -> None:
    """parse(str(H)) is H, and equal curvatures hash alike."""
    again = icm.parse(str(H))
    assert again == H, f"{H} reads as {again}"
    assert hash(again) == hash(H)


# --- expectations ---------------------------------------------------------------------------------------------


def check_expectation(
    H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate = expect, tol: float = ROUNDING, samples: int = 8000
) -> None:
    """Every identity below; `tol` for those without differences. σ (k,) positive and distinct."""
    check_padding(H, sigma, dim, evaluate, tol)
    check_sums(H, sigma, dim, evaluate, tol)
    check_gradient(H, sigma, dim, evaluate)
    check_hessian(H, sigma, dim, evaluate)
    check_order(H, sigma, dim, evaluate)
    check_batch(H, sigma, dim, evaluate, tol)
    check_samples(H, sigma, dim, evaluate, samples)
    if dim <= 3 and len(sigma) == dim:
        check_quadrature(H, sigma, dim, evaluate, tol)


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
        assert worst(getattr(padded, name)[: len(sigma)], base) < loose, f"explicit zeros change {name}"
        assert worst(getattr(turned, name).flip(0), base) < loose, f"the order of σ changes {name}"
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


def check_gradient(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate) -> None:
    """slopes_i = ∂f/∂σ_i, by differences of the value; errors relative to f/σ_i."""
    e = evaluate(H, sigma, dim)
    found = torch.tensordot(COEFFICIENTS, evaluate(H, moved(sigma), dim).value, 1) / (STEP * sigma)
    share = float(((found - e.slopes).abs() * sigma).amax() / e.value)
    assert share < DIFFERENCES, f"slopes are not the gradient of the value: {share:.1e}"


def check_hessian(H: Curvature, sigma: Tensor, dim: int, evaluate: Evaluate) -> None:
    """∂²f/∂σ_i∂σ_j by differences of the slopes: 2σ_iσ_j (w_i − w_j)/(λ_i − λ_j) off the diagonal, and on it
    stiffness_i + 2x_i² bend_i/σ₁ = 2w_i + 4λ_i E[ψ'ζ_i⁴]; errors relative to slope_j/σ_i."""
    e = evaluate(H, sigma, dim)
    found = torch.tensordot(COEFFICIENTS, evaluate(H, moved(sigma), dim).slopes, 1) / (STEP * sigma[:, None])
    lam, w = sigma.square(), weights(e)
    gap = lam[:, None] - lam
    exact = 2 * sigma[:, None] * sigma * (w[:, None] - w) / gap.where(gap != 0, 1.0)
    exact = exact + torch.diag(e.stiffness + 2 * e.x.square() * e.bend / e.size)
    share = float(((found - exact).abs() * sigma[:, None] / e.slopes).amax())
    assert share < DIFFERENCES, f"stiffness, bend and weights are not the Hessian: {share:.1e}"
    assert worst(e.stiffness, 2 * w + 4 * e.x.square() * e.bend / e.size) < 1e-14, "stiffness is not d(σR)/dσ"


def moved(sigma: Tensor) -> Tensor:
    """σ with one entry at a time moved to the points of `difference`: (6, k, k)."""
    return sigma + OFFSETS[:, None, None] * STEP * torch.diag(sigma)


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
