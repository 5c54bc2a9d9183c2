"""The rule for s = Σ λ_i ζ_i² on the sphere, and hinges, against exact moments and laws that are known otherwise."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ellipk
from scipy.stats import beta
from torch import Tensor

from benchmarks.hinge_reference import hinge_reference
from icm.sphere.contour import Shape, densities, hinges
from icm.sphere.powers import Moments
from icm.sphere.rule import Rule, rule


def spectrum(name: str, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    noise = torch.randn(n, 2 * n, generator=generator, dtype=torch.float64)
    x = torch.full((n,), 0.5, dtype=torch.float64)
    match name:
        case "flat, k < n":
            x = torch.ones((n + 1) // 2, dtype=torch.float64)
        case "near-flat":
            x = 1 + 1e-3 * noise[:, 0]
        case "flat to 1e-9":
            x = 1 + 1e-9 * noise[:, 0].abs()
        case "Marchenko–Pastur":
            x = torch.linalg.svdvals(noise)
        case "power law":
            x = torch.arange(1, n + 1, dtype=torch.float64) ** -1.0
        case "spike":
            x = torch.linalg.svdvals(noise)
            x[0] = 1e6 * x[0]
        case "condition 1e12":
            x = torch.logspace(0, -12, n, dtype=torch.float64)
        case "half zeros":
            x = torch.logspace(0, -3, n, dtype=torch.float64)
            x[n // 2 + 1 :] = 0
        case "one value in the middle":
            x[0], x[-1] = 1, 0
        case "cluster in the middle":
            x = x + 1e-6 * noise[:, 0]
            x[0], x[-1] = 1, 0
    return x / x.max()


NAMES = ["flat, k < n", "near-flat", "flat to 1e-9", "Marchenko–Pastur", "power law", "spike"]
NAMES += ["condition 1e12", "half zeros", "one value in the middle", "cluster in the middle"]


def worst(value: Tensor, target: Tensor | float) -> float:
    return float((value / target - 1).abs().max())


def power_moment(x: Tensor, n: int, a: float) -> float:
    """E s^a, 0 < a < 1, from E X^a = −1/Γ(1−a) ∫ φ'(t) t^{−a} dt for X = ρ²s, ρ² ~ χ²_n independent of s,
    φ(t) = E e^{−tX} = Π(1+2tλ)^{−½}; trapezoid in log t."""
    with mpmath.workdps(20):
        lam = x.numpy() ** 2
        t = torch.arange(-3000, 1500, dtype=torch.float64).mul(0.1).exp().numpy()[:, None]
        phi = torch.as_tensor(-0.5 * torch.log1p(torch.as_tensor(2 * t * lam)).sum(-1)).exp()
        slope = torch.as_tensor(lam / (1 + 2 * t * lam)).sum(-1)
        integral = float((phi * slope * torch.as_tensor(t[:, 0]) ** (1 - a)).sum()) * 0.1
        ratio = mpmath.gamma(mpmath.mpf(n) / 2) / mpmath.gamma(mpmath.mpf(n) / 2 + a)
        return float(ratio * mpmath.mpf(2) ** -a / mpmath.gamma(1 - a)) * integral


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, 3, 8, 17, 64])
def test_moments_are_exact(name: str, n: int) -> None:
    """Σp = 1, Σq_i = 1/n, Σe_i = 3/(n(n+2)), E s, E s², and Σ λ_i q_i = u p at every node."""
    x = spectrum(name, n)
    lam, found = x**2, rule(x, n)
    assert worst(found.p.sum(), 1) < 2e-14
    assert worst(found.second.sum(0) * n, 1) < 2e-13
    assert worst(found.fourth.sum(0) * n * (n + 2) / 3, 1) < 1e-12
    assert worst(found.p @ found.nodes, lam.sum() / n) < 2e-14
    assert worst(found.p @ found.nodes**2, (lam.sum() ** 2 + 2 * (lam**2).sum()) / (n * (n + 2))) < 2e-14
    scale = (found.nodes * found.p).max()
    assert float((found.second @ lam - found.nodes * found.p).abs().max() / scale) < 1e-14
    assert bool((found.nodes >= 0).all())
    assert bool((found.nodes <= 1).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, 5, 17, 256])
def test_real_powers(name: str, n: int) -> None:
    """E s^a against the Laplace transform of X = ρ²s, for h = r^{1.25} and r^{1.7}; derivative weights by
    Euler's relation E[s ψ(s)] = Σ λ_i E[ψ(s) ζ_i²]."""
    x = spectrum(name, n)
    found = rule(x, n)
    for a in (0.625, 0.85):
        exact = power_moment(x, n, a)
        assert worst(found.p @ found.nodes**a, exact) < 2e-13
        assert worst((found.nodes ** (a - 1) @ found.second) @ x**2, exact) < 2e-13


