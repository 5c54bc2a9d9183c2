"""A monitor measures what layers and steps are, by other means too, and training does not notice."""

from __future__ import annotations

import copy
import csv
import json
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from icm.errors import FileError, InputError
from icm.optim import SteepestDescent
from icm.optim.monitor import Monitor
from tests.optim.models import Conv1D
from tests.optim.steps import normal

Make = Callable[[list[Any]], torch.optim.Optimizer]


class Net(nn.Module):
    """Tokens → embedding → linear layers with dropout → logits; nothing random but the dropout."""

    def __init__(self, dtype: torch.dtype = torch.float64, bias: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.up = nn.Linear(8, 20, bias=bias)
        self.down = Conv1D(8, 20)
        self.head = nn.Linear(8, 11, bias=bias)
        self.to(dtype)
        for i, p in enumerate(self.parameters()):
            p.data.copy_(normal(i, *p.shape) * 0.3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.head(x + self.down(functional.dropout(torch.tanh(self.up(x)), 0.2, self.training)))


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(11, (3, 6), generator=generator), torch.randint(11, (18,), generator=generator)


def passes(model: nn.Module, seed: int) -> Tensor:
    tokens, wanted = batch(seed)
    loss = functional.cross_entropy(model(tokens).flatten(0, 1).float(), wanted)
    loss.backward()
    return loss


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for i in range(steps):
        optimizer.zero_grad()
        passes(model, i)
        optimizer.step()


def matrices(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.ndim == 2]


def sizes(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


ANY: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, foreach=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "muon": lambda p: torch.optim.Muon([x for x in p if x.ndim == 2], lr=0.02),
    "steepest": lambda p: SteepestDescent([x for x in p if x.ndim == 2], 0.02, "schatten(3)", weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
}


@pytest.mark.parametrize("kind", ANY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_is_bitwise_the_same(kind: str, dtype: torch.dtype) -> None:
    found = []
    for watched in (False, True):
        model = Net(dtype)
        optimizer = ANY[kind](list(model.parameters()))
        monitor = Monitor(model, optimizer, every=2, largest=4) if watched else None
        with torch.random.fork_rng():
            torch.manual_seed(1)
            train(model, optimizer, 5)
            found.append((sizes(model), [p.grad for p in model.parameters()], torch.get_rng_state()))
        assert monitor is None or len(monitor.log) == 4 * 3
    for before, after in zip(*(list(one[0].values()) + one[1] + [one[2]] for one in found), strict=True):
        assert torch.equal(before, after)


def test_sizes_are_those_of_the_norms_and_of_the_layers_own_outputs() -> None:
    """Features by hooks on the outputs of the very forward pass, updates by calling the layers again."""
    model = Net().eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.3)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    layers = {name: module for name, module in model.named_modules() if name}
    with Monitor(model, optimizer, every=1, samples=18) as monitor:
        for step in range(3):
            handles = [
                module.register_forward_hook(
                    lambda _, x, y, name=name: seen.update({name: (x[0].detach(), y.detach().clone())})
                )
                for name, module in layers.items()
            ]
            optimizer.zero_grad()
            passes(model, step)
            for handle in handles:
                handle.remove()
            before = sizes(model)
            optimizer.step()
            readings = {one.layer: one for one in monitor.log if one.step == step}
            assert list(readings) == list(layers)
            for name, module in layers.items():
                one, (x, y) = readings[name], seen[name]
                W = before[f"{name}.weight"]
                change = module.get_parameter("weight").detach() - W
                norms = []
                for M in (W, change):
                    M = M.mT if name == "down" else M
                    m, n = M.shape
                    spectral = float(torch.linalg.svdvals(M)[0]) * math.sqrt(n / m)
                    norms.append(float(M.norm(dim=1).amax()) / math.sqrt(n) if name == "embed" else spectral)
                assert (one.weight, one.update) == pytest.approx(tuple(norms), rel=1e-12)
                assert one.features == pytest.approx(float(y.square().mean().sqrt()), rel=1e-12)
                with torch.no_grad():
                    moved = module(x) - y
                assert one.feature_update == pytest.approx(float(moved.square().mean().sqrt()), rel=1e-9)
                assert one.lr == 0.05
                assert one.norm == ("one-to-rms" if name == "embed" else "rms-to-rms")
                assert one.feature_update is not None
                if name in ("up", "head"):
                    rms = float(x.square().mean(-1).sqrt().amax())
                    shift = module.get_parameter("bias").detach() - before[f"{name}.bias"]
                    assert one.feature_update <= one.update * rms + float(shift.square().mean().sqrt()) + 1e-12


CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 5)),
    "circular": (nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 9)),
    "grouped": (nn.Conv2d(4, 6, (2, 3), groups=2, stride=2, bias=False), (2, 4, 6, 6)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2), (2, 4, 5, 5)),
    "dilated": (nn.ConvTranspose1d(4, 6, 2, dilation=2), (2, 4, 5)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_are_measured_by_kernel_position(kind: str) -> None:
    layer, shape = copy.deepcopy(CONVOLUTIONS[kind])
    layer.double()
    model, x = nn.Sequential(layer), normal(1, *shape)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, samples=32) as monitor:
        y = model(x)
        (y * normal(2, *y.shape)).sum().backward()
        optimizer.step()
    (one,) = monitor.log
    after = model(x)
    assert one.features == pytest.approx(float(y.detach().square().mean().sqrt()), rel=1e-12)
    assert one.feature_update == pytest.approx(float((after - y).detach().square().mean().sqrt()), rel=1e-9)
    assert one.exponent == pytest.approx(1.0, abs=1e-6)
    W = after.new_tensor(layer.get_parameter("weight").grad.tolist()) * 0.1  # type: ignore[union-attr]
    groups = int(getattr(layer, "groups", 1))
    tops = []
    for position in W.flatten(2).unbind(-1):
        for block in position.chunk(groups):
            M = block.mT if "ranspose" in type(layer).__name__ else block
            tops.append(float(torch.linalg.matrix_norm(M, 2)) * math.sqrt(M.shape[1] / M.shape[0]))
    assert one.update == pytest.approx(W.flatten(2).shape[-1] * max(tops), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "exponent", "error", "cosine"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 1.0, 1e-6, 1 - 1e-9),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), 1.0, 1e-6, 1 - 1e-9),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1), 1.0, 1e-6, 1 - 1e-9),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5), 1.0, 1e-6, 1 - 1e-9),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True), 1.0, 1e-6, 1 - 1e-9),
        (ANY["sgd"], 1.0, 1e-6, 1 - 1e-9),
        (ANY["muon"], 0.0, 0.2, 0.95),
        (lambda p: torch.optim.Muon(p, lr=0.02, nesterov=False, weight_decay=0.0), 0.0, 0.2, 0.95),
        (ANY["steepest"], 0.5, 1e-6, 1 - 1e-9),
        (lambda p: SteepestDescent(p, 0.02, "spectral", nesterov=False, weight_decay=0.1), 0.0, 1e-6, 1 - 1e-9),
        (lambda p: SteepestDescent(p, 0.02, "nuclear", momentum=0.0), math.inf, 0, 1 - 1e-9),
    ],
)
def test_the_exponent_is_the_optimizers(make: Make, exponent: float, error: float, cosine: float) -> None:
    model = Net().eval()
    optimizer = make([model.up.weight, model.down.weight])
    with Monitor(model, optimizer, every=2) as monitor:
        train(model, optimizer, 5)
    assert len(monitor.log) == 6
    for one in monitor.log:
        assert one.exponent == pytest.approx(exponent, abs=error)
        assert one.cosine is not None
        assert one.cosine >= cosine
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.exponent <= one.high  # type: ignore[operator]
        assert one.source == ("momentum" if "momentum_buffer" in optimizer.state[model.up.weight] else "gradient")
        if math.isinf(exponent):
            assert one.p == 1.0
        elif exponent:
            assert one.p == pytest.approx(1 + 1 / exponent, abs=1e-5)


