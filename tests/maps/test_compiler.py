"""The compiler: what it makes, what it keeps, and what it refuses."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from icm.errors import InputError
from icm.maps import compiler as module
from icm.maps.compiler import degrees_for, fit
from icm.maps.gauss_newton import best_composition
from icm.maps.scalar import ScalarMap, sign


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few starts: these tests ask what a fit does, not how good it is."""
    monkeypatch.setattr(module, "best_composition", functools.partial(best_composition, tries=4))


DAMPED = ScalarMap(lambda x: x / (x.square() + 0.01).sqrt(), name="x/√(x² + 1/100)")


def test_a_fit_is_as_near_as_its_certificate_proves() -> None:
    """On 100,000 points of [lower, 1] the distance lies within the proved bounds; the map increases."""
    made = fit(DAMPED, steps=3, cache=None)
    x = torch.linspace(made.lower, 1, 100_001, dtype=torch.float64)
    distance = float((made.scalar(x) - DAMPED(x)).abs().max())
    low, high = made.certificate.error
    assert 0.99 * low <= distance <= high
    assert high < 1.01 * low
    assert high < 0.02
    assert made.certificate.increasing
    assert float(made.composition.slope(x).min()) > 0


def test_functions_tops_and_sizes() -> None:
    """A function of [0, 1], and φ on [0, 7] with values up to 30: the same composition, scaled."""
    phi = ScalarMap(lambda x: 30 * DAMPED(x / 7), top=7.0, scaling="absolute")
    plain = fit(lambda x: DAMPED(x), degree=(5, 3), cache=None)
    scaled = fit(phi, degree=(5, 3), cache=None)
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert float((scaled.scalar(7 * x) - 30 * plain.scalar(x)).abs().max()) < 1e-3
    assert plain.phi.scaling == "equivariant"
    assert plain.composition.degrees == (5, 3)


@pytest.mark.parametrize("monotone", [False, True])
def test_the_sign_and_its_multiples_are_polar_maps(monotone: bool) -> None:
    from icm.maps.greedy import best_polar

    best = best_polar(0.01, (5,) * 4, monotone)
    assert fit(sign(), 0.01, steps=4, monotone=monotone, cache=None).composition == best
    thrice = fit(ScalarMap(lambda x: torch.full_like(x, 3.0)), 0.01, steps=4, monotone=monotone, cache=None)
    assert thrice.composition == best.rescaled(outside=3.0)


def test_a_fit_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time it comes from the disk, bit for bit; another φ or lower, or a damaged file, is made anew."""
    lines: list[str] = []
    first = fit(DAMPED, degree=(5, 5), cache=tmp_path, progress=lines.append)
    assert len(lines) >= 2
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(module, "_compiled", None)
        again = fit(DAMPED, degree=(5, 5), cache=str(tmp_path), progress=lines.append)
        patch.setenv("ICM_CACHE", str(tmp_path))
        assert fit(DAMPED, degree=(5, 5)).composition == first.composition
    assert again.composition == first.composition
    assert "found" in lines[-1]
    fit(DAMPED, 2e-3, degree=(5, 5), cache=tmp_path)
    fit(DAMPED, degree=(5, 5), monotone=False, cache=tmp_path)
    fit(lambda x: x / (x.square() + 0.0101).sqrt(), degree=(5, 5), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    for path in tmp_path.iterdir():
        path.write_text(path.read_text()[:100])
    assert fit(DAMPED, degree=(5, 5), cache=tmp_path).composition == first.composition
    assert fit(DAMPED, degree=(5, 5), cache=tmp_path, progress=lines.append).composition == first.composition
    assert "found" in lines[-1]


PRODUCTS = {3: 2, 5: 3, 7: 4, 9: 4}


@pytest.mark.parametrize("products", range(2, 81))
def test_degrees_spend_the_products(products: int) -> None:
    """All of them are spent, and no split gains more at 0 with increasing factors (gains 3/2, 9/4, 45/16, 225/64)."""
    degrees = degrees_for(products)
    assert sum(PRODUCTS[d] for d in degrees) == products
    gain = {2: 3 / 2, 3: 9 / 4, 4: 225 / 64}
    best = [1.0, 0.0]
    for k in range(2, products + 1):
        best.append(max(best[k - c] * gain[c] for c in gain if c <= k))
    factors = 1.0
    for d in degrees:
        factors *= gain[PRODUCTS[d]]
    assert factors == pytest.approx(best[products])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lower": 1.0}, "lower=1.0"),
        ({"lower": -0.1}, "lower=-0.1"),
        ({"lower": float("nan")}, "lower=nan"),
        ({"degree": 4}, "degree=4"),
        ({"degree": 1}, "degree=1"),
        ({"degree": 11}, "degree=11"),
        ({"degree": True}, "degree=True"),
        ({"degree": ()}, "0 factors"),
        ({"steps": 0}, "0 factors"),
        ({"steps": 21}, "21 factors"),
        ({"phi": torch.zeros_like}, "nothing to fit"),
        ({"phi": sign(), "lower": 0}, "lower=0: sign rises to 1 "),
        ({"phi": lambda x: 1 - x}, "falls from"),
    ],
)
def test_what_cannot_be_fitted(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(**{"phi": DAMPED, "cache": None} | arguments)


@pytest.mark.parametrize("products", [1, 81, True])
def test_products_that_no_degrees_take(products: int) -> None:
    with pytest.raises(InputError, match="products="):
        degrees_for(products)