def test_plane_by_angle() -> None:
    """n = 2: ζ = (cos θ, sin θ)."""
    x = torch.tensor([1.0, 0.3], dtype=torch.float64)
    found = rule(x, 2)

    def mean(f: Callable[[float], float]) -> float:
        return quad(f, 0, math.pi / 2, epsabs=0, epsrel=1e-13)[0] * 2 / math.pi

    def s(t: float) -> float:
        return math.cos(t) ** 2 + 0.09 * math.sin(t) ** 2

    logcosh = mean(lambda t: math.log(math.cosh(s(t) ** 0.5)))
    assert worst(found.p @ found.nodes.sqrt().cosh().log(), logcosh) < 1e-14
    weights = found.nodes.exp() @ found.second
    assert worst(weights[1], mean(lambda t: math.exp(s(t)) * math.sin(t) ** 2)) < 1e-14
    weights = found.nodes.exp() @ found.fourth
    assert worst(weights[1], mean(lambda t: math.exp(s(t)) * math.sin(t) ** 4)) < 1e-14


def test_space_by_elliptic_density() -> None:
    """n = 3, λ = (1, b, 0): the density is K(m)/(π √((1−b)u)) with m = b(1−u)/((1−b)u) above b, and
    K(1/m)/(π √(b(1−u))) below; it is logarithmic at b."""
    b = 0.36
    u = torch.tensor([1e-9, 0.1, 0.36 - 1e-7, 0.36 + 1e-7, 0.6, 1 - 1e-9], dtype=torch.float64)
    d = torch.stack([1 - u, b - u, -u], -1)
    p = densities(d, torch.ones(3, dtype=torch.float64))[0].sum(-1)
    for at, value in zip(u.tolist(), p.tolist(), strict=True):
        high, low = at * (1 - b), b * (1 - at)
        exact = ellipk(min(high, low) / max(high, low)) / (math.pi * math.sqrt(max(high, low)))
        assert abs(value / exact - 1) < 1e-9 if abs(at - b) < 1e-6 else abs(value / exact - 1) < 1e-14


@pytest.mark.parametrize(("k", "n"), [(1, 2), (1, 4), (3, 5), (1, 1024), (512, 1024), (1023, 1024)])
def test_flat_is_beta(k: int, n: int) -> None:
    """k equal values among n: s ~ Beta(k/2, (n−k)/2), with E s^a = B(k/2 + a, (n−k)/2)/B(k/2, (n−k)/2)."""
    found = rule(torch.ones(k, dtype=torch.float64), n)
    shape = k / 2, (n - k) / 2
    u = torch.tensor([float(beta.ppf(q, *shape)) for q in (0.01, 0.1, 0.4, 0.7, 0.9)], dtype=torch.float64)
    m = torch.tensor([k, n - k], dtype=torch.float64)
    p = densities(torch.stack([1 - u, -u], -1), m)[0] @ m
    assert worst(p, torch.as_tensor(beta.pdf(u.numpy(), *shape))) < 2e-12  # scipy's own error at n = 1024

    def power(a: float):
        half = mpmath.mpf(n - k) / 2
        return mpmath.beta(mpmath.mpf(k) / 2 + a, half) / mpmath.beta(mpmath.mpf(k) / 2, half)

    r = found.nodes.sqrt()
    with mpmath.workdps(25):
        exact = {a: float(power(a)) for a in (0.5, 0.625, 0.75, 2.6)}
        exponential = float(mpmath.fsum(power(mpmath.mpf(j) / 2) / mpmath.factorial(j) for j in range(2, 40)))
        root = float(mpmath.hyp2f1(-0.5, k / mpmath.mpf(2), n / mpmath.mpf(2), -1) - 1)
    for a, value in exact.items():
        assert worst(found.p @ found.nodes**a, value) < 1e-13
    stable = torch.where(r < 0.01, r**2 / 2 + r**3 / 6 + r**4 / 24 + r**5 / 120 + r**6 / 720, r.expm1() - r)
    assert worst(found.p @ stable, exponential) < 1e-13
    assert worst(found.p @ (found.nodes / (1 + (1 + found.nodes).sqrt())), root) < 1e-13


