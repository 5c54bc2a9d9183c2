"""ICM against torch.optim.Muon with an exact polar factor, closed forms of the model, and its own promises."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor, nn

import icm
from icm.optim import ICM
from icm.optim.scaling import Scaling
from tests.optim.steps import drifting, far, moved, normal, parameter, polar, spectrum_of, take, zeros

SHAPES = [(12, 20), (20, 12), (16, 16)]
BARE: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}


def exactly(grad: Tensor, ns_coefficients: Any, ns_steps: int, eps: float) -> Tensor:
    """In the place of torch's Newton–Schulz."""
    return polar(grad)


def trajectory(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: int) -> Tensor:
    flows = [drifting(10 * i, steps, *p.shape) for i, p in enumerate(params)]
    places = []
    for gradients in zip(*flows, strict=True):
        take(optimizer, params, gradients)
        places.append(torch.cat([p.detach().flatten() for p in params]))
    return torch.stack(places)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("scaling", "adjust"), [("original", "original"), ("match-rms-adamw", "match_rms_adamw")])
def test_a_wall_is_muon(monkeypatch: pytest.MonkeyPatch, scaling: Scaling, adjust: str, nesterov: bool) -> None:
    """Fifty steps of torch.optim.Muon in float64, its Newton–Schulz replaced by an SVD."""
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", exactly)
    options: dict[str, Any] = {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.3}
    mine, theirs = ([parameter(i, *shape) for i, shape in enumerate(SHAPES)] for _ in range(2))
    found = trajectory(ICM(mine, curvature=icm.Wall(1.0), scaling=scaling, backend="exact", **options), mine, 50)
    wanted = trajectory(torch.optim.Muon(theirs, adjust_lr_fn=adjust, **options), theirs, 50)
    assert float((found - wanted).abs().max()) < 1e-10


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scaling", ["spectral", "none"])
def test_a_wall_is_muon_at_lengths_that_torch_does_not_know(scaling: Scaling, nesterov: bool) -> None:
    lr, momentum, decay, radius = 0.02, 0.9, 0.3, 2.5
    for shape in SHAPES:
        p = parameter(1, *shape)
        W, B = p.detach().clone(), torch.zeros(shape, dtype=torch.float64)
        length = radius if scaling == "none" else math.sqrt(shape[0] / shape[1])
        optimizer = ICM([p], lr, icm.Wall(radius), momentum, nesterov, decay, scaling=scaling, backend="exact")
        for gradient in drifting(2, 50, *shape):
            take(optimizer, [p], [gradient])
            B = momentum * B + (1 - momentum) * gradient
            G = momentum * B + (1 - momentum) * gradient if nesterov else B
            W = (1 - lr * decay) * W - lr * length * polar(G)
            assert float((p.detach() - W).abs().max()) < 1e-10


@pytest.mark.parametrize("products", [12, 15])
def test_products_stay_as_near_to_the_wall_as_newton_schulz(monkeypatch: pytest.MonkeyPatch, products: int) -> None:
    """After 30 steps, against the exact trajectory, torch.optim.Muon's own five quintics in bfloat16 are farther."""
    for shape in [(48, 96), (96, 48), (64, 64)]:
        options: dict[str, Any] = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.0}
        ours, muons, exacts = ([parameter(3, *shape, dtype=torch.float32)] for _ in range(3))
        found = trajectory(ICM(ours, scaling="original", products=products, **options), ours, 30)
        theirs = trajectory(torch.optim.Muon(muons, **options), muons, 30)
        with monkeypatch.context() as patch:
            patch.setattr("torch.optim._muon._zeropower_via_newtonschulz", exactly)
            wanted = trajectory(torch.optim.Muon(exacts, **options), exacts, 30)
        start = parameter(3, *shape, dtype=torch.float32).detach().flatten()
        assert far(found[-1] - start, wanted[-1] - start) <= far(theirs[-1] - start, wanted[-1] - start)


