"""One layer moved: as many steps at once as memory bears, whatever the network does before and behind the layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.measure.displacement import Network
from icm.measure.layers import find_layers
from icm.measure.memory import peak
from icm.measure.trial import Trial, best_lengths


class Wide(nn.Module):
    """Much is held before the layer, once for all steps, and little behind it, for each step anew."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(4, 1024), nn.Tanh(), nn.Linear(1024, 8))
        self.layer = nn.Linear(8, 8)
        self.behind = nn.Linear(8, 128)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(torch.tanh(self.layer(self.before(x))))


def trial(memory: int | str | None) -> Trial:
    def loss(model: Any, batch: Tensor) -> Tensor:
        return model(batch).square().mean(-1)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, data = Wide(), [torch.randn(8, 16, 4)]
    network = Network(model, loss, None, None, False)
    return Trial(network, find_layers(model, "layer")[0], data, data, memory)


def test_memory_is_kept_where_most_is_held_before_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the first two steps cost what one does, and the tenth does not."""
    Q, factors = torch.eye(8, dtype=torch.float64), [0.05 * k for k in range(21)]
    wanted = trial("1GiB").decreases([(Q, factors)])[0]
    limit, held = 3 * 2**19, []
    passes = Network.remainders

    def watched(self: Network, *given: Any) -> Any:
        found = []
        held.append(peak(lambda: found.append(passes(self, *given))))
        return found[0]

    limited = trial(limit)
    limited.decreases([(Q, factors)])  # peaks of more are tried out here
    monkeypatch.setattr(Network, "remainders", watched)
    found = limited.decreases([(Q, factors)])[0]
    assert max(held) <= limit
    assert 1 < len(held) < 21
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_decreases_are_those_of_a_network_whose_weight_is_changed() -> None:
    tried = trial(None)
    Q = torch.linspace(-1, 1, 64, dtype=torch.float64).view(8, 8)
    found = tried.decreases([(Q, [0.5, 2.0])])[0]
    model, weight = tried.network.model, tried.layer.module.get_parameter("weight")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        Wide()
        data = torch.randn(8, 16, 4)
        before = model(data).square().mean(-1).double().sum()
        for c, decrease in zip((0.5, 2.0), found, strict=True):
            weight -= (c * Q).float()
            after = model(data).square().mean(-1).double().sum()
            weight += (c * Q).float()
            assert float(decrease) == pytest.approx(float(before - after) / (8 * 16), rel=1e-4)


@pytest.mark.parametrize(("best", "most"), [(0.013, 0.0065), (0.9, 0.45), (700.0, 350.0)])
def test_the_best_multiple_of_a_parabola_is_found(best: float, most: float) -> None:
    """c − c²/(2 best) has its maximum best/2 at best."""

    class Parabola(Trial):
        def __init__(self) -> None: ...

        def decreases(self, tries: Any) -> list[Tensor]:
            return [torch.tensor([c - c * c / (2 * best) for c in factors]).double() for _, factors in tries]

    ((obtained, found, factor),) = best_lengths(Parabola(), [torch.eye(2).double()])
    assert obtained == pytest.approx(1 - 1 / (2 * best), rel=1e-5)
    assert found == pytest.approx(most, rel=0.01)
    assert factor == pytest.approx(best, rel=0.1)