@pytest.mark.parametrize("n", [4, 33])
def test_batches_levels_and_order(n: int) -> None:
    """A batch agrees with its members, a level with the next, a permutation with the original."""
    x = torch.stack([spectrum(name, n) for name in NAMES if name != "flat, k < n"]).view(3, 3, n)
    found, finer = rule(x, n), rule(x, n, level=1)
    assert found.second.shape == (*found.nodes.shape, n) == (*found.fourth.shape,)
    assert finer.nodes.shape[-1] == 2 * found.nodes.shape[-1]

    def weights(of: Rule) -> tuple[Tensor, Tensor, Tensor]:
        """log cosh r: its mean and both kinds of weights; ψ = tanh(r)/2r, ψ' = (sech² r − tanh(r)/r)/4r²."""
        r = of.nodes.sqrt()
        slope = torch.where(r < 1e-3, 0.5 - r**2 / 6, r.tanh() / (2 * r))
        series = -1 / 6 + 2 * r**2 / 15 - 17 * r**4 / 210 + 62 * r**6 / 1417.5
        bend = torch.where(r < 0.01, series, (r.cosh() ** -2 - r.tanh() / r) / (4 * r**2))
        mean = (of.p * r.cosh().log()).sum(-1)
        return mean, torch.einsum("...u,...uk", slope, of.second), torch.einsum("...u,...uk", bend, of.fourth)

    for a, b, bound in zip(weights(found), weights(finer), (1e-14, 1e-13, 1e-12), strict=True):
        assert worst(a, b) < bound
    turned = rule(x.flip(-1), n)
    for a, b in zip(weights(turned)[1:], weights(found)[1:], strict=True):
        assert worst(a, b.flip(-1)) < 1e-13
    single = rule(x[1, 2], n)
    for a, b in zip(weights(single), weights(found), strict=True):
        assert worst(a, b[1, 2]) < 1e-13


def test_atoms() -> None:
    """n = 1, or n equal values, is one node; in a batch the others keep theirs."""
    one = rule(torch.ones(2, 1, dtype=torch.float64), 1)
    assert one.nodes.tolist() == [[1.0], [1.0]]
    assert one.fourth.tolist() == [[[1.0]], [[1.0]]]
    x = torch.tensor([[1, 1, 1 - 2e-14], [1, 0.5, 0], [1, 1, 1 - 1e-9]], dtype=torch.float64)
    found = rule(x, 3)
    assert int((found.p[0] > 0).sum()) == 1
    assert worst(found.fourth[0].sum(0), 3 / 15) < 1e-15
    assert worst(found.p.sum(-1), 1) < 1e-14
    assert worst((found.p * found.nodes).sum(-1), (x**2).mean(-1)) < 3e-14
    assert rule(x[:0], 3).p.shape[0] == 0


def test_more_values_than_dimensions() -> None:
    with pytest.raises(ValueError, match="dim = 2"):
        rule(torch.ones(3, dtype=torch.float64), 2)


# Hinges: E h(s), w_i = E[ψζ_i²] and w'(λ_i) = (2/3) E[ψ'ζ_i⁴] for h that starts at the level u = c².

