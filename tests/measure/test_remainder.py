"""Measured curvatures of networks whose H is known, where rounding hides it, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from benchmarks import coverage
from icm.demo import load_example
from icm.errors import InputError
from icm.measure import Measurement, curvature
from tests.measure.planted import CURVATURES, GPT, Planted, batch, next_token, radial, slope, tokens
from tests.measure.test_displacement import same, state

RADII = (0.1, 0.3, 1.0, 3.0)


def planted(H: Any, data: list[Any], radii: Any = RADII, **options: Any) -> Measurement:
    return curvature(Planted(), radial(H), data, "layer", radii, progress=False, **options)["layer"]


@pytest.mark.parametrize("positions", ["one", "all"])
@pytest.mark.parametrize("name", list(CURVATURES))
def test_planted_curvatures_are_inside_their_intervals(name: str, positions: Any) -> None:
    """One sample each, so at 99.9 %; how often 95 % intervals hold is the benchmark `coverage`."""
    H = CURVATURES[name]
    found = planted(H, [batch(52, 1, seed=1), batch(12, 2, seed=2)], directions=3, positions=positions)
    truth, (low, high) = H(found.radii), found.interval_at(0.999)
    assert ((low <= truth) & (truth <= high)).all()
    assert ((found.interval[1] - found.interval[0]) / truth < 0.6).all()
    fitted = found.exponent(level=0.999)
    assert fitted.low <= slope(H, found.radii) <= fitted.high
    assert fitted.high - fitted.low < 0.1
    assert found.resolved.all()
    assert (found.positions, found.examples) == (positions, 64)


def test_intervals_are_as_wide_as_means_scatter():
    """Of 40 measurements: (mean − H)/standard error has Student's law, and half the 50 % intervals hold H."""
    setting = coverage.Setting("", "one", 12, 1, "normal", 0.2)
    H, count = CURVATURES["r^2.4"], 40
    off, held = [], 0
    for seed in range(count):
        found = planted(H, [coverage.examples(setting, seed)], (1.0, 3.0), directions=2, seed=seed)
        truth, (low, high) = H(found.radii), found.interval_at(0.5)
        off.append(float(((found.mean - truth) / found.standard_error)[0]))
        held += int(((low <= truth) & (truth <= high))[0])
    assert stats.kstest(off, stats.t(11).cdf).pvalue > 0.05
    assert stats.binomtest(held, count).pvalue > 0.05
    for wrong in (0.5, 2.0):  # standard errors so many times as large would show
        inside = sum(abs(x) <= wrong * stats.t(11).ppf(0.75) for x in off)
        assert stats.binomtest(inside, count).pvalue < 0.01


@pytest.mark.long
@pytest.mark.parametrize("setting", coverage.SETTINGS, ids=lambda setting: setting.name)
def test_intervals_hold_the_truth_as_often_as_they_say(setting: coverage.Setting) -> None:
    """500 repetitions at one H; the benchmark `coverage` has every H."""
    row = coverage.cover(setting, "r^2.4", 500, first=coverage.SETTINGS.index(setting) * 100_000)
    assert row["ok"], row


@pytest.mark.parametrize("name", ["r^2", "r^2.4", "r^3"])
def test_exponents_of_a_million_remainders_are_within_a_hundredth(name: str) -> None:
    """8000 examples whose own exponents differ, 125 directions each."""
    data = [batch(1000, 1, seed=seed) for seed in range(8)]
    found = planted(CURVATURES[name], data, (0.1, 1.0, 10.0), directions=125)
    assert found.count == 1_000_000
    fitted = found.exponent()
    assert abs(fitted.value - float(name[2:])) < 0.01
    assert fitted.high - fitted.low < 0.02


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_rounding_drowns_is_not_resolved_and_the_rest_is_right(scale: float, seed: int) -> None:
    """In float32, H = 1e−3 r² under a loss of size 1 and a gradient: against the same in float64."""
    made = batch(64, 1, seed=seed)
    for key in ("u", "g", "a", "b", "kept"):
        made[key] = made[key].float()

    def loss(model: Any, given: dict[str, Tensor]) -> Tensor:
        return scale * (1 + radial(lambda r: 1e-3 * r**2)(model, given))

    radii = torch.logspace(-6, 2, 17, dtype=torch.float64)
    options: dict[str, Any] = {"directions": 4, "tokens": 2, "seed": seed, "progress": False}
    rough, fine = (
        curvature(Planted().float(), loss, [made], "layer", radii, dtype=dtype, **options)["layer"]
        for dtype in (None, torch.float64)
    )
    assert rough.resolved[-5:].all()
    assert not rough.resolved[:6].any()
    seen = rough.resolved
    assert ((rough.mean - fine.mean).abs()[seen] <= rough.floor[seen] + 1e-4 * fine.mean[seen]).all()
    assert int(fine.resolved.sum()) > int(seen.sum())
    assert fine.exponent(1e-2).value == pytest.approx(2, abs=0.05)
    assert rough.exponent().value == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize("name", ["blocks.0.attention.query", "blocks.1.mlp.up"])
