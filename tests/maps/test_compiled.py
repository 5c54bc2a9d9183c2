"""The cheapest composition that will do: on the spectrum that matters, within the error it states."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from icm.maps.compiled import COST, Demand, compile_map
from icm.maps.composition import products
from icm.maps.error import Error, spread
from icm.maps.scalar import ScalarMap, sign
from icm.maps.statistics import Spectrum, representatives, spectrum
from tests.maps.spectra import spectra, with_spectrum

STEEP = ScalarMap(lambda x: x / (x.square() + 0.01).sqrt(), scaling="absolute", name="steep")


def of(name: str, rng: torch.Generator, method: str = "eigvalsh") -> Spectrum:
    G = with_spectrum(spectra(40, rng)[name], 40, 40, rng)
    return spectrum(G / torch.linalg.matrix_norm(G, 2), method)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gaussian", "1/i", "condition 1e8", "outlier", "rank deficient"])
@pytest.mark.parametrize("tol", [3e-2, 1e-3])
def test_within_the_error_on_the_spectrum(name: str, tol: float, rng: torch.Generator) -> None:
    known = of(name, rng)
    map = compile_map(STEEP, known, Demand(tol, ("bf16", "fp32")))
    assert map.error.total <= tol
    wanted = STEEP(known.g)
    assert float((map.sigma(known.g) - wanted).norm() / wanted.norm()) <= map.error.fit + 1e-9
    if name == "gaussian" or tol < 1e-2:
        assert map.precision == ("bf16" if tol > 1e-2 else "fp32")


def test_less_accuracy_costs_less(rng: torch.Generator) -> None:
    known = of("gaussian", rng)
    made = [compile_map(STEEP, known, Demand(tol, ("bf16", "fp32"))) for tol in (5e-2, 1e-2, 1e-4)]
    cost = [products(map.composition.degrees) * COST[map.precision] for map in made]
    assert cost == sorted(cost)
    assert cost[0] < cost[-1]


def test_from_moments_the_bound_holds_for_the_true_spectrum(rng: torch.Generator) -> None:
    for name in ("gaussian", "two levels", "1/i"):
        true, known = of(name, rng), of(name, rng, "moments")
        map = compile_map(STEEP, known, Demand(3e-2, ("fp32",)))
        wanted = STEEP(true.g)
        assert float((map.sigma(true.g) - wanted).norm() / wanted.norm()) <= map.error.fit * 1.05 + 1e-6, name


def test_the_sign(rng: torch.Generator) -> None:
    map = compile_map(sign(), of("gaussian", rng), Demand(1e-2, ("fp32",)), flat=True)
    assert set(map.composition.degrees) == {5}
    assert map.error.total <= 1e-2


def test_products_of_degrees() -> None:
    assert [products((d,)) for d in (3, 5, 7, 9)] == [2, 3, 4, 4]
    assert products((5, 9, 9, 9)) == 15


@pytest.mark.parametrize(("k", "count"), [(1, 8), (5, 8), (40, 48), (1000, 48), (4096, 96)])
def test_representatives_stand_for_all(k: int, count: int) -> None:
    index, weights = representatives(k, count)
    assert index[0] == 0
    assert index[-1] == k - 1
    assert len(index) <= min(k, count)
    assert weights.sum() == pytest.approx(k)
    assert (weights > 0).all()
    if k > count:
        assert np.array_equal(index[:4], np.arange(4))  # the largest, one by one


def test_errors_add_up_and_say_so() -> None:
    error = Error(1e-2, 2e-3, 3e-3)
    assert error.total == pytest.approx(1.5e-2)
    assert str(error) == "1.5e-02 (fit 1.0e-02, spectrum 2.0e-03, rounding 3.0e-03)"
    g = torch.linspace(1, 0.1, 10, dtype=torch.float64)
    assert spread(STEEP(g), STEEP, g) == 0.0
    assert spread(STEEP(g), sign(), g) > 0.01
