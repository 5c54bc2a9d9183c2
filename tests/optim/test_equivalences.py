"""SteepestDescent beside optimizers written by others, each training the small language model in float64 by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.maps import apply, known
from icm.norms import Spectral
from icm.optim import SteepestDescent
from tests.optim.closed_loop import apart, trained
from tests.optim.steps import polar

PLAIN: dict[str, Any] = {"momentum": 0.0, "nesterov": False}


def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.optim.Muon's own lines, without their rounding to bfloat16."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.double().clone())


def exactly(G: Tensor, *args: Any, **options: Any) -> Tensor:
    """In the place of a Newton–Schulz."""
    return polar(G)


def matrices(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if p.ndim == 2 and "blocks" in name]


def others(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if p.ndim != 2 or "blocks" not in name]


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_the_frobenius_norm_of_all_tensors_makes_sgd(momentum: float, nesterov: bool) -> None:
    def ours(model: nn.Module) -> Any:
        options: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "length": "dual", "combine": "rss"}
        return SteepestDescent(model.parameters(), 0.3 / (1 - momentum), "frobenius", **options)

    def sgd(model: nn.Module) -> Any:
        return torch.optim.SGD(model.parameters(), 0.3, momentum=momentum, nesterov=nesterov)

    assert apart(trained(ours), trained(sgd)) < 1e-10


def test_the_max_entry_norm_is_adam_without_averages() -> None:
    ours = trained(lambda model: SteepestDescent(model.parameters(), 1e-3, "max-entry", **PLAIN))
    adam = trained(lambda model: torch.optim.Adam(model.parameters(), 1e-3, betas=(0.0, 0.0), eps=1e-300))
    assert apart(ours, adam) < 1e-10


def test_adams_eps_shortens_the_steps_of_small_gradients() -> None:
    """g/(|g| + eps) in place of sign(g): by the share eps/(|g| + eps) of lr, seen in the very first step."""
    found: dict[str, Tensor] = {}

    def gradients(model: nn.Module, made: Any) -> None:
        found["g"] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    ours = trained(lambda model: SteepestDescent(model.parameters(), 1e-3, "max-entry", **PLAIN), 1, after=gradients)
    adam = trained(lambda model: torch.optim.Adam(model.parameters(), 1e-3, betas=(0.0, 0.0), eps=1e-8), 1)
    g = found["g"]
    wanted = 1e-3 * (1e-8 / (g.abs() + 1e-8)).where(g != 0, 0.0)
    assert float((wanted - (ours - adam)[0].abs()).abs().max()) < 1e-12
    assert float(wanted.max()) > 1e-7


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_the_spectral_norm_is_muon_with_a_polar_factor(
    monkeypatch: pytest.MonkeyPatch, adjust: str, nesterov: bool
) -> None:
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", exactly)
    assert apart(*beside_muon("spectral", adjust, nesterov)) < 1e-10


class Quintics(Spectral):
    """UVᵀ as torch.optim.Muon takes it, by five quintics from ‖G‖_F on."""

    def _dualize(self, G: Tensor) -> Tensor:
        return apply(known("newton-schulz"), G, None, "fp64")


def test_with_muons_polynomial_the_spectral_norm_is_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    in_float64(monkeypatch)
    assert apart(*beside_muon(Quintics(), "original", True)) < 1e-10


def test_muons_polynomial_is_a_fifth_away_from_the_polar_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """‖difference‖_F of the first step over the length of the exact one."""
    in_float64(monkeypatch)
    ours, muon = beside_muon("spectral", "original", True, steps=1, decay=0.0, rest=0.0)
    start = trained(lambda model: torch.optim.SGD(model.parameters(), 0.0), 1)
    assert 0.15 < float((ours - muon).norm() / (ours - start).norm()) < 0.35


def beside_muon(
    norm: Any, adjust: str, nesterov: bool, steps: int = 50, decay: float = 0.2, rest: float = 0.1
) -> tuple[Tensor, Tensor]:
    options: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "nesterov": nesterov, "weight_decay": decay}

    def scale(p: Tensor) -> float:
        m, n = p.shape
        return math.sqrt(max(1, m / n)) if adjust == "original" else 0.2 * math.sqrt(max(m, n))

    def ours(model: nn.Module) -> Any:
        groups = [{"params": [p], "weight": 1 / scale(p)} for p in matrices(model)]
        return SteepestDescent(groups, norm=norm, **options), torch.optim.SGD(others(model), rest)

    def muon(model: nn.Module) -> Any:
        return torch.optim.Muon(matrices(model), adjust_lr_fn=adjust, **options), torch.optim.SGD(others(model), rest)

    return trained(ours, steps), trained(muon, steps)


@pytest.mark.parametrize("constrained", [False, True])
def test_scion_is_rms_to_rms_with_a_max_entry_head(monkeypatch: pytest.MonkeyPatch, constrained: bool) -> None:
    """Its polar factor exact in place of five quintics in bfloat16."""
    peer = pytest.importorskip("pytorch_optimizer")
    monkeypatch.setattr("pytorch_optimizer.optimizer.scion.zero_power_via_newton_schulz_5", exactly)
    radius, head = 3.0, 20.0
    mode: Any = "constrained" if constrained else "unconstrained"

    def ours(model: nn.Module) -> Any:
        head_of_16: dict[str, Any] = {"norm": "max-entry", "weight": 16.0 * radius / head}
        if not constrained:
            head_of_16["weight"] = 16.0 / head
        groups = [
            {"params": matrices(model), "norm": "rms-to-rms", "weight": 1.0 if constrained else 1 / radius},
            {"params": [p for p in others(model) if p.ndim == 2], **head_of_16},
        ]
        gains = torch.optim.SGD([p for p in others(model) if p.ndim == 1], 0.1)
        return SteepestDescent(groups, 0.01, momentum=0.9, nesterov=False, mode=mode, radius=radius), gains

    def scion(model: nn.Module) -> Any:
        groups = [
            {"params": matrices(model), "norm_type": 2, "scale": radius},
            {"params": [p for p in others(model) if p.ndim == 2], "norm_type": 4, "scale": head},
        ]
        gains = torch.optim.SGD([p for p in others(model) if p.ndim == 1], 0.1)
        return peer.SCION(groups, lr=0.01, momentum=0.1, constraint=constrained), gains

    assert apart(trained(ours), trained(scion)) < 1e-10


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    """The peer's sums are tensors of the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("float64_by_default")
def test_prodigy_without_averages_is_sign_descent_with_an_escalator() -> None:
    peer = pytest.importorskip("pytorch_optimizer")
    etas: dict[str, list[float]] = {"ours": [], "theirs": []}
    ours = trained(
        lambda model: SteepestDescent(model.parameters(), 1.0, "max-entry", escalator=1e-6, **PLAIN),
        after=lambda _, made: etas["ours"].append(float(made.eta)),
    )
    theirs = trained(
        lambda model: peer.Prodigy(model.parameters(), betas=(0.0, 0.0), eps=1e-300),
        after=lambda _, made: etas["theirs"].append(made.param_groups[0]["d"]),
    )
    assert apart(ours, theirs) < 1e-10
    assert etas["ours"] == pytest.approx(etas["theirs"], rel=1e-9)
    assert etas["ours"][-1] > 100 * etas["ours"][0]