def test_no_exponent_fits_the_first_step_of_adam() -> None:
    model = nn.Sequential(nn.Linear(40, 40, bias=False)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with Monitor(model, optimizer) as monitor:
        model[0].weight.grad = normal(1, 40, 40)
        optimizer.step()
    assert monitor.log[0].cosine == pytest.approx(math.sqrt(2 / math.pi), abs=0.03)
    assert monitor.log[0].source == "momentum"


def test_every_matrix_that_our_optimizers_cut_is_described_for_itself() -> None:
    """Three layers in one tensor: spectral steps of each are none of the whole."""
    model = nn.ModuleDict({"qkv": nn.Linear(6, 18, bias=False)}).double()
    optimizer = SteepestDescent.for_model(
        model, 0.1, fused={"qkv": 3}, heads=(), norms={"fused": "spectral"}, momentum=0.0
    )
    G = normal(1, 18, 6) * torch.tensor([5.0, 1.0, 0.2]).double().repeat_interleave(6)[:, None]
    with Monitor(model, optimizer) as monitor:
        model["qkv"].weight.grad = G
        optimizer.step()
    assert monitor.log[0].exponent == pytest.approx(0.0, abs=1e-6)
    assert monitor.log[0].cosine == pytest.approx(1.0, abs=1e-9)


def test_only_every_so_many_steps_are_measured_and_little_is_kept() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=3, samples=4) as monitor:
        (watch,) = monitor._watches
        for i in range(8):
            passes(model, i)
            kept = [layer.inputs for layer in watch.layers]
            assert [x is not None for x in kept] == [i % 3 == 0] * 4
            assert all(x is None or len(x) == 4 for x in kept)
            optimizer.step()
            assert not watch.before
            assert all(layer.inputs is None for layer in watch.layers)
    assert [one.step for one in monitor.log if one.layer == "up"] == [0, 3, 6]
    assert [one.step for one in monitor.last] == [6] * 4