@pytest.mark.parametrize("shape", SHAPES)
def test_quadratic_curvature_gives_the_normalised_gradient(shape: tuple[int, int]) -> None:
    G = normal(4, *shape)
    step = moved(lambda p: ICM(p, curvature="0.7*r^2", scaling="original", backend="exact", **BARE), G)
    length = math.sqrt(max(1, shape[0] / shape[1])) * math.sqrt(min(shape))
    assert far(step, -length * G / G.norm()) < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_quartic_curvature_gives_the_cubic_equation(shape: tuple[int, int]) -> None:
    """H = c r⁴: σ³ + Dσ = n(n+2) g/(8c), D = Σσ²/2; here solved for D by a bracket and Cardano's formula."""
    (m, n), c = shape, 3.0
    k = min(m, n)
    g = torch.logspace(0, -2, k, dtype=torch.float64)
    g = g / g.sum()
    b = n * (n + 2) * g / (8 * c)

    def sigma(D: float) -> Tensor:
        root = (b.square() / 4 + D**3 / 27).sqrt()
        return (b / 2 + root).pow(1 / 3) - D / 3 / (b / 2 + root).pow(1 / 3)

    D: Any = brentq(lambda D: float(sigma(D).square().sum()) / 2 - D, 1e-9, 1e3, xtol=1e-15)
    wanted = -spectrum_of(5, m, n, sigma(float(D)))
    G = spectrum_of(5, m, n, 7.0 * g)  # relative units make Σ g = 1 of it
    step = moved(lambda p: ICM(p, curvature=f"{c}*r^4", scaling="none", backend="exact", **BARE), G)
    assert far(step, wanted) < 1e-10


@pytest.mark.parametrize("H", ["0.1*r^2 + 5*kink(1)", "r^3", "r^2 + wall(0.5)", "exp(1)"])
def test_in_units_of_the_loss_the_step_is_lr_times_the_solution(H: str) -> None:
    for shape in SHAPES:
        G = 0.3 * normal(6, *shape)
        step = moved(lambda p: ICM(p, curvature=H, scaling="none", units="loss", backend="exact", **BARE), G)
        assert far(step, -1.0 * icm.solve(G, icm.parse(H)).Q) < 1e-7


@pytest.mark.parametrize("backend", ["exact", "products"])
@pytest.mark.parametrize("H", ["wall(1)", "0.1*r^2 + 5*kink(1)", "r^4"])
@pytest.mark.parametrize("size", [1e20, 1e-20])
def test_relative_units_do_not_see_the_size_of_the_gradient(backend: str, H: str, size: float) -> None:
    """float32; with 2^±66 for 1e±20, no gradient is rounded differently."""
    if backend == "exact" and "kink" in H:
        H = "r^2 + wall(0.05)"  # as much of a bend, in a tenth of the time
    size = 2.0 ** round(math.log2(size))
    start, ends = parameter(7, 24, 16, dtype=torch.float32).detach(), []
    for factor in (1.0, size):
        p = nn.Parameter(start.clone())
        optimizer = ICM([p], 0.1, H, backend=backend, precision="fp32")
        for gradient in drifting(8, 12, 24, 16, dtype=torch.float32):
            take(optimizer, [p], [factor * gradient])
        ends.append(p.detach() - start)
    assert far(ends[1], ends[0]) < (1e-5 if backend == "products" else 1e-6)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1), (1, 9), (9, 1), (2, 3), (8, 8), (24, 10), (10, 24)]),
    H=st.sampled_from(["wall(1)", "wall(2) + r^2", "r^2", "0.1*r^2 + 5*kink(1)", "r^3.5", "exp(2)"]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    backend=st.sampled_from(["exact", "products"]),
    scaling=st.sampled_from(["match-rms-adamw", "spectral", "original"]),
)
def test_a_step_is_as_long_as_promised_and_downhill(
    seed: int, shape: tuple[int, int], H: str, dtype: torch.dtype, backend: str, scaling: Any
) -> None:
    """lr · s √k, from W = 0, up to the rounding of W's own number type; ⟨ΔW, G⟩ < 0."""
    m, n = shape
    eighth: dict[str, Any] = BARE | {"lr": 0.125}
    G = normal(seed, m, n).to(dtype)
    step = moved(lambda p: ICM(p, curvature=H, scaling=scaling, backend=backend, **eighth), G)
    s = {"match-rms-adamw": 0.2 * max(m, n) ** 0.5, "spectral": (m / n) ** 0.5, "original": max(1, m / n) ** 0.5}
    wanted = 0.125 * s[scaling] * min(m, n) ** 0.5
    assert abs(float(step.norm()) / wanted - 1) < max(1e-6, torch.finfo(dtype).eps)
    assert float((step * G).sum()) < 0


