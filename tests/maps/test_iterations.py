"""Published iterations: the numbers of their sources, and torch's own optimizer beside them."""

from __future__ import annotations

import pytest
import torch

from icm.errors import InputError
from icm.maps.iterations import NAMES, POLAR_EXPRESS_RAW, known, source
from icm.maps.remez import taylor


def test_newton_schulz_is_the_default_of_torch_optim_muon() -> None:
    defaults = torch.optim.Muon([torch.nn.Parameter(torch.zeros(2, 2))]).defaults
    p = known("newton-schulz")
    assert p.factors == (tuple(defaults["ns_coefficients"]),) * defaults["ns_steps"]


def test_newton_schulz_does_what_muon_does(rng: torch.Generator) -> None:
    """One step of torch.optim.Muon in bf16 from zero weights, against U p(g/‖G‖_F) Vᵀ in float64."""
    G = torch.randn(48, 32, generator=rng)
    weight = torch.nn.Parameter(torch.zeros_like(G))
    optimizer = torch.optim.Muon([weight], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0)
    weight.grad = G.clone()
    optimizer.step()
    U, g, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    Q = (U * known("newton-schulz")(g / g.norm())) @ Vh
    scale = (48 / 32) ** 0.5  # torch's adjustment of the learning rate for tall matrices
    assert float((-weight.detach().double() / scale - Q).norm() / Q.norm()) < 0.02


def test_classical_steps_are_taylor_polynomials() -> None:
    for name, q in (("cubic", 1), ("quintic", 2)):
        assert all(factor == pytest.approx(taylor(q)) for factor in known(name, 4).factors)


def test_polar_express_takes_its_safety_factor_on_all_but_the_last() -> None:
    p = known("polar-express", 10)
    for factor, raw in zip(p.factors[:7], POLAR_EXPRESS_RAW[:7], strict=True):
        assert factor == pytest.approx((raw[0] / 1.01, raw[1] / 1.01**3, raw[2] / 1.01**5), rel=1e-15)
    assert p.factors[7:] == ((1.875, -1.25, 0.375),) * 3
    # As printed to four digits in NVIDIA's Emerging-Optimizers.
    assert p.factors[0] == pytest.approx((8.2051, -22.9019, 16.4607), abs=1e-4)
    assert p.factors[6] == pytest.approx((1.8564, -1.2132, 0.3568), abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_factors_and_a_source(name: str) -> None:
    p = known(name)
    assert len(p) >= 5
    assert set(p.degrees) <= {3, 5}
    assert any(mark in source(name) for mark in ("arXiv", "http", "(19", "(20"))
    if name != "you":
        assert len(known(name, 3)) == 3
        assert known(name, 7).factors[: len(p)] == p.factors[:7]


def test_what_cannot_be_used_is_named() -> None:
    with pytest.raises(InputError, match=r"'newton'.*choose one of 'newton-schulz'"):
        known("newton")
    with pytest.raises(InputError, match="'newton'"):
        source("newton")
    with pytest.raises(InputError, match="steps=0"):
        known("newton-schulz", 0)
    with pytest.raises(InputError, match="steps=4"):
        known("you", 4)