def test_micro_batches_and_passes_without_gradients() -> None:
    """Inputs are those of the first pass with gradients; the step is that of the accumulated gradient."""
    model = Net().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, samples=18) as monitor:
        with torch.no_grad():
            model(batch(7)[0])
        for i in range(3):
            passes(model, i)
        wanted = model.embed(batch(0)[0]).detach().square().mean().sqrt()
        optimizer.step()
    found = {one.layer: one for one in monitor.log}
    assert found["embed"].features == pytest.approx(float(wanted), rel=1e-12)
    assert found["up"].exponent == pytest.approx(1.0, abs=1e-6)
    assert found["up"].cosine == pytest.approx(1.0, abs=1e-9)


def test_layers_that_get_no_gradient_or_are_frozen() -> None:
    model = Net()
    model.up.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Monitor(model, optimizer, every=1, learning=1e-9) as monitor:
        passes(model, 0)
        model.down.weight.grad = None
        model.down.bias.grad = None
        optimizer.step()
        optimizer.zero_grad()
        optimizer.step()
        model.up.requires_grad_(True)
        train(model, optimizer, 1)
    first, second, third = ({one.layer: one for one in monitor.log if one.step == step} for step in range(3))
    assert list(first) == list(second) == ["embed", "down", "head"]
    assert list(third) == ["embed", "up", "down", "head"]
    assert (first["down"].update, first["down"].exponent) == (0.0, None)
    assert first["down"].below == ("update", "feature_update")
    assert first["head"].below == ()
    assert second["head"].update == 0.0
    assert second["head"].features is None


def test_closures_that_take_many_passes() -> None:
    model = Net().eval()
    start = sizes(model)["up.weight"]
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        return passes(model, 0)

    with Monitor(model, optimizer, every=1, samples=18) as monitor:
        optimizer.step(closure)
        change = float(torch.linalg.matrix_norm(sizes(model)["up.weight"] - start, 2)) * math.sqrt(8 / 20)
        optimizer.step(closure)
    first = next(one for one in monitor.log if one.layer == "up")
    assert first.update == pytest.approx(change, rel=1e-12)
    assert first.source == "gradient"
    assert first.features is not None
    model = Net().eval()
    adam = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, adam, every=1) as monitor:
        for i in range(2):
            adam.step(lambda i=i: (adam.zero_grad(), passes(model, i))[1])
    assert [one.cosine for one in monitor.log if one.layer == "up"] == pytest.approx([1.0, 1.0], abs=1e-9)