SHAPES: tuple[Shape, ...] = ("hinge", "kink", "rise")
ONES = torch.ones(5, dtype=torch.float64)
LAMBDA = torch.tensor([1.0, 0.81, 0.4, 0.09, 0.0], dtype=torch.float64)


def curve(shape: Shape, c: Any) -> tuple[Callable, Callable, Callable, Any]:
    """h, ψ = h', the regular part of ψ' and its jump at u = c², as functions of s > u."""
    if shape == "hinge":
        return lambda s: s - c**2, lambda s: 1, lambda s: 0, 1
    if shape == "kink":
        return lambda s: s**0.5 - c, lambda s: 0.5 / s**0.5, lambda s: -0.25 / s**1.5, 0.5 / c
    return lambda s: (s**0.5 - c) ** 2 / 2, lambda s: 0.5 * (1 - c / s**0.5), lambda s: c / 4 / s**1.5, 0


def two_levels(shape: Shape, a: float, k: int, b: float, n: int, c: float) -> tuple[float, Tensor, Tensor]:
    """The hinge for k values λ = a and n − k values λ = b < a: the squares of the first k coordinates add up to
    t ~ Beta(k/2, (n−k)/2), s = b + (a−b)t, and given t each has the moments t/k and 3t²/k(k+2). In 30 digits,
    with t = 1 − (1−t_c) v², which takes the root off 1 − t."""
    with mpmath.workdps(30):
        A, B, C = mpmath.mpf(a), mpmath.mpf(b), mpmath.mpf(c)
        value, psi, bend, jump = curve(shape, C)
        K, J = mpmath.mpf(k) / 2, mpmath.mpf(n - k) / 2
        start: Any = (C**2 - B) / (A - B)

        def pdf(t: Any, rest: Any) -> Any:
            return t ** (K - 1) * rest ** (J - 1) / mpmath.beta(K, J)

        mode = max(start, mpmath.mpf(max(k - 2, 1)) / (n + 1))
        unit = pdf(mode, 1 - mode)  # quad works to an absolute error

        def mean(f: Callable) -> Any:
            def inner(v: Any) -> Any:
                rest = (1 - start) * v**2
                return f(B + (A - B) * (1 - rest), 1 - rest) * pdf(1 - rest, rest) / unit * 2 * (1 - start) * v

            return mpmath.quad(inner, [0, 0.5, 1]) * unit

        edge = jump * pdf(start, 1 - start) / (A - B)
        second = [mean(lambda s, t: psi(s) * t) / k, mean(lambda s, t: psi(s) * (1 - t)) / (n - k)]
        fourth = [mean(lambda s, t: bend(s) * t**2) + edge * start**2]
        fourth += [mean(lambda s, t: bend(s) * (1 - t) ** 2) + edge * (1 - start) ** 2]
        bends = [2 * fourth[0] / (k * (k + 2)), 2 * fourth[1] / ((n - k) * (n - k + 2))]
        return (
            float(mean(lambda s, t: value(s))),
            torch.tensor([float(w) for w in second], dtype=torch.float64),
            torch.tensor([float(w) for w in bends], dtype=torch.float64),
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("k", "n"), [(1, 2), (1, 3), (2, 3), (1, 8), (3, 4), (4, 8), (2, 40), (30, 90)])
def test_hinges_of_two_levels(shape: Shape, k: int, n: int) -> None:
    """Value, weights and bend against one-dimensional integrals, at levels across the range; n = 2 is the ellipse."""
    a, b = 1.0, 0.0625
    m = torch.tensor([k, n - k], dtype=torch.float64)
    c = torch.tensor([0.2501, 0.3, 0.5, 0.8, 0.99], dtype=torch.float64)
    d = torch.stack([(1 - c) * (1 + c), (0.25 - c) * (0.25 + c)], -1)
    found = hinges(d, m, c, shape)
    for row, radius in enumerate(c.tolist()):
        value, weights, bends = two_levels(shape, a, k, b, n, radius)
        assert abs(float(found.value[row]) / value - 1) < 3e-13
        assert worst(found.weight[row], weights) < 3e-13
        # The bend crosses zero, and far below the mean it is next to nothing; it is exact on the scale of the weights.
        scale = torch.maximum(bends.abs(), weights.abs()).amax()
        assert float((found.bend[row] - bends).abs().max() / scale) < 2e-13