def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned() -> None:
    p = parameter(9, 6, 4)
    optimizer = ICM([p], 0.1)
    calls = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        calls.append(float(loss))
        return loss

    losses = [float(optimizer.step(closure)) for _ in range(3)]
    assert losses == calls
    assert losses[2] < losses[1] < losses[0]


def test_groups_have_curvatures_of_their_own() -> None:
    """Each as if it were alone; H as an object, as text, and as a function of the step."""
    choices: list[Any] = [icm.Wall(1.0), "0.5*r^2", lambda step: "r^4" if step < 2 else icm.Wall(1.0)]
    together = [parameter(i, 10, 6) for i in range(3)]
    optimizer = ICM([{"params": [p], "curvature": H} for p, H in zip(together, choices, strict=True)], 0.1)
    alone = [parameter(i, 10, 6) for i in range(3)]
    single = [ICM([p], 0.1, H) for p, H in zip(alone, choices, strict=True)]
    for t in range(5):
        gradients = [normal(10 * t + i, 10, 6) for i in range(3)]
        take(optimizer, together, gradients)
        for one, p, gradient in zip(single, alone, gradients, strict=True):
            take(one, [p], [gradient])
    for p, q in zip(together, alone, strict=True):
        assert torch.equal(p, q)


def test_a_function_of_the_step_is_asked_from_0_on() -> None:
    asked: list[int] = []

    def H(step: int) -> str:
        asked.append(step)
        return "wall(1)" if step < 2 else "r^2"

    p = zeros(5, 5)
    optimizer = ICM([p], curvature=H, backend="exact", **BARE)
    asked.clear()
    for _ in range(3):
        before, G = p.detach().clone(), normal(len(asked), 5, 5)
        take(optimizer, [p], [G])
        direction = polar(G) if len(asked) <= 2 else G
        assert far((p.detach() - before) / (p.detach() - before).norm(), -direction / direction.norm()) < 1e-10
    assert asked == [0, 1, 2]


def test_printing_shows_what_each_parameter_gets_with_settings_and_errors() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 32), nn.Linear(32, 4))
    optimizer = ICM.for_model(model, 1e-2, curvature="0.1*r^2 + 5*kink(1)", adamw_lr=3e-4)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    model(normal(1, 8, 16, dtype=torch.float32))
    optimizer.step()
    text = str(optimizer)
    sorting = ("matrices", "32×32", "32×16", "norms", "heads", "0.01", "0.0003")
    settings = ("5*kink(1)", "units=relative", "backend=products", "refresh=10", "AdamW, betas=(0.9, 0.95)")
    for part in (*sorting, *settings, "InputMoments", "their roots"):
        assert part in text
    name, worst = max(optimizer.errors().items(), key=lambda pair: pair[1])
    assert f"error at the last refresh: at most {worst:.1e} ({name})" in text
    assert set(optimizer.errors()) == {"0.weight", "2.weight"}
    assert max(map(len, text.splitlines())) <= 120


COMPILED = """
import torch
from icm.optim import ICM
from tests.optim.steps import far, normal, parameter
ends = []
for compiled in (False, True):
    params = [parameter(i, 32, 16, dtype=torch.float32) for i in range(2)]
    optimizer = ICM(params, 0.1, precision="fp32")
    step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
    for t in range(5):
        for i, p in enumerate(params):
            p.grad = normal(10 * t + i, 32, 16, dtype=torch.float32)
        step()
    ends.append(torch.cat([p.detach().flatten() for p in params]))
print(far(ends[1], ends[0]))
"""


def test_torch_compile_takes_the_same_steps() -> None:
    """A wall by products, traced in a process of its own, without the shape checks that tracing cannot pass."""
    run = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 1e-5  # float32 products; quintics multiply rounding by up to 100