def test_several_optimizers_of_one_model() -> None:
    model = Net().eval()
    muon = torch.optim.Muon([model.up.weight, model.down.weight], lr=0.02)
    rest = [p for p in model.parameters() if p is not model.up.weight and p is not model.down.weight]
    adam = torch.optim.AdamW(rest, lr=0.01)
    with Monitor(model, [muon, adam], every=2) as monitor:
        for i in range(3):
            model.zero_grad()
            passes(model, i)
            muon.step()
            adam.step()
    found = [(one.step, one.layer, one.lr) for one in monitor.log]
    once = [("up", 0.02), ("down", 0.02), ("embed", 0.01), ("head", 0.01)]
    assert found == [(step, *each) for step in (0, 2) for each in once]
    assert all(one.features and one.feature_update for one in monitor.log)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.gates = nn.LSTM(8, 4, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.attend(x, x, x)[0]
        return self.head(torch.cat([self.norm(self.gates(x)[0])] * 2, -1))


def test_tied_weights_attention_and_recurrent_layers() -> None:
    model = Attending()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    W = sizes(model)
    with Monitor(model, optimizer) as monitor:
        model(torch.arange(6).reshape(2, 3)).square().sum().backward()
        optimizer.step()
    found = {one.layer: one for one in monitor.log}
    names = ["embed", "attend.in_proj_weight", "attend.out_proj", "gates.weight_ih_l0", "gates.weight_hh_l0", "head"]
    assert list(found) == names
    assert (found["embed"].norm, found["head"].norm) == ("one-to-rms", "rms-to-rms")
    assert found["attend.out_proj"].features is None  # used without being called
    parts = [float(torch.linalg.matrix_norm(part, 2)) for part in W["attend.in_proj_weight"].chunk(3)]
    assert found["attend.in_proj_weight"].weight == pytest.approx(max(parts), rel=1e-5)
    gates = [float(torch.linalg.matrix_norm(part, 2)) * math.sqrt(2) for part in W["gates.weight_ih_l0"].chunk(4)]
    assert found["gates.weight_ih_l0"].weight == pytest.approx(max(gates), rel=1e-5)
    assert found["attend.in_proj_weight"].exponent == pytest.approx(1.0, abs=1e-3)


def test_values_beyond_the_constants_are_flagged() -> None:
    model = Net().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    stable = {"weight": 1.0, "features": 1e-3}
    with Monitor(model, optimizer, layers=["up", "head"], stable=stable, learning=1.0) as monitor:
        train(model, optimizer, 1)
    for one in monitor.log:
        assert one.above == (("weight", "features") if one.weight > 1 else ("features",))
        assert one.below == ("update", "feature_update")
    table = monitor.table().splitlines()
    assert len(table) == 4
    assert table[0].split()[:3] == ["layer", "‖W‖", "‖ΔW‖"]
    assert "features ↑, update ↓, feature_update ↓" in table[1]
    assert table[-1] == "step 0"
    scalars = monitor.scalars()
    assert scalars["update/up"] == monitor.log[0].update
    assert set(scalars) == {
        f"{name}/{layer}"
        for name in ("weight", "update", "features", "feature_update", "exponent", "cosine")
        for layer in ("up", "head")
    }
    all_four = Monitor(model, optimizer, stable=2.0)
    assert all_four.stable == dict.fromkeys(("weight", "update", "features", "feature_update"), 2.0)
    all_four.close()


def test_a_run_that_blows_up_is_told(tmp_path: Path) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1, stable=1e9) as monitor:
        passes(model, 0)
        model.up.weight.grad = torch.full_like(model.up.weight, math.nan)
        model.head.weight.grad = torch.full_like(model.head.weight, math.inf)
        optimizer.step()
        train(model, optimizer, 1)
    first = {one.layer: one for one in monitor.log if one.step == 0}
    assert first["up"].above == ("update", "feature_update")
    assert first["up"].exponent is None
    assert first["embed"].above == ()
    assert {one.layer for one in monitor.log if one.step == 1 and "weight" in one.above} == {"up", "head"}
    content = json.loads(monitor.to_json(tmp_path / "log.json").read_text())["readings"]
    assert content[1]["update"] == "nan"


