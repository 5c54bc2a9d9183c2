"""The escalator on convex losses, in norms of which Prodigy knows nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from icm.errors import InputError
from icm.norms.names import parse
from icm.optim import Escalator, SteepestDescent
from tests.optim.steps import normal, take, zeros


@pytest.mark.parametrize("norm", ["spectral", "max-entry", "frobenius", "nuclear", "column(2)"])
def test_it_grows_from_nothing_to_at_most_the_distance_to_the_minimiser(norm: str) -> None:
    """On ‖W − A‖_F, whose gradient knows the way but not how far."""
    p, A = zeros(6, 4), normal(3, 6, 4)
    optimizer = SteepestDescent([p], 1.0, norm, momentum=0.0, escalator=1e-6)
    etas, away = [1e-6], []
    for _ in range(300):
        gradient = (p.detach() - A) / (p.detach() - A).norm()
        away.append(float((p.detach() - A).norm()))
        take(optimizer, [p], [gradient])
        assert optimizer.eta is not None
        etas.append(float(optimizer.eta))
    assert etas == sorted(etas)
    assert etas[-1] <= float(parse(norm).norm(A)) * (1 + 1e-12)
    assert etas[-1] > 1e-3 * float(parse(norm).norm(A))
    assert min(away) < 0.8 * away[0]


def test_each_step_uses_the_length_known_before_it() -> None:
    """By hand: η₀ = 1/8, w = −1/8 sign(g₀), η₁ = max(η₀, ⟨g₁, w₀ − w₁⟩/‖g₁‖₁)."""
    p = zeros(1, 2)
    optimizer = SteepestDescent([p], 1.0, "max-entry", momentum=0.0, escalator=Escalator(0.125))
    take(optimizer, [p], [torch.tensor([[4.0, -1.0]])])
    assert p.tolist() == [[-0.125, 0.125]]
    assert optimizer.eta == 0.125
    take(optimizer, [p], [torch.tensor([[9.0, 1.0]])])  # ⟨g, (1/8, −1/8)⟩ = 1, ‖g‖₁ = 10
    assert p.tolist() == [[-0.25, 0.0]]
    assert optimizer.eta == 0.125
    take(optimizer, [p], [torch.tensor([[1.0, 0.0]])])  # 1/4
    assert p.tolist() == [[-0.375, 0.0]]
    assert optimizer.eta == 0.25


def test_without_a_gradient_it_stays() -> None:
    p = zeros(2, 2)
    optimizer = SteepestDescent([p], 1.0, "spectral", momentum=0.0, escalator=0.5)
    take(optimizer, [p], [torch.zeros(2, 2)])
    assert optimizer.eta == 0.5


@pytest.mark.parametrize("start", [0.0, -1.0, float("inf"), float("nan")])
def test_a_start_that_is_no_length_is_refused(start: Any) -> None:
    with pytest.raises(InputError, match="start="):
        Escalator(start)