@pytest.mark.parametrize("name", ["Marchenko–Pastur", "power law", "half zeros", "near-flat"])
@pytest.mark.parametrize("n", [3, 8, 40])
def test_hinges_against_ball_arithmetic(name: str, n: int) -> None:
    """Tail, values, weights and bend of any spectrum, on either side of the mean and far above it."""
    x = spectrum(name, n)
    low, mean, high = float(x.min()), float(x.square().mean().sqrt()), float(x.max())
    c = torch.tensor([(low + mean) / 2, mean, 0.3 * mean + 0.7 * high], dtype=torch.float64)
    d = (x - c[:, None]) * (x + c[:, None])
    hinge, kink = (hinges(d, torch.ones_like(x), c, shape) for shape in ("hinge", "kink"))
    for row, radius in enumerate(c.tolist()):
        exact = hinge_reference(x.numpy(), n, radius, indices=[0, n - 1])
        assert worst(hinge.weight[row].sum(), exact.tail) < 1e-13
        assert worst(hinge.value[row], exact.hinge) < 1e-13
        assert worst(hinge.weight[row, [0, -1]], torch.as_tensor(exact.hinge_weights)) < 1e-13
        assert worst(kink.value[row], exact.value) < 1e-13
        assert worst(kink.weight[row, [0, -1]], torch.as_tensor(exact.weights)) < 1e-13
        size = kink.bend[row].abs().max()
        assert float((kink.bend[row, [0, -1]] - torch.as_tensor(exact.bend)).abs().max() / size) < 1e-12


def every_shape(lam: Tensor, c: Tensor) -> dict[str, Moments]:
    """The three hinges at radii c (B,) for λ (5,) or (B, 5)."""
    return {shape: hinges(lam - c[:, None] ** 2, ONES, c, shape) for shape in SHAPES}


def test_hinges_add_up() -> None:
    """Σ d_i w_i = E(s−u)₊ for ψ = 1; Σ λ_i w_i = E[sψ]: ½(E(r−c)₊ + cP) for a kink and ½(E(r−c)₊² + c E(r−c)₊) for a
    rise; Σ w_i of a rise is ½(P − 2c Σ w_i of the kink); and a hinge is 2 rise + 2c kink."""
    c = torch.tensor([0.05, 0.31, 0.6, 0.7, 0.95, 0.9999], dtype=torch.float64)
    found = every_shape(LAMBDA, c)
    hinge, kink, rise = (found[shape] for shape in SHAPES)
    P = hinge.weight.sum(-1)
    assert worst((hinge.weight * (LAMBDA - c[:, None] ** 2)).sum(-1), hinge.value) < 1e-11  # cancels at small values
    assert worst(kink.weight @ LAMBDA, (kink.value + c * P) / 2) < 1e-14
    assert worst(rise.weight @ LAMBDA, rise.value + c * kink.value / 2) < 1e-14
    assert worst(rise.weight.sum(-1) + c * kink.weight.sum(-1), P / 2) < 1e-14
    for field in ("value", "weight", "bend"):
        parts = 2 * getattr(rise, field), 2 * getattr(kink, field)
        total = parts[0] + (c if field == "value" else c[:, None]) * parts[1]
        scale = getattr(hinge, field).abs().clamp(min=1e-3 * parts[1].abs())
        assert float(((total - getattr(hinge, field)).abs() / scale).max()) < 1e-11


def six_points(f: Callable[[Tensor], Tensor], step: float) -> Tensor:
    """f'(0) of f: offsets (6,) ↦ (6, …), to the order step⁶."""
    offsets = step * torch.tensor([-3, -2, -1, 1, 2, 3], dtype=torch.float64)
    coefficients = torch.tensor([-1, 9, -45, 45, -9, 1], dtype=torch.float64) / 60
    return torch.tensordot(coefficients, f(offsets), 1) / step


