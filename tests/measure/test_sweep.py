"""The same numbers in any split of the work, within the memory given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from icm.errors import InputError
from icm.measure import Measurement, curvature
from icm.measure.displacement import Network
from icm.measure.memory import peak
from tests.measure.planted import GPT, Planted, batch, by_hand, next_token, radial, tokens

RADII = (0.1, 0.5, 2.0)


def measured(batches: Any, name: str = "c_proj", **options: Any) -> Measurement:
    settings = {"directions": 3, "tokens": 2, "progress": False} | options
    return curvature(GPT().double(), next_token, batches, name, RADII, **settings)[name]


def equal(a: Measurement, b: Measurement) -> bool:
    return all(torch.equal(getattr(a.tally, name), getattr(b.tally, name)) for name in vars(a.tally))


def close(a: Measurement, b: Measurement) -> None:
    """To rounding: remainders are differences of losses of size 1 in float64."""
    for name in ("mean", "standard_error", "spread", "negative"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("positions", ["one", "all"])
def test_the_same_seed_gives_the_same_bits(positions: str) -> None:
    data = [tokens(3), tokens(2, seed=1)]
    first = measured(data, positions=positions)
    assert equal(first, measured(data, positions=positions))
    other = measured(data, positions=positions, seed=1)
    assert not torch.isclose(first.mean, other.mean, rtol=1e-6).any()


@pytest.mark.parametrize("positions", ["one", "all"])
def test_memory_and_batches_change_rounding_only(positions: str) -> None:
    whole = tokens(6)
    one_by_one = [{"ids": row[None]} for row in whole["ids"]]
    reference = measured([whole], positions=positions)
    close(reference, measured(one_by_one, positions=positions))
    close(reference, measured([whole], positions=positions, memory="30kB"))
    close(reference, measured([whole], positions=positions, memory="200kB"))


@pytest.mark.parametrize("positions", ["one", "all"])
def test_means_are_those_of_plain_passes(positions: str) -> None:
    """Every remainder again, by plain passes, with the sweep's own displacements."""
    from icm.measure.directions import all_positions, example_seeds, one_position, positions_of
    from icm.measure.layers import find_layers

    model, data, r = GPT().double(), tokens(3), 0.5
    found = measured([data], positions=positions)
    layer = find_layers(model, "c_proj")[0]
    base = Network(model, next_token, None, None, False).base(layer, data)
    seeds = example_seeds(0, "c_proj", 0, 3)
    remainders = []
    if positions == "all":
        for draw in all_positions(base, 3, seeds, 1):
            remainders.append(by_hand(model, next_token, data, "c_proj", r * draw.delta[0]) / 4)
    else:
        for draw in one_position(base, positions_of(base, 2, seeds), 3, seeds, 1):
            delta = torch.zeros_like(base.y)
            assert draw.where is not None
            delta[torch.arange(3), draw.where] = r * draw.delta[0]
            remainders.append(by_hand(model, next_token, data, "c_proj", delta))
    x = torch.stack(remainders)
    assert float(found.mean[1]) == pytest.approx(float(x.mean()), rel=1e-9)
    assert float(found.spread[1]) == pytest.approx(float(x.std(correction=0) / x.mean().abs()), rel=1e-9)
    assert found.count == x.numel()


def test_the_budget_holds_for_all_that_a_sweep_makes():
    """The tensors of whole sweeps stay under the budget, but for the batch, its draws and the sums over one token."""
    made = batch(20, 30)
    for positions in ("one", "all"):
        for memory in (300_000, 1_500_000):

            def run(memory: int = memory, positions: Any = positions) -> None:
                curvature(Planted(), radial(lambda r: r**2), [made], "layer", [0.5, 1.0, 2.0], directions=60, tokens=1,
                          positions=positions, memory=memory, progress=False)  # fmt: skip

            assert peak(run) < 1.1 * memory + 200_000 + 6 * 8 * (4 * 60 * 20)


def test_a_budget_below_one_displacement_is_refused():
    with pytest.raises(InputError, match=r"memory='1kB' is 0.0009\d* MiB, and one displaced pass at c_proj holds 0.0"):
        measured([tokens(6)], memory="1kB")


def test_a_loss_that_overflows_is_refused_with_the_radius():
    with pytest.raises(InputError, match="not finite with layer displaced by 800; leave out radii from there on"):
        curvature(Planted(), radial(torch.exp), [batch(4)], "layer", [0.1, 1.0, 800.0, 900.0], directions=2)


def test_examples_with_few_positions_count_for_what_they_have():
    made = batch(4, 3)
    made["kept"][0, 1:] = 0
    made["kept"][1, 2:] = 0
    for tokens_, count in ((2, 1 + 2 + 2 + 2), (None, 1 + 2 + 3 + 3), (7, 9)):
        found = curvature(Planted(), radial(lambda r: r**2), [made], "layer", [1.0], directions=5, tokens=tokens_)
        assert found["layer"].count == 5 * count
