"""Momenta beside torch.optim.SGD's, and shares beside the definition."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor

from icm.norms import Frobenius, Spectral
from icm.optim.descent import named, norm_at, renewed, shares
from icm.optim.tuned import Tuned
from tests.optim.steps import drifting, normal, parameter


@pytest.mark.parametrize("nesterov", [False, True])
def test_momenta_are_sgds_times_what_is_not_kept(nesterov: bool) -> None:
    p, q = parameter(1, 3, 4), parameter(1, 3, 4)
    sgd = torch.optim.SGD([q], 1.0, momentum=0.8, nesterov=nesterov)
    states: dict[Tensor, Any] = defaultdict(dict)
    for gradient in drifting(2, 5, 3, 4):
        p.grad, q.grad = gradient.clone(), gradient.clone()
        before = q.detach().clone()
        sgd.step()
        (found,) = renewed([p], [states[p]], {"momentum": 0.8, "nesterov": nesterov})
        assert torch.allclose(found, 0.2 * (before - q.detach()), rtol=1e-12, atol=1e-14)


def test_without_momentum_nothing_is_kept() -> None:
    p = parameter(1, 3, 4)
    p.grad = normal(2, 3, 4)
    kept: dict[str, Any] = {}
    (found,) = renewed([p], [kept], {"momentum": 0.0, "nesterov": True})
    assert torch.equal(found, p.grad)
    assert not kept


def test_shares_maximise_over_the_unit_ball_of_their_own_norm() -> None:
    d = torch.tensor([3.0, 1.0, 2.0, 0.0], dtype=torch.float64)
    for combine, p in (("max", torch.inf), ("sum", 1), ("rss", 2)):
        dual, u = shares(d, torch.ones_like(d), combine)  # pyright: ignore[reportArgumentType]
        assert float(torch.linalg.vector_norm(u, p)) == pytest.approx(1.0)
        assert float(u @ d) == pytest.approx(float(dual))
        others = normal(1, 500, 4).abs()
        others = others / torch.linalg.vector_norm(others, p, dim=-1, keepdim=True)
        assert float((others @ d).max()) <= float(dual) + 1e-12


def test_equal_duals_share_a_step_by_the_squares_of_their_lengths() -> None:
    """The point of the segment between the two that is nearest to 0: u ∝ 1/‖T‖²."""
    d, lengths = torch.tensor([2.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 0.1])
    dual, u = shares(d, lengths, "sum")
    assert float(dual) == 2.0
    assert u.tolist() == pytest.approx([0.8, 0.2, 0.0])


def test_where_all_is_0_no_share_is_nan() -> None:
    d = torch.zeros(3)
    for combine in ("max", "sum", "rss"):
        dual, u = shares(d, d, combine)
        assert float(dual) == 0.0
        assert torch.isfinite(u).all()


def test_a_norm_is_one_or_its_text_or_what_a_function_of_the_step_gives() -> None:
    assert norm_at(Spectral(), 0) == norm_at("spectral", 7) == Spectral()
    assert norm_at(lambda step: "spectral" if step else Frobenius(), 0) == Frobenius()
    assert norm_at(Tuned(), 0) == Tuned()


def test_parameters_without_names_are_counted_across_groups() -> None:
    a, b, c = (parameter(i, 2, 2) for i in range(3))
    found = named([{"params": [a]}, {"params": [b], "param_names": ["w"]}, {"params": [c]}])
    assert [name for name, _ in found] == ["parameter 0", "w", "parameter 2"]