@pytest.mark.parametrize("shape", SHAPES)
def test_hinges_differentiate(shape: Shape) -> None:
    """∂E h/∂λ_i = w_i, ∂w_i/∂λ_i = (3/2) w'(λ_i) and ∂w_i/∂λ_j = ½ (w_i − w_j)/(λ_i − λ_j), by six points."""
    c = 0.55
    radius = torch.full((6,), c, dtype=torch.float64)
    found = hinges(LAMBDA[None] - c * c, ONES, radius[:1], shape)
    for i in range(5):
        unit = torch.eye(5, dtype=torch.float64)[i]

        def moved(offsets: Tensor, unit: Tensor = unit) -> Moments:
            return hinges(LAMBDA + offsets[:, None] * unit - c * c, ONES, radius, shape)

        assert worst(six_points(lambda h: moved(h).value, 2e-3), found.weight[0, i]) < 1e-9
        slopes = six_points(lambda h: moved(h).weight, 2e-3)
        gaps = LAMBDA[i] - LAMBDA
        exact = 0.5 * (found.weight[0, i] - found.weight[0]) / gaps.where(gaps != 0, 1.0)
        exact[i] = 1.5 * found.bend[0, i]
        assert float((slopes - exact).abs().max() / exact.abs().max()) < 1e-8


def test_hinges_along_the_radius() -> None:
    """A rise is the integral of the kink over the radii beyond; −∂/∂c of it is the kink, of the kink P, and of E(s−c²)₊
    2c P; the bend of a hinge is ⅔ E[ζ_i⁴ δ(s−u)]."""
    c = 0.72
    x, w = np.polynomial.legendre.leggauss(48)
    v, w = torch.as_tensor((1 + x) / 2), torch.as_tensor(w / 2)
    total = 0.0
    for start, stop in ((c, 0.9), (0.9, 1.0)):  # between singular values, graded towards both ends
        grade = v**3 * (10 - 15 * v + 6 * v**2)
        slope = 30 * v**2 * (1 - v) ** 2
        kinks = every_shape(LAMBDA, start + (stop - start) * grade)["kink"].value
        total += float((w * slope * kinks).sum() * (stop - start))
    here = every_shape(LAMBDA, torch.tensor([c], dtype=torch.float64))
    assert abs(total / float(here["rise"].value) - 1) < 1e-12

    def at(offsets: Tensor, shape: str) -> Tensor:
        return every_shape(LAMBDA, c + offsets)[shape].value

    P = here["hinge"].weight.sum()
    assert worst(-six_points(lambda h: at(h, "rise"), 2e-3), here["kink"].value) < 1e-9
    assert worst(-six_points(lambda h: at(h, "kink"), 2e-3), P) < 1e-9
    assert worst(-six_points(lambda h: at(h, "hinge"), 2e-3), 2 * c * P) < 1e-9
    fourth = densities(LAMBDA[None] - c * c, ONES)[1]
    assert worst(here["hinge"].bend, 2 / 3 * fourth) < 1e-13


@pytest.mark.parametrize("n", [512, 1024])
def test_hinges_next_to_many_values(n: int) -> None:
    """All but two values at ½ and the radius next to it: where a path bent towards them would lose all digits."""
    x = torch.full((n,), 0.5, dtype=torch.float64)
    x[0], x[-1] = 1, 0
    steps = torch.tensor([1e-2, 1e-3, 1e-4, 1e-6, 1e-10], dtype=torch.float64)
    c = 0.5 + torch.cat([-steps, steps])
    d = (x - c[:, None]) * (x + c[:, None])
    hinge, kink = (hinges(d, torch.ones_like(x), c, shape) for shape in ("hinge", "kink"))
    for row, radius in enumerate(c.tolist()):
        exact = hinge_reference(x.numpy(), n, radius, indices=[0, 1])
        assert worst(hinge.weight[row].sum(), exact.tail) < 5e-13
        assert worst(kink.value[row], exact.value) < 5e-13
        assert worst(kink.weight[row, :2], torch.as_tensor(exact.weights)) < 5e-13