def test_a_transformers_resolved_means_agree_with_double_precision(name: str) -> None:
    example = load_example()
    model = example.SmallLM(example.Config(layers=2, width=32, heads=2, context=16))
    generator = torch.Generator().manual_seed(0)
    data = [{"ids": torch.randint(256, (6, 16), generator=generator)}]
    radii = torch.logspace(-5, 1, 13, dtype=torch.float64)
    for positions in ("one", "all"):
        options: dict[str, Any] = {"directions": 3, "tokens": 3, "progress": False, "positions": positions}
        rough = curvature(model, next_token, data, name, radii, **options)[name]
        fine = curvature(model, next_token, data, name, radii, dtype=torch.float64, **options)[name]
        seen = rough.resolved
        assert not seen[:3].any()
        assert ((rough.mean - fine.mean).abs() <= rough.floor + 1e-3 * fine.mean.abs()).all()
        assert torch.equal(fine.resolved, fine.mean > 0)  # H of an untrained layer may be negative
        assert torch.equal(seen, fine.mean > 3 * rough.floor)


def lower(how: str) -> tuple[nn.Module, Any]:
    """GPT in bfloat16, or its loss under autocast."""
    if how == "bf16":
        return GPT().bfloat16(), lambda model, given: next_token(model, given).float()

    def cast(model: Any, given: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return next_token(model, given).float()

    return GPT(), cast


@pytest.mark.parametrize("how", ["bf16", "autocast"])
def test_half_precision_says_how_little_it_resolves(how: str) -> None:
    model, loss = lower(how)
    before = state(model)
    data = [tokens(24, 6)]
    options: dict[str, Any] = {"directions": 8, "tokens": 3, "progress": False}
    radii = (0.01, 0.1, 1.0, 10.0, 30.0)
    rough = curvature(model, loss, data, "mlp.0", radii, **options)["mlp.0"]
    exact = GPT().double()
    exact.load_state_dict(model.state_dict())
    fine = curvature(exact, next_token, data, "mlp.0", radii, **options)["mlp.0"]
    seen = rough.resolved
    assert not seen[:2].any()
    assert bool(seen[-1])
    assert ((rough.mean - fine.mean).abs()[seen] <= rough.floor[seen] + 0.02 * fine.mean[seen]).all()
    same(before, state(model))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_whatever_mode_it_is_called_in(mode: Any) -> None:
    model = GPT().double()
    wanted = curvature(model, next_token, [tokens()], ["c_proj", "mlp.0"], RADII, directions=2, progress=False)
    before = state(model)
    with mode():
        data = [{"ids": tokens()["ids"].clone()}]
        found = curvature(model, next_token, data, ["c_proj", "mlp.0"], RADII, directions=2, progress=False)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    for name in wanted:
        assert torch.equal(found[name].mean, wanted[name].mean)
    same(before, state(model))


def test_models_that_inference_mode_made():
    with torch.inference_mode():
        model = GPT().double()
        found = curvature(model, next_token, [tokens()], "c_proj", RADII, directions=2, progress=False)["c_proj"]
    wanted = curvature(GPT().double(), next_token, [tokens()], "c_proj", RADII, directions=2, progress=False)["c_proj"]
    assert torch.equal(found.mean, wanted.mean)


def test_compiled_models_are_measured_by_their_plain_names():
    compiled: Any = torch.compile(GPT().double(), backend="eager")
    found = curvature(compiled, next_token, [tokens()], "mlp.0", RADII, directions=2, progress=False)
    wanted = curvature(GPT().double(), next_token, [tokens()], "mlp.0", RADII, directions=2, progress=False)
    assert torch.equal(found["mlp.0"].mean, wanted["mlp.0"].mean)


def test_nothing_of_the_model_changes_and_draws_elsewhere_do_not_matter():
    model = GPT(dropout=0.2).train()
    before = state(model)
    options: dict[str, Any] = {"directions": 2, "random_seed": 4, "progress": False}
    first = curvature(model, next_token, [tokens()], "c_attn", RADII, **options)["c_attn"]
    same(before, state(model))
    torch.rand(3)
    again = curvature(model, next_token, [tokens()], "c_attn", RADII, **options)["c_attn"]
    options["random_seed"] = 5
    other = curvature(model, next_token, [tokens()], "c_attn", RADII, **options)["c_attn"]
    assert torch.equal(first.mean, again.mean)
    assert not torch.isclose(first.mean, other.mean, rtol=1e-6).any()


def test_parts_of_a_fused_layer_are_measured_apart():
    """What moves the values' part alone is what moves the layer with its other parts held."""
    parts = {"c_attn": ("query", "key", "value")}
    found = curvature(GPT().double(), next_token, [tokens(4)], "c_attn", RADII, parts=parts, directions=2)
    assert list(found) == ["c_attn.query", "c_attn.key", "c_attn.value"]
    assert {(x.m, x.n) for x in found.values()} == {(8, 8)}
    assert len({float(x.mean[0]) for x in found.values()}) == 3


def test_progress_is_told():
    heard: list[tuple[int, int, str]] = []
    curvature(GPT(), next_token, [tokens(), tokens(seed=1)], ["c_proj", "head"], RADII, directions=1, tokens=1,
              progress=lambda *x: heard.append(x))  # fmt: skip
    starts = [(0, 400, "c_proj"), (100, 400, "head"), (200, 400, "c_proj"), (300, 400, "head")]
    assert [x for x in heard if x[0] % 100 == 0] == [*starts, (400, 400, "head")]


def test_progress_moves_within_a_long_batch_and_ends_at_its_end():
    heard: list[tuple[int, int, str]] = []
    curvature(GPT(), next_token, [tokens()], "c_proj", RADII, directions=40, tokens=3, memory="100kB",
              progress=lambda *x: heard.append(x))  # fmt: skip
    done = [x[0] for x in heard]
    assert done == sorted(set(done))
    assert len(done) > 6
    assert heard[-1] == (100, 100, "c_proj")
    heard.clear()
    curvature(GPT(), next_token, iter([tokens()]), "c_proj", RADII, directions=1, progress=lambda *x: heard.append(x))
    assert [x for x in heard if x[1]] == [(100, 100, "c_proj")]  # an iterator's length is known at its end


def once() -> Iterator[Any]:
    yield from ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"radii": (0.1, 0.05)}, r"radii are not increasing: 0.1 before 0.05; sort them"),
        ({"radii": (0.1, 0.1)}, "radii are not increasing: 0.1 before 0.1"),
        ({"radii": (-1.0, 0.1)}, "radii hold -1.0; they are lengths, finite and > 0"),
        ({"radii": (0.0, 0.1)}, "radii hold 0.0"),
        ({"radii": (0.1, math.inf)}, "radii hold inf"),
        ({"radii": (math.nan,)}, "radii hold nan"),
        ({"radii": ()}, "are no list; give one radius or more"),
        ({"radii": 1.0}, "are no list"),
        ({"layers": "mlp.up"}, "'mlp.up' matches no linear layer; the nearest are mlp.0"),
        ({"directions": 0}, "directions=0 must be a whole number, at least 1"),
        ({"directions": True}, "directions=True must be a whole number, at least 1"),
        ({"tokens": 0}, "tokens=0 must be a whole number, at least 1, or None for all"),
        ({"seed": True}, "seed=True must be a whole number"),
        ({"memory": "lots"}, "memory='lots' is no amount"),
        ({"dtype": torch.int32}, "dtype=torch.int32 is no precision to compute in; give one of float64, float32"),
        ({"dtype": "double"}, "dtype='double' is no precision to compute in"),
        ({"layers": []}, r"layers=\[\] names no layer"),
        ({"data": tokens()}, r"data is one dict; give an iterable of batches, \[batch\] for a single one"),
        ({"positions": "some"}, "positions='some' must be 'one' or 'all'"),
        ({"data": []}, "data holds no batch"),
        ({"data": once()}, "data holds no batch; .* not one that is used up"),
        ({"data": [tokens(1)]}, "data too short: 1 example with remainders; .* need two at least"),
        ({"model": GPT(dropout=0.1).train()}, r"training mode and drop draws at random .*model.eval\(\), or give rand"),
        ({"loss": lambda model, x: next_token(model, x).mean()}, "loss returned one number for the batch"),
        ({"loss": lambda model, x: next_token(model, x) * math.nan}, "16 terms that are not finite before anything"),
        ({"memory": 10}, "memory=10 is .* raise it, or give smaller batches"),
    ],
)
def test_what_cannot_be_measured(changed: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"model": GPT(), "loss": next_token, "data": [tokens()], "layers": "mlp.0", "radii": RADII}
    model = (given | changed)["model"]
    before = state(model)
    with pytest.raises(InputError, match=said):
        curvature(**(given | changed), progress=False)
    same(before, state(model))


def test_tied_weights_and_sequence_first_models_are_refused():
    model = GPT()
    model.head.weight = model.wte.weight
    with pytest.raises(InputError, match="the weight of head is tied"):
        curvature(model, next_token, [tokens()], "*", RADII)

    def sequence_first(model: Any, given: dict[str, Tensor]) -> Tensor:
        return next_token(model, given).T  # terms (T, B) of outputs (B, T, …)

    with pytest.raises(InputError, match=r"do not share a first axis|belong to others"):
        curvature(GPT(), sequence_first, [tokens(4, 5)], "mlp.0", RADII)
    recurrent = nn.LSTM(3, 4)

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.rnn = nn.Linear(3, 3), recurrent

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(self.inner(x))[0]

    x = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"belong to others, .*sequences along the first axis"):
        curvature(Recurrent(), lambda model, x: model(x).square().sum(-1), [x], "inner", RADII)