def test_large_matrices_are_measured_from_below() -> None:
    model = nn.Sequential(nn.Linear(40, 60, bias=False)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    W = sizes(model)["0.weight"]
    with Monitor(model, optimizer, every=1, largest=30) as monitor:
        for seed in range(4):
            model[0].weight.grad = normal(seed, 60, 40)
            optimizer.step()
            one, top = monitor.log[-1], float(torch.linalg.matrix_norm(W, 2)) * math.sqrt(40 / 60)
            assert top * (1 - 2e-3) < one.weight <= top * (1 + 1e-12)
            step = float(torch.linalg.matrix_norm(normal(seed, 60, 40), 2)) * 0.1 * math.sqrt(40 / 60)
            assert step * (1 - 1e-2) < one.update <= step * (1 + 1e-9)
            assert (one.exact, one.exponent) == (False, None)
            W = sizes(model)["0.weight"]
    assert "≥: from below" in monitor.table()
    for layer in monitor._watches[0].layers:
        assert {x.shape for x in layer.vectors.values()} == {(1, 40, 4)}


def test_closing_leaves_nothing_behind() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def hooks() -> Iterator[int]:
        for module in model.modules():
            yield len(module._forward_pre_hooks)
        yield len(optimizer._optimizer_step_pre_hooks)
        yield len(optimizer._optimizer_step_post_hooks)

    monitor = Monitor(model, optimizer, every=1)
    assert sum(hooks()) == 6
    train(model, optimizer, 2)
    monitor.close()
    monitor.close()
    assert sum(hooks()) == 0
    train(model, optimizer, 2)
    assert len(monitor.log) == 8
    with pytest.raises(RuntimeError, match="stop"), Monitor(model, optimizer):
        raise RuntimeError("stop")
    assert sum(hooks()) == 0


def test_copies_and_pickles_of_a_watched_model_are_not_watched() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            passes(other, 0)
            assert all(layer.inputs is None for layer in monitor._watches[0].layers)
            hooks: list[Any] = [hook for module in other.modules() for hook in module._forward_pre_hooks.values()]
            assert [hook.watch for hook in hooks] == [None] * 4
        train(model, optimizer, 1)
    assert len(monitor.log) == 4
    assert copy.deepcopy(optimizer).state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_sparse_gradients_and_inputs_by_name() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(9, 4, sparse=True), "linear": nn.Linear(4, 5)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer) as monitor:
        model["linear"](input=model["embed"](torch.tensor([1, 2, 2]))).sum().backward()
        optimizer.step()
    assert all(one.features and one.feature_update for one in monitor.log)


def test_a_compiled_models_weights_are_watched() -> None:
    model = Net()
    wrapped = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(wrapped, optimizer, every=1) as monitor:  # type: ignore[arg-type]
        train(wrapped, optimizer, 2)  # type: ignore[arg-type]
    assert [one.layer for one in monitor.log] == ["embed", "up", "down", "head"] * 2
    assert all(one.update > 0 for one in monitor.log)


def test_logs_are_written_and_read_back(tmp_path: Path) -> None:
    model = Net()
    optimizer = torch.optim.Muon(matrices(model), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 2)
    with monitor.to_csv(tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    content = json.loads(monitor.to_json(tmp_path / "log.json").read_text())["readings"]
    assert len(rows) == len(content) == len(monitor.log) == 8
    for row, entry, one in zip(rows, content, monitor.log, strict=True):
        assert (row["layer"], entry["layer"]) == (one.layer, one.layer)
        assert float(row["weight"]) == entry["weight"] == one.weight
        assert row["exponent"] == ("" if one.exponent is None else str(one.exponent))
        assert entry["exponent"] == one.exponent
    for write in (monitor.to_csv, monitor.to_json):
        with pytest.raises(FileError):
            write(tmp_path / "log.txt")


def test_what_cannot_be_watched_is_refused() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for options, text in (
        ({"layers": "heads"}, "perhaps|nearest are head"),
        ({"layers": ["up", "!up"]}, "no layer"),
        ({"stable": {"weights": 1.0}}, "perhaps 'weight'"),
        ({"learning": 0.0}, "above 0"),
        ({"every": 0}, "every=0"),
        ({"samples": 0}, "samples=0"),
    ):
        with pytest.raises(InputError, match=text):
            Monitor(model, optimizer, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no linear layer, convolution or embedding"):
        Monitor(nn.LayerNorm(3), optimizer)
    with pytest.raises(InputError, match="pass its own model"):
        Monitor(Net(), optimizer)
    with pytest.raises(InputError, match="not initialised"):
        Monitor(nn.Sequential(nn.LazyLinear(3)), optimizer)
    assert [x.name for x in Monitor(model, optimizer, layers="!embed")._watches[0].layers] == ["up", "down", "head"]
