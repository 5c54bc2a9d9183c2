"""Induced norms: delegates, sign vectors against plain enumeration, and bounds that enclose every known value."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from icm.errors import InputError
from icm.norms import ColumnNorm, Induced, Norm, RowNorm, Spectral, induced_bounds
from tests.norms.oracles import check_axioms, check_norm, check_projection, matrices, near, normal

INF = math.inf
SAID = {(INF, 1.0): 1.18, (INF, 2.0): 1.06, (2.0, 1.0): 1.04, (3.0, 3.0): 1.3, (4 / 3, 4.0): 1.5}
exponents = st.sampled_from([1.0, 1.2, 4 / 3, 2.0, 3.0, 7.0, INF])


def plain(W: Tensor, beta: float) -> float:
    """max ‖Wx‖_β over all sign vectors, one by one."""
    return max(
        float(torch.linalg.vector_norm(W @ torch.tensor(x, dtype=W.dtype), beta))
        for x in itertools.product((-1.0, 1.0), repeat=W.shape[1])
    )


@pytest.mark.parametrize(
    ("norm", "same"),
    [
        (Induced(1.0, 3.0), ColumnNorm(3.0)),
        (Induced(1.0, INF), ColumnNorm(INF)),
        (Induced(1.5, INF), RowNorm(1.5)),
        (Induced(2.0, 2.0), Spectral()),
    ],
    ids=str,
)
def test_known_ones_are_the_classes_that_know_them(norm: Norm, same: Norm) -> None:
    check_norm(norm, ((3, 5),))
    check_projection(norm, ((3, 5),))
    for W in matrices(1, 3, 5):
        assert torch.equal(norm.norm(W), same.norm(W))
        assert torch.equal(norm.dualize(W), same.dualize(W))


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_single_rows_and_columns_are_known_for_all_exponents(shape: tuple[int, int]) -> None:
    """‖row‖_{α*} and ‖column‖_β."""
    norm = Induced(3.0, 1.5)
    check_norm(norm, (shape,))
    W = normal(2, *shape)
    near(norm.norm(W), torch.linalg.vector_norm(W, 1.5))  # both, as 3* = 3/2


@pytest.mark.parametrize(("alpha", "beta"), [(INF, 1.0), (INF, 2.0), (INF, 1.5)])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_sign_vectors(alpha: float, beta: float, shape: tuple[int, int]) -> None:
    norm = Induced(alpha, beta)
    check_axioms(Valued(alpha, beta), torch.stack(matrices(3, *shape)))
    for W in matrices(4, *shape):
        near(norm.norm(W), torch.tensor(plain(W, beta), dtype=torch.float64))
        dual = beta / (beta - 1) if beta > 1 else INF
        near(Induced(dual, 1.0).norm(W.mT), norm.norm(W))  # ‖W‖_{∞→β} = ‖Wᵀ‖_{β*→1}


class Valued(Induced):
    """Its value in place of its dual too, which is not known: for checks of the axioms."""

    def _dual(self, G: Tensor) -> Tensor:
        return self._norm(G)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), alpha=exponents, beta=exponents, shape=st.sampled_from([(3, 3), (2, 5), (6, 4)]))
def test_bounds_enclose_what_vectors_reach(seed: int, alpha: float, beta: float, shape: tuple[int, int]) -> None:
    """No vector of 4000 reaches the upper bound, and the lower bound is reached by none of them."""
    W = normal(seed, *shape) * normal(seed + 1, *shape).exp()
    lower, upper = Induced(alpha, beta).bounds(W)
    X = torch.cat([normal(seed + 2, 2000, shape[1]), normal(seed + 3, 2000, shape[1]).sign()])
    ratio = torch.linalg.vector_norm(X @ W.mT, beta, dim=-1) / torch.linalg.vector_norm(X, alpha, dim=-1)
    assert float(ratio.max()) <= float(upper)
    assert float(ratio.max()) <= float(lower) * 1.001  # the power iteration did no worse than chance
    assert float(lower) <= float(upper) < 2 * float(lower)


@pytest.mark.parametrize(("alpha", "beta"), [(INF, 1.0), (INF, 2.0), (INF, 1.5), (2.0, 1.0), (3.0, 1.0)])
def test_bounds_enclose_enumerated_values(alpha: float, beta: float) -> None:
    for seed in range(4):
        for W in (normal(seed, 6, 7), normal(seed, 6, 7).sign()):
            value = float(Induced(alpha, beta).norm(W))
            assert induced_bounds.lower(W, alpha, beta) <= value <= induced_bounds.upper(W, alpha, beta)


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 1.0), (INF, 1.0), (3.0, 2.0), (1.5, 1.5), (4.0, 1.2), (INF, 3.0)])
def test_nonnegative_matrices_and_rank_one_are_known(alpha: float, beta: float) -> None:
    """The bounds meet: for |W| where α ≥ β (there (Aᵀ(Av)^{β−1}) ∝ v^{α−1} is the maximum), for uvᵀ always."""
    norm = Induced(alpha, beta)
    for seed in range(2):
        A = normal(seed, 20, 30).abs()
        lower, upper = norm.bounds(A)
        assert float(upper - lower) <= 1e-9 * float(upper)
        near(norm.norm(A), lower, 1e-9)
        u, v = normal(seed, 20), normal(seed + 9, 30)
        dual = INF if alpha == 1 else 1.0 if alpha == INF else alpha / (alpha - 1)
        wanted = torch.linalg.vector_norm(u, beta) * torch.linalg.vector_norm(v, dual)
        near(norm.norm(torch.outer(u, v)), wanted, 1e-9)


def test_each_inequality_holds_alone() -> None:
    """Also those that another undercuts, against enumerated values; and a false one would be seen."""
    bounds = (induced_bounds.rows, induced_bounds.columns, induced_bounds.interpolated, induced_bounds.through_two)
    for alpha, beta in ((INF, 1.0), (INF, 2.0), (2.0, 1.0), (1.5, 1.0)):
        tight = []
        for seed in range(6):
            W = normal(seed, 5, 6)
            value = float(Induced(alpha, beta).norm(W))
            found = [bound(W, alpha, beta) for bound in bounds] + [induced_bounds.entries(W, alpha, beta)]
            assert min(found) >= value * (1 - 1e-14)
            tight.append(min(found) / value)
        assert min(tight) < 1.2  # so that one 1.2 times too small could not pass


def test_sizes_and_batches_of_bounds() -> None:
    norm = Induced(3.0, 2.5)
    W = normal(5, 1, 2, 4, 5)
    lower, upper = norm.bounds(W)
    assert lower.shape == upper.shape == (1, 2)
    for c in (1e30, 1e-30):
        near(norm.bounds(W * c)[0] / c, lower)
        near(norm.bounds(W * c)[1] / c, upper, 1e-6)  # its weights are iterated
    near(norm.bounds(W[0, 1])[0], lower[0, 1])
    zero = norm.bounds(torch.zeros(3, 4))
    assert float(zero[0]) == float(zero[1]) == 0
    assert float(norm.norm(torch.zeros(3, 4))) == 0


def test_what_is_not_known_is_refused_with_the_way_out() -> None:
    G = normal(6, 20, 30)
    with pytest.raises(InputError, match=r"bounds\(W\)"):
        Induced(3.0, 3.0).norm(G)
    for answer in ("dual", "dualize", "steepest"):
        with pytest.raises(InputError, match="no algorithm"):
            getattr(Induced(INF, 1.0), answer)(G)
    with pytest.raises(InputError, match=r"alpha=0\.5"):
        Induced(0.5, 1.0)
    with pytest.raises(InputError, match="beta=0"):
        Induced(2.0, 0.0)


@pytest.mark.parametrize(("exponents", "most"), SAID.items())
def test_bounds_are_as_tight_as_said(exponents: tuple[float, float], most: float) -> None:
    """On normal 20 × 30 matrices, the median of three."""
    pairs = [Induced(*exponents).bounds(normal(seed, 20, 30)) for seed in range(3)]
    assert sorted(float(upper / lower) for lower, upper in pairs)[1] < most
