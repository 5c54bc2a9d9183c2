"""Single models' factors beside the ensemble's: the published correlations, and the arithmetic behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from icm.errors import InputError
from icm.symmetry.correlation import agreement, correlation, factors_of_each, joined, pearson
from icm.symmetry.ensembles import averaged, gradients, hessian, initial, teacher_student
from icm.symmetry.factors import factors, named
from icm.symmetry.network import Network
from tests.symmetry.drawn import normal

PUBLISHED = {10: (0.67, 0.38, 0.30), 100: (0.90, 0.61, 0.52), 1000: (0.96, 0.64, 0.54)}
SPREAD = {10: (0.05, 0.06, 0.05), 100: (0.02, 0.04, 0.03), 1000: (0.01, 0.03, 0.03)}


def table(width, models, at_once):
    """Factors of each of many 100–width–100 networks at initialisation, Bernacchia's (ICML 2025) Table 1."""
    network = Network((100, width, 100), "tanh")
    (data,) = teacher_student(network, [10_000], seed=1, dtype=torch.float32)
    parts = []
    for k in range(0, models, at_once):
        theta = initial(network, at_once, seed=100 + k, dtype=torch.float32)
        parts.append(factors_of_each(gradients(theta, data, network, chunk=max(1, 200 // width)), network))
    return joined(parts)


@pytest.mark.parametrize("width", [10, 100, pytest.param(1000, marks=pytest.mark.long)])
def test_one_model_knows_the_ensembles_factors_as_well_as_published(width):
    each = table(width, 200, 10)
    without, within = agreement(each), agreement(each, leave_out=False)
    for name, mean, spread in zip(("Φ1", "Ψ", "Φ2"), PUBLISHED[width], SPREAD[width], strict=True):
        assert float(without[name].mean()) == pytest.approx(mean, abs=0.06)
        assert float(without[name].std()) == pytest.approx(spread, abs=0.02)
        assert 0 < float(within[name].mean() - without[name].mean()) < 0.02


def test_leaving_out_is_a_loop_over_the_models():
    network = Network((3, 5, 4), "tanh", True)
    each = factors_of_each(network.split(normal(1, 6, network.size)), network)
    found = agreement(each)
    for i in range(6):
        rest = [j for j in range(6) if j != i]
        mine = named(factors(network.split(normal(1, 6, network.size)[i]), network))
        others = named(factors(network.split(normal(1, 6, network.size)[rest]), network))
        for name, r in found.items():
            wanted = np.corrcoef(mine[name].flatten().numpy(), others[name].flatten().numpy())[0, 1]
            assert float(r[i]) == pytest.approx(wanted, abs=1e-12)
    assert set(found) == {"Φ1", "W1,b1", "Ψ", "b1,W2", "Φ2", "b2,b2"}


def test_factors_of_one_number_have_no_correlation():
    network = Network((3, 4, 5, 2), "tanh")
    S = factors(network.split(normal(1, network.size)), network)
    assert set(correlation(S, S)) == {"Φ1", "Φ3"}
    assert float(correlation(S, 2.0 * S)["Φ1"]) == pytest.approx(1.0, abs=1e-14)


def test_pearson_is_numpys_at_any_size():
    x, y = normal(1, 3, 50), normal(2, 3, 50)
    wanted = [np.corrcoef(a, b)[0, 1] for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    for size in (1.0, 1e-180, 1e180):
        assert np.allclose(pearson(size * x, y), wanted, rtol=1e-12)


def test_the_global_hessian_and_the_gradients_covariance_are_alike_in_a_wide_network():
    """Both estimated from one ensemble: the inputs' spectrum is in both first factors."""
    network = Network((10, 40, 5), "tanh")
    (data,) = teacher_student(network, [500], seed=1, decades=3.0)
    theta = initial(network, 60, seed=2)
    H = averaged(hessian(theta, data, network, probes=2, seed=1))
    found = correlation(factors(gradients(theta, data, network), network), H)
    assert float(found["Φ1"]) > 0.9
    assert set(found) == {"Φ1", "Ψ", "Φ2"}


def test_what_cannot_be_compared_is_refused():
    network, other = Network((3, 4, 2)), Network((3, 5, 2))
    S, T = (factors(n.split(normal(1, n.size)), n) for n in (network, other))
    with pytest.raises(InputError, match="different networks"):
        correlation(S, T)
    with pytest.raises(InputError, match="one model"):
        agreement(factors_of_each(network.split(normal(1, 1, network.size)), network))
