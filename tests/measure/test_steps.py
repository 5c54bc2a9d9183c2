"""Steps solved with a measured H: what they promise and give, where the loss beyond the layer is known exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.measure import Step, curvature, steps

M, N, SCALE = 3, 4, 0.7


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Bowl(nn.Module):
    """y = W u, and per token ⟨g, y⟩ + c ‖y − y₀‖², y₀ what W u was at first: H(r) = c r² exactly."""

    before: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(N, M, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(normal(0, M, N))
        self.register_buffer("before", self.layer.weight.detach().clone())

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(u), u @ self.before.T


def loss(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    u, g = batch
    y, y0 = model(u)
    return (g * y).sum(-1) + SCALE * (y - y0).square().sum(-1)


def data(seed: int, batches: int = 2) -> list[tuple[Tensor, Tensor]]:
    """Inputs of unequal directions, and gradients that depend on them."""
    mix, cause = normal(1, N, N), normal(2, M, N)
    inputs = [normal(seed + i, 4, 10, N) @ mix for i in range(batches)]
    return [(u, 0.5 * u @ cause.T + 0.1 * normal(seed + 50 + i, 4, 10, M)) for i, u in enumerate(inputs)]


def by_hand(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """G and C of the mean loss per token."""
    u, g = (torch.cat([pair[i].flatten(0, 1) for pair in batches]) for i in (0, 1))
    return g.T @ u / len(u), u.T @ u / len(u)


def tried(held_out: bool = False, kind: Any = "power") -> dict[str, Step]:
    model = Bowl()
    measured = curvature(model, loss, data(10), "layer", [0.5, 1.0, 2.0, 40.0], directions=4, progress=False)
    found = steps(model, loss, data(10), measured, kind, held_out=data(30) if held_out else None)
    assert list(found) == ["layer"]
    return {step.name: step for step in found["layer"]}


def test_every_update_is_tried() -> None:
    assert list(tried()) == ["solved", "solved, input moments", "gradient", "polar"]


def test_with_input_moments_a_quadratic_keeps_its_promise() -> None:
    """E H(‖Qu‖) = c Tr(Q C Qᵀ) holds for the data themselves: the optimum G C⁻¹/(2c) is worth Tr(G C⁻¹ Gᵀ)/(4c)."""
    G, C = by_hand(data(10))
    step = tried()["solved, input moments"]
    worth = float(torch.trace(G @ torch.linalg.solve(C, G.T))) / (4 * SCALE)
    assert step.obtained == pytest.approx(worth, rel=1e-3)  # the ridge
    assert step.predicted == pytest.approx(worth, rel=2e-3)
    assert step.best_factor == pytest.approx(1, abs=0.3)
    assert step.best <= worth * (1 + 1e-9)


def test_the_gradient_is_taken_at_the_length_that_isotropic_inputs_would_like() -> None:
    """t = ⟨G, G⟩/(2 c s² ‖G‖²/n) with s² = Tr C, and the network gives t‖G‖² − c t² Tr(G C Gᵀ)."""
    G, C = by_hand(data(10))
    step = tried()["gradient"]
    t = N / (2 * SCALE * float(C.trace()))
    given = t * float(G.square().sum()) - SCALE * t**2 * float(torch.trace(G @ C @ G.T))
    assert step.length == pytest.approx(t * float(G.norm()), rel=1e-6)
    assert step.linear == pytest.approx(t * float(G.square().sum()), rel=1e-6)
    assert step.predicted == pytest.approx(step.linear / 2, rel=1e-6)
    assert step.obtained == pytest.approx(given, rel=1e-9)
    assert step.cosine_gradient == pytest.approx(1)


def test_under_a_quadratic_the_solved_update_is_the_gradients() -> None:
    found = tried()
    assert found["solved"].cosine_gradient == pytest.approx(1, abs=1e-9)
    assert found["solved"].obtained == pytest.approx(found["gradient"].obtained, rel=1e-5)


def test_the_polar_factor_is_compared_too() -> None:
    G, _ = by_hand(data(10))
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    step = tried()["polar"]
    assert step.cosine_polar == pytest.approx(1)
    assert step.cosine_gradient == pytest.approx(float((G * (U @ Vh)).sum() / G.norm() / math.sqrt(M)))


def test_held_out_data_decide_what_is_obtained() -> None:
    G, C = by_hand(data(10))
    other, D = by_hand(data(30))
    step = tried(held_out=True)["gradient"]
    t = N / (2 * SCALE * float(C.trace()))
    given = t * float((G * other).sum()) - SCALE * t**2 * float(torch.trace(G @ D @ G.T))
    assert step.obtained == pytest.approx(given, rel=1e-9)


def test_no_step_goes_beyond_what_was_measured() -> None:
    model = Bowl()
    radii = [0.01, 0.02]
    measured = curvature(model, loss, data(10), "layer", radii, directions=4, progress=False)
    found = steps(model, loss, data(10), measured, "tabulated")["layer"]
    C = by_hand(data(10))[1]
    for step in found:
        if step.name in ("solved", "polar", "gradient"):
            assert step.linear > 0
            assert step.length / math.sqrt(min(M, N)) * math.sqrt(float(C.trace())) <= radii[-1] * (1 + 1e-9)


def test_the_model_stays_as_it_is() -> None:
    model = Bowl()
    kept = {name: x.clone() for name, x in model.state_dict().items()}
    measured = curvature(model, loss, data(10), "layer", [0.5, 1.0], directions=2, progress=False)
    steps(model, loss, data(10), measured, "power")
    assert all(torch.equal(x, kept[name]) for name, x in model.state_dict().items())
    assert not model.layer._forward_hooks
    assert all(p.grad is None for p in model.parameters())


def test_measurements_of_another_model_are_refused() -> None:
    model = Bowl()
    measured = curvature(model, loss, data(10), "layer", [0.5, 1.0], directions=2, progress=False)
    other = nn.Sequential(nn.Linear(5, 5))
    with pytest.raises(InputError, match="layer"):
        steps(other, loss, data(10), measured)
    with pytest.raises(InputError, match="measurements is empty"):
        steps(model, loss, data(10), {})
    with pytest.raises(InputError, match="holds no batch"):
        steps(model, loss, [], measured)


def test_progress_is_told() -> None:
    model = Bowl()
    measured = curvature(model, loss, data(10), "layer", [0.5, 1.0], directions=2, progress=False)
    heard: list[Any] = []
    steps(model, loss, data(10), measured, "power", progress=lambda *x: heard.append(x))
    assert heard == [(0, 1, "steps of layer")]
