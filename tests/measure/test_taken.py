"""Steps solved with a measured H: what they promise and give, where the loss beyond the layer is known exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.measure import Step, curvature, steps
from icm.measure.displacement import Network
from icm.measure.memory import peak

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


def scaled(factor: float, radii: list[float], model: nn.Module | None = None, **options: Any) -> Any:
    """Steps by an H measured with a loss whose curvature is `factor` times that of the one they are tried on."""

    def steep(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        u, g = batch
        y, y0 = model(u)
        return (g * y).sum(-1) + factor * SCALE * (y - y0).square().sum(-1)

    model = model or Bowl()
    measured = curvature(model, steep, data(10), "layer", radii, directions=4, progress=False)
    return steps(model, loss, data(10), measured, "power", **options)


def test_the_best_length_is_found_however_far_it_is() -> None:
    """Along Q a quadratic gives t⟨G, Q⟩ − c t² Tr(Q C Qᵀ), at most ⟨G, Q⟩²/(4 c Tr(Q C Qᵀ))."""
    G, C = by_hand(data(10))
    t = N / (2 * SCALE * float(C.trace()))
    bend = SCALE * float(torch.trace(G @ C @ G.T))
    factor = float(G.square().sum()) / (2 * bend * t)  # of the length that isotropic inputs like
    for steeper in (1.0, 1e5):
        step = {step.name: step for step in scaled(steeper, [1e-3, 1e3])["layer"]}["gradient"]
        assert step.best_factor == pytest.approx(factor * steeper, rel=0.2)
        assert step.best == pytest.approx(float(G.square().sum()) ** 2 / (4 * bend), rel=0.02)
        assert not step.at_bound


def test_a_best_length_beyond_all_that_are_tried_is_said_to_be_so() -> None:
    for step in scaled(1e9, [1e-6, 1.0])["layer"]:
        assert step.best_factor == 2**20
        assert step.at_bound


def test_steps_at_the_wall_are_told_apart() -> None:
    free = {step.name: step.at_wall for step in scaled(1.0, [0.5, 40.0])["layer"]}
    held = {step.name: step.at_wall for step in scaled(1.0, [0.01, 0.02])["layer"]}
    assert free == dict.fromkeys(held, False)
    assert held == dict.fromkeys(held, True)


def test_a_layer_without_a_gradient_is_skipped_with_the_reason() -> None:
    def flat(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        return loss(model, (batch[0], 0 * batch[1]))

    model = Bowl()
    measured = curvature(model, loss, data(10), "layer", [0.5, 1.0], directions=2, progress=False)
    found = steps(model, flat, data(10), measured, "power")
    assert found == {}
    assert list(found.skipped) == ["layer"]
    assert "layer: its gradient is 0 on these data" in found.skipped["layer"]


def test_a_layer_of_which_no_curvature_can_be_made_is_skipped_with_the_reason() -> None:
    model = Bowl()
    measured = curvature(model, loss, data(10), "layer", [0.5, 1.0], directions=2, progress=False)
    found = steps(model, loss, data(10), measured, "quadratic+power")
    assert found == {}
    assert found.skipped["layer"].startswith("layer: a curvature of kind 'quadratic+power' takes 3 radii")


def test_no_multiple_of_a_step_that_only_harms_is_best() -> None:
    model = Bowl()
    measured = curvature(model, loss, data(10), "layer", [0.5, 1.0], directions=2, progress=False)
    against = [(u, -g) for u, g in data(10)]
    for step in steps(model, loss, data(10), measured, "power", held_out=against)["layer"]:
        assert step.obtained < 0
        assert (step.best, step.best_factor, step.at_bound) == (0, 0, False)


def test_a_loss_that_ends_is_the_worst() -> None:
    """√(1 − ‖y − y₀‖²/9) is a number up to a displacement of 3."""

    def ends(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        y, y0 = model(batch[0])
        return 5 * (batch[1] * (y - y0)).sum(-1) - (1 - (y - y0).square().sum(-1) / 9).sqrt()

    model = Bowl()
    measured = curvature(model, ends, data(10), "layer", [0.01, 2.9], directions=2, progress=False)
    found = {step.name: step for step in steps(model, ends, data(10), measured, "power")["layer"]}
    assert found["polar"].obtained == -math.inf
    assert 0 < found["polar"].best < math.inf


def test_double_precision_is_that_of_the_steps_too() -> None:
    """A float32 network in float64 gives what the same numbers in a float64 one give; in float32 it rounds."""
    batches = [(u.float().double(), g.float().double()) for u, g in data(10)]
    narrow, wide = Bowl().float(), Bowl().float().double()
    measured = curvature(wide, loss, batches, "layer", [0.5, 1.0, 40.0], directions=4, progress=False)
    want = steps(wide, loss, batches, measured, "power")["layer"]
    low = [(u.float(), g.float()) for u, g in batches]
    found = steps(narrow, loss, low, measured, "power", dtype="float64")["layer"]
    rounded = steps(narrow, loss, low, measured, "power")["layer"]
    for x, y, z in zip(found, want, rounded, strict=True):
        assert x.obtained == pytest.approx(y.obtained, rel=1e-12)
        assert x.best == pytest.approx(y.best, rel=1e-12)
        assert z.obtained != pytest.approx(y.obtained, rel=1e-12)
    assert next(narrow.parameters()).dtype == torch.float32


def test_memory_decides_how_many_pass_at_once_and_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes: list[int] = []
    passes = Network.remainders

    def counted(self: Network, layer: Any, batch: Any, base: Any, delta: Tensor, where: Any = None) -> Any:
        held = []
        lanes.append(len(delta))
        held.append(peak(lambda: held.append(passes(self, layer, batch, base, delta, where))))
        assert held[-1] <= limit
        return held[0]

    monkeypatch.setattr(Network, "remainders", counted)
    found = []
    for limit in (2**14, 2**26):
        lanes.clear()
        found.append(scaled(1.0, [0.5, 40.0], memory=limit)["layer"])
        found.append(max(lanes))
    assert found[1] < found[3] == 21
    for few, many in zip(found[0], found[2], strict=True):
        assert few.obtained == pytest.approx(many.obtained, rel=1e-12)
        assert few.best == pytest.approx(many.best, rel=1e-12)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"memory=100 .* raise it, or give smaller batches"):
        scaled(1.0, [0.5, 40.0], Bowl(), memory=100)


def test_positions_without_a_loss_are_not_counted() -> None:
    """An example whose labels are all ignored, all terms 0, changes no figure."""

    def weighted(model: Any, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return loss(model, batch[:2]) * batch[2][:, None]

    model = Bowl()
    measured = curvature(model, loss, data(10), "layer", [0.5, 1.0, 40.0], directions=4, progress=False)
    plain = [(u, g, torch.ones(len(u)).double()) for u, g in data(10)]
    more = [(torch.cat([u, u[:2]]), torch.cat([g, g[:2]]), torch.cat([w, 0 * w[:2]])) for u, g, w in plain]
    want, found = (steps(model, weighted, x, measured, "power")["layer"] for x in (plain, more))
    for x, y in zip(found, want, strict=True):
        assert (x.predicted, x.obtained) == pytest.approx((y.predicted, y.obtained), rel=1e-9)


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
    with pytest.raises(InputError, match="kind='cubic' is unknown"):
        steps(model, loss, data(10), measured, "cubic")
    with pytest.raises(InputError, match="dtype='float8'"):
        steps(model, loss, data(10), measured, dtype="float8")
    with pytest.raises(InputError, match="memory='much' is no amount"):
        steps(model, loss, data(10), measured, memory="much")
    with pytest.raises(InputError, match="data is one Tensor"):
        steps(model, loss, data(10), measured, held_out=torch.zeros(3))


def test_progress_is_told() -> None:
    model = Bowl()
    measured = curvature(model, loss, data(10), "layer", [0.5, 1.0], directions=2, progress=False)
    heard: list[Any] = []
    steps(model, loss, data(10), measured, "power", progress=lambda *x: heard.append(x))
    assert heard == [(0, 1, "steps of layer"), (1, 1, "steps of layer")]
