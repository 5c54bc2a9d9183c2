"""Rules for ensembles against torch's optimizers of single models."""

from __future__ import annotations

import itertools

import pytest
import torch

from icm.symmetry import updates
from icm.symmetry.ensembles import Data, forward, initial
from icm.symmetry.factors import factors
from icm.symmetry.network import Network
from tests.symmetry.drawn import normal

NETWORK = Network((3, 4, 2), "tanh", True)
DATA = Data(normal(1, 9, 3), normal(2, 9, 2))


def by_torch(make, i, steps):
    params = [t[i].clone().requires_grad_() for t in initial(NETWORK, 3, seed=5)]
    optimizer = make(params)
    for _ in range(steps):
        optimizer.zero_grad()
        ((forward(params, DATA.x, NETWORK) - DATA.y).square().sum() / 18).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in params])


@pytest.mark.parametrize(
    ("rule", "make"),
    [
        (updates.descent(0.3), lambda p: torch.optim.SGD(p, 0.3)),
        (updates.momentum(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8)),
        (updates.adam(0.01, (0.8, 0.99), 1e-6), lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.99), 1e-6)),
    ],
    ids=["descent", "momentum", "adam"],
)
def test_every_model_moves_as_under_torchs_optimizer(rule, make):
    path = updates.train(initial(NETWORK, 3, seed=5), DATA, NETWORK, rule)
    end = NETWORK.join(next(itertools.islice(path, 19, 20)))
    for i in range(3):
        assert torch.allclose(end[i], by_torch(make, i, 20), rtol=1e-11, atol=1e-13)


def test_a_rate_may_be_a_function_of_the_step():
    asked = []

    def rate(step):
        asked.append(step)
        return 0.0

    start = initial(NETWORK, 2, seed=5)
    path = updates.train(start, DATA, NETWORK, updates.momentum(rate))
    end = next(itertools.islice(path, 2, 3))
    assert sorted(set(asked)) == [0, 1, 2]
    assert all(torch.equal(a, b) for a, b in zip(start, end, strict=True))


def test_symo_whitens_by_the_averaged_second_moment():
    """Σ̂ written out: dense, and its inverse root by eigh."""
    network, decay = Network((2, 3, 2), "tanh"), 0.7
    rule, state = updates.symo(1.0, network, decay), None
    total = torch.zeros(network.size, network.size, dtype=torch.float64)
    for t in range(6):
        G = network.split(normal(t, 1, network.size))
        moves, state = rule(G, state)
        total = decay * total + (1 - decay) * factors(G, network).dense()
        w, U = torch.linalg.eigh(total / (1 - decay ** (t + 1)))
        live = w > 1e-12 * w.max()
        wanted = -(U[:, live] * w[live] ** -0.5) @ (U[:, live].mT @ network.join(G)[0])
        assert torch.allclose(network.join(moves)[0], wanted, atol=1e-9)
