"""Compositions for any φ: against scipy, against the best polar maps, and against the figures wanted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from icm.errors import InputError
from icm.maps.composition import Composition
from icm.maps.gauss_newton import best_composition, nodes_of, refine

FINE = torch.cat([torch.logspace(-8, -2, 20001), torch.linspace(0.01, 1, 40001)]).double()


def smooth(width: float):
    return lambda x: x / (x.square() + width**2).sqrt()


def capped(width: float):
    return lambda x: (x / width).clamp(max=1.0)


def quartic(D: float):
    """σ³ + Dσ = (1 + D) g by Cardano: φ(1) = 1."""

    def phi(g: Tensor) -> Tensor:
        half = (1 + D) * g / 2
        s = torch.asinh(half * (3 / D) ** 1.5)
        return 2 * (D / 3) ** 0.5 * torch.sinh(s / 3)

    return phi


def above(lower: float) -> Tensor:
    return FINE[torch.searchsorted(FINE, lower) :]


def distance(p: Composition, phi, lower: float = 0.0) -> float:
    x = above(lower)
    return float((p(x) - phi(x)).abs().max())


def test_the_jacobian_step_agrees_with_scipy() -> None:
    """Least squares from the same start: scipy.optimize.least_squares on the composition ends at the same sum."""
    from scipy.optimize import least_squares

    phi = quartic(0.5)
    x = np.linspace(0.005, 1, 200)
    y = phi(torch.from_numpy(x)).numpy()
    start = [np.array([1.2, -0.3, 0.1])] * 2

    def residual(theta: np.ndarray) -> np.ndarray:
        v = x
        for c in theta.reshape(2, 3):
            v = v * np.polynomial.polynomial.polyval(v * v, c)
        return v - y

    theirs = least_squares(residual, np.concatenate(start), xtol=1e-12, ftol=1e-12, gtol=1e-12)
    factors, _ = refine(x, y, start, powers=(2,), rounds=200)
    ours = residual(np.concatenate(factors))
    assert ours @ ours == pytest.approx(2 * theirs.cost, rel=1e-2)


# Five quintics, 15 products, on [0, 1]. Measured: 4.4e-4, 4.4e-5, 1.4e-2, 1.3e-2, 1.3e-2 and, monotone, 4.8e-4, 4.4e-5,
# 1.4e-2, 4.1e-2, 0.33 (there the slope at 0 would have to be 200; five increasing quintics reach 58).
CASES = {
    "smooth.05": (smooth(0.05), 4.5e-4, 4.9e-4),
    "quartic.5": (quartic(0.5), 4.5e-5, 4.5e-5),
    "quartic.05": (quartic(0.05), 1.4e-2, 1.45e-2),
    "capped.05": (capped(0.05), 1.35e-2, 4.2e-2),
    "smooth.005": (smooth(0.005), 1.35e-2, 0.34),
}


QUICK = [("quartic.5", True)]
REST = [(name, monotone) for name in CASES for monotone in (False, True) if (name, monotone) not in QUICK]


@pytest.mark.parametrize(
    ("name", "monotone"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.long) for case in REST)]
)
def test_five_quintics(name: str, monotone: bool) -> None:
    """The errors above, on 60,000 points; the slope is positive where asked; p stays tame beyond 1."""
    phi, free, ordered = CASES[name]
    p = best_composition(phi, 0.0, (5,) * 5, monotone)
    assert p.degrees == (5,) * 5
    assert distance(p, phi) < (ordered if monotone else free)
    if monotone:
        assert float(p.slope(FINE).min()) > 0
    beyond = p(torch.linspace(1, 1.01, 1001, dtype=torch.float64))
    assert float(beyond.amax()) < 1.4
    assert float(beyond.amin()) > 0


def test_a_single_factor_is_the_minimax_polynomial() -> None:
    """One factor is a linear problem: the linear programme on a fine grid has the same value."""
    from scipy.optimize import linprog

    phi, x = quartic(0.5), np.linspace(0, 1, 2001)
    y = phi(torch.from_numpy(x)).numpy()
    V = x[:, None] ** np.arange(1, 8, 2)
    ones = np.ones((len(x), 1))
    lp = linprog([0, 0, 0, 0, 1], np.block([[V, -ones], [-V, -ones]]), np.concatenate([y, -y]), bounds=(None, None))
    p = best_composition(phi, 0.0, (7,), tries=5)
    assert distance(p, phi) == pytest.approx(lp.fun, rel=1e-2)


def test_the_sign_from_its_lower_end_on() -> None:
    """φ = 1 on [lower, 1]: two quintics nearest to it are minimax factors in turn (Polar Express, theorem 3.1)."""
    from icm.maps.greedy import best_polar

    lower = 0.05
    best = best_polar(lower, (5, 5), monotone=False, margin=0.0)
    x = above(lower)
    least = float((best(x) - 1).abs().max())
    p = best_composition(torch.ones_like, lower, (5, 5), tries=10)
    assert distance(p, torch.ones_like, lower) < 1.02 * least
    assert distance(p, torch.ones_like, lower) > 0.99 * least
    below = p(FINE[: -len(x)])
    assert float(below.amin()) > -1.02 * least
    assert float(below.amax()) < 1 + 1.02 * least


@pytest.mark.parametrize("monotone", [False, True])
def test_a_start_from_a_neighbour(monotone: bool) -> None:
    """φ moves by a tenth: from its old composition `refine` ends within 1.5 of 6.8e-5, what the whole search finds."""
    before, after = quartic(0.5), quartic(0.45)
    old = best_composition(before, 0.0, (5,) * 5, monotone, tries=25)
    assert distance(old, after) > 1e-2
    warm = best_composition(after, 0.0, (5,) * 5, monotone, start=old)
    assert distance(warm, after) < 1.5 * 6.8e-5
    if monotone:
        assert float(warm.slope(FINE).min()) > 0


@pytest.mark.parametrize("monotone", [False, True])
def test_longer_compositions_grow_from_shorter_ones(monotone: bool) -> None:
    """Six factors err less than five, of mixed degrees too; each factor added is of the degree asked for."""
    errors = []
    for degrees in ((3, 5, 3, 5, 3), (3, 5, 3, 5, 3, 5)):
        p = best_composition(quartic(0.5), 0.0, degrees, monotone, tries=10)
        assert p.degrees == degrees
        errors.append(distance(p, quartic(0.5)))
    assert errors[1] < 0.7 * errors[0]


def test_values_of_any_size_and_degrees_of_any_mix() -> None:
    """1000 φ is met 1000 times as coarsely, by factors of degrees 3, 9 and 7."""
    p = best_composition(quartic(0.5), 0.0, (3, 9, 7), tries=10)
    big = best_composition(lambda x: 1000 * quartic(0.5)(x), 0.0, (3, 9, 7), tries=10)
    assert big.degrees == (3, 9, 7)
    assert distance(big, lambda x: 1000 * quartic(0.5)(x)) == pytest.approx(1000 * distance(p, quartic(0.5)), rel=1e-3)


def test_starts_that_lead_nowhere() -> None:
    """A factor that vanishes at 1 cannot be made increasing: error ∞; a composition of other degrees is refused."""
    x = np.linspace(0.01, 1, 50)
    _, error = refine(x, x, [np.array([1.0, -1.0]), np.array([1.0, 0.0])], monotone=True)
    assert not error < np.inf
    with pytest.raises(InputError, match=r"degrees \(3,\)"):
        best_composition(quartic(0.5), 0.0, (5, 5), start=Composition(((1.0, 0.0),)))
    with pytest.raises(InputError, match="positive and finite"):
        best_composition(torch.zeros_like, 0.0, (5,))


@pytest.mark.parametrize("lower", [0.0, 1e-3, 0.2])
def test_nodes_are_dense_where_phi_moves(lower: float) -> None:
    """Ascending in (0, 1], the ends among them; between neighbours φ moves by a fiftieth at most."""
    for phi, _, _ in CASES.values():
        x = nodes_of(phi, lower, 240)
        assert (np.diff(x) > 0).all()
        assert x[0] > 0
        assert x[-1] == 1
        assert lower == 0 or lower in x
        assert len(x) > 150
        assert np.diff(phi(torch.from_numpy(x)).numpy()).max() < 0.02
