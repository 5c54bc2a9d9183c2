"""The same numbers in any split of the work, within the memory given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

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
    """The tensors of whole sweeps stay under the budget, but for the batch and its draws, however many directions."""
    found: list[int] = []
    for positions, count, length, directions, memory in (
        ("one", 20, 30, 8, 300_000),
        ("all", 20, 30, 8, 1_500_000),
        ("one", 20, 1, 300, 300_000),
        ("one", 20, 1, 1200, 300_000),
    ):
        made = batch(count, length)
        options: dict[str, Any] = {"positions": positions, "directions": directions, "memory": memory, "tokens": 1}

        def run(made: Any = made, options: Any = options) -> None:
            curvature(Planted(), radial(lambda r: r**2), [made], "layer", [1.0], progress=False, **options)

        found.append(peak(run))
        assert found[-1] < 1.1 * memory + 400_000
    assert found[3] <= 1.01 * found[2]


def masked(batch: Any, which: list[int]) -> Any:
    """With every label of these examples ignored."""
    labels = batch["ids"][:, 1:].clone()
    labels[which] = -100
    return batch | {"labels": labels}


def labelled(model: Any, batch: Any) -> torch.Tensor:
    return cross_entropy(model(batch["ids"][:, :-1]).transpose(1, 2), batch["labels"], reduction="none")


@pytest.mark.parametrize("positions", ["one", "all"])
@pytest.mark.parametrize("apart", [False, True])
def test_examples_without_a_loss_are_left_out_and_counted(positions: str, apart: bool) -> None:
    """Those that follow the others change nothing, in the same batch or in one of their own."""
    options: dict[str, Any] = {"directions": 3, "tokens": 2, "positions": positions, "progress": False}
    first, more = tokens(4)["ids"], tokens(2, seed=1)["ids"]
    wanted = curvature(GPT().double(), labelled, [masked({"ids": first}, [])], "c_proj", RADII, **options)["c_proj"]
    if apart:
        data = [masked({"ids": first}, []), masked({"ids": more}, [0, 1])]
    else:
        data = [masked({"ids": torch.cat([first, more])}, [4, 5])]
    with pytest.warns(UserWarning, match="c_proj: 2 of 6 examples are left out, without a loss: their terms and grad"):
        found = curvature(GPT().double(), labelled, data, "c_proj", RADII, **options)["c_proj"]
    close(wanted, found)
    assert (found.left_out, found.examples, found.count) == (2, 4, wanted.count)
    assert found.summary()["left_out"] == 2
    assert (wanted.left_out, wanted.examples) == (0, 4)


def test_data_without_any_loss_say_so():
    with pytest.raises(InputError, match=r"data too short: 1 example .*; 3 without a loss are left out: their terms"):
        curvature(GPT(), labelled, [masked(tokens(4), [0, 1, 3])], "c_proj", RADII, directions=2, progress=False)


def test_a_loss_at_its_minimum_is_measured_at_every_position():
    """⟨0, d⟩ + 1 + a r²: no gradient anywhere in the batch, but terms."""
    made = batch(6, 2, deviation=0)
    made["g"] = torch.zeros_like(made["g"])

    def loss(model: Any, given: Any) -> torch.Tensor:
        return 1 + radial(lambda r: r**2)(model, given)

    found = curvature(Planted(), loss, [made], "layer", [0.5, 2.0], directions=2, tokens=None, progress=False)["layer"]
    torch.testing.assert_close(found.mean, torch.tensor([0.25, 4.0]).double(), rtol=1e-9, atol=0)
    assert (found.count, found.left_out) == (24, 0)


def test_what_a_progress_callback_raises_is_not_taken_for_the_models_fault():
    class Stop(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if done:
            raise Stop

    with pytest.raises(Stop):
        measured([tokens(4)], progress=stop)


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
