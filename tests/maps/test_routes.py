"""The rules by which a route is chosen, and the claim about rounding that they rest on."""

from __future__ import annotations

import pytest
import torch

from icm.errors import InputError
from icm.maps.composition import Composition
from icm.maps.polynomial import apply
from icm.maps.routes import GROWTH, Route, choose, stretches

EXPRESS = (8.205, 4.066, 3.909, 3.285, 2.278, 1.872, 1.856)  # c_0 of Polar Express's quintics, arXiv:2505.16932


def test_stretches() -> None:
    assert stretches(EXPRESS) == (2, 2, 3)
    assert stretches(EXPRESS[:5]) == (2, 2, 1)
    assert stretches((3.4445,) * 5) == (2, 2, 1)
    assert stretches((1.875,) * 9) == (4, 4, 1)
    assert stretches((None,) * 5) == (2, 2, 1)
    assert stretches(()) == ()
    assert stretches(EXPRESS[:5], 80, 180) == (2, 3)
    assert stretches(EXPRESS[:5], 1200, 1200) == (3, 2)
    assert stretches((100.0, 100.0)) == (1, 1)


@pytest.mark.parametrize("growths", [EXPRESS, (3.4445,) * 5, (1.875,) * 9, (20.0, 1.5, 1.5)])
def test_no_stretch_grows_too_much(growths: tuple[float, ...]) -> None:
    start = 0
    for length in stretches(growths):
        product = 1.0
        for c in growths[start : start + length - 1]:
            product *= c * c
        assert product <= GROWTH
        start += length
    assert start == len(growths)


def test_choice() -> None:
    five = (3.4445,) * 5
    assert choose("auto", (64, 64), five, torch.bfloat16, "cpu", False).segments == (1,) * 5
    assert choose("auto", (64, 256), five, torch.bfloat16, "cpu", False).segments == (2, 3)
    assert choose("auto", (64, 128), five, torch.bfloat16, "cpu", False).segments == (2, 2, 1)
    assert choose("auto", (64, 128), five, torch.float32, "cpu", False).segments == (3, 2)
    assert choose("gram", (64, 64), five, torch.bfloat16, "cuda", False) == Route((2, 2, 1))
    assert choose("auto", (1024, 1024), five, torch.float32, "cpu", False).panels > 1
    assert choose("auto", (64, 256), five, torch.float32, "cpu", True).chunk == 0
    given = Route((5,), 3, 2)
    assert choose(given, (64, 256), five, torch.float32, "cpu", False) is given
    for segments in ((), (2, 2), (5, 0), (6, -1)):
        with pytest.raises(InputError, match="segments"):
            choose(Route(segments), (64, 256), five, torch.float32, "cpu", False)


def test_why_stretches_end() -> None:
    """In bfloat16 all of Polar Express's five factors on one R run away; cut as here, R serves as well as X."""
    express = Composition(
        (
            (8.205160414005569, -22.90193498705606, 16.460724910180303),
            (4.066395161764439, -2.8612840866976445, 0.5183804432654726),
            (3.9095941045170117, -2.823451746139662, 0.525018201239489),
            (3.2855640171881787, -2.415302137171053, 0.48529405567946164),
            (2.277872940341391, -1.6198269306495744, 0.39848127411263384),
        )
    )
    draw = torch.Generator().manual_seed(0)
    U, _, Vh = torch.linalg.svd(torch.randn(128, 256, generator=draw, dtype=torch.float64), full_matrices=False)
    g = 1 / torch.arange(1, 129, dtype=torch.float64)
    G = (U * g) @ Vh
    wanted = (U * express(g / g.norm())) @ Vh

    def error(route: Route) -> float:
        found = apply(express, G, precision="bf16", route=route)
        return float(torch.linalg.matrix_norm(found - wanted, 2) / torch.linalg.matrix_norm(wanted, 2))

    direct = error(Route((1,) * 5))
    assert direct < 0.2
    assert error(Route(stretches([c[0] for c in express.factors]))) < 4 * direct
    assert error(Route((5,))) > 100 * direct
