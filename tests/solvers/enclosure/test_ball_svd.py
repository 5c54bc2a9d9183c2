"""Enclosed singular values: they hold the true ones, whatever the spectrum."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath
import numpy as np
import pytest
from flint import arb, ctx

from icm.solvers.enclosure import svd
from icm.solvers.enclosure.quadrature import BITS
from icm.solvers.enclosure.svd import frobenius, matrix, singular_values
from tests.solvers.problems import matrix as random_matrix
from tests.solvers.problems import rotation


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    with ctx.workprec(BITS):
        yield


def known(G: np.ndarray) -> list[arb]:
    """By mpmath's SVD with 60 digits, as balls of relative radius 1e-40."""
    with mpmath.workdps(60):
        tall = G if G.shape[0] >= G.shape[1] else G.T
        values = mpmath.svd_r(mpmath.matrix(tall.tolist()), compute_uv=False)
        return [arb(mpmath.nstr(x, 50)) * (1 + arb(0, 1e-40)) for x in values]


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 7), (7, 3), (1, 5), (5, 1)])
def test_holds_the_singular_values(shape: tuple[int, int]) -> None:
    G = random_matrix(11, *shape).numpy()
    for found, exact in zip(singular_values(G), known(G), strict=True):
        assert found.overlaps(exact)
        assert float(found.rad()) < 1e-25


def test_clusters_zeros_and_scales() -> None:
    """Equal values, rank one, 1e±300: the balls still hold, with the accuracy of float64 where values meet."""
    Q = 3 * rotation(5, 6).numpy()
    product = random_matrix(3, 4, 1).numpy() @ random_matrix(4, 1, 5).numpy()
    G = random_matrix(12, 3, 3).numpy()
    graded = (rotation(1, 5).numpy() * np.logspace(0, -14, 5)) @ rotation(2, 5).numpy()
    for A in (Q, product, graded, 1e300 * G, 1e-300 * G, np.diag([2.0, 2.0, 1.0]), np.zeros((2, 3))):
        size = max(1e-320, float(np.abs(A).max()))
        for found, exact in zip(singular_values(A), known(A), strict=True):
            assert found.overlaps(exact)
            assert float(found.rad() / size) < 1e-13


def test_large() -> None:
    """Σ g_i² = ‖G‖_F² for a 48 × 64 matrix, in narrow balls."""
    G = random_matrix(13, 48, 64).numpy()
    squares = sum((x * x for x in singular_values(G)), arb(0))
    exact = sum((arb(x) ** 2 for x in G.ravel().tolist()), arb(0))
    assert squares.overlaps(exact)
    assert float(squares.rad() / exact.mid()) < 1e-24
    assert (frobenius(matrix(G)) ** 2 - exact).abs_upper() < 1e-30


def test_wrong_factors_cost_width_not_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refinement is not part of the proof: with nonsense in its place the balls grow and still hold."""
    G = random_matrix(14, 3, 4).numpy()
    monkeypatch.setattr(svd, "_refined", lambda G, U, d, V: (U * arb(1.125), d, V))
    for found, exact in zip(singular_values(G), known(G), strict=True):
        assert found.overlaps(exact)
        assert float(found.rad()) > 0.01
