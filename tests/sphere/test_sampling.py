"""The sampled reference: uniform directions, reproducible, with honest standard errors."""

from __future__ import annotations

import torch

from icm import Power
from icm.sphere.expectation import expect
from icm.sphere.sampling import directions, mean_sampled, slopes_sampled
from tests.oracles import tensor


def test_directions_are_uniform() -> None:
    """‖ζ‖ = 1, Eζ = 0, Eζζᵀ = I/n and Eζ_i⁴ = 3/(n(n+2)), within five standard errors."""
    n, N = 6, 40000
    zeta = directions(N, n, seed=3)
    assert torch.allclose(zeta.norm(dim=1), torch.ones(N, dtype=torch.float64), rtol=0, atol=1e-15)
    second = zeta.T @ zeta / N - torch.eye(n) / n
    assert float(zeta.mean(0).abs().max()) < 5 / (n * N) ** 0.5
    assert float(second.abs().max()) < 5 * (3 / (n * (n + 2)) / N) ** 0.5
    assert float((zeta.pow(4).mean(0) - 3 / (n * (n + 2))).abs().max()) < 5 * (105 / n**4 / N) ** 0.5


def test_seeds_decide() -> None:
    """One seed, one sample; another seed, another; the global generator is left alone."""
    state = torch.get_rng_state()
    assert torch.equal(directions(5, 3, seed=1), directions(5, 3, seed=1))
    assert not torch.equal(directions(5, 3, seed=1), directions(5, 3, seed=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_standard_errors_are_honest() -> None:
    """Over 100 seeds the deviations from the exact values, in standard errors, have mean 0 and variance 1."""
    H, sigma, n = Power(3.0), tensor(1.0, 0.5), 4
    e = expect(H, sigma, n)
    scores = []
    for seed in range(100):
        value, error = mean_sampled(H, sigma, n, 500, seed)
        found, errors = slopes_sampled(H, sigma, n, 500, seed)
        scores.append(torch.cat([((value - e.value) / error)[None], (found - e.slopes) / errors]))
    z = torch.stack(scores)
    assert float(z.mean(0).abs().max()) < 0.5
    assert float(z.var(0).min()) > 0.6
    assert float(z.var(0).max()) < 1.6
