"""What is counted and what is not: backward passes, modes, precision, compiled and copied models."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from icm.measure import InputMoments
from tests.measure.by_hand import by_hand, far, normal, recorded

TIGHT = 1e-6


class Block(nn.Module):
    """q, k and v from one tensor, gate and up from another, as transformers have them."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.gate, self.up, self.down = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        u = torch.tanh(x)
        x = x + self.q(u) * self.k(u) + self.v(u)
        u = torch.tanh(x)
        return x + self.down(self.gate(u) * self.up(u))


def network(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(Block(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


def inputs_by_hand(model: nn.Module, batches: list[Tensor]) -> dict[str, list[Tensor]]:
    """The inputs of every linear layer, from plain forwards of a copy."""
    model = copy.deepcopy(model)
    seen = {f"{name}.weight": recorded(m) for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    for x in batches:
        model(x)
    return seen


def agrees(moments: InputMoments, model: nn.Module, wanted: dict[str, list[Tensor]], tolerance: float = TIGHT) -> None:
    for name, parameter in model.named_parameters():
        if name in wanted:
            assert far(moments.moment(parameter), by_hand([wanted[name]])) < tolerance, name


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_activations_are_not_counted_again(reentrant: bool) -> None:
    model, batches = network(), [normal(1, 4, 6, 8), 3 * normal(2, 2, 6, 8)]
    wanted = inputs_by_hand(model, batches)
    calls = recorded(model[0].q)
    moments = InputMoments(model, decay=0.0, ridge=0.0)
    for x in batches:
        x = x.clone().requires_grad_()
        y = checkpoint(model[0], x, use_reentrant=reentrant)
        assert isinstance(y, Tensor)
        model[1:](y).square().sum().backward()
    assert len(calls) == 4  # twice by the checkpoints
    # Inputs: u twice and the input of down in the block, then of two layers; each once a batch.
    assert moments._collector.count == 2 * 5
    moments.step()
    agrees(moments, model, wanted)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_within_checkpoints(reentrant: bool) -> None:
    model, x = network(), normal(3, 4, 8).requires_grad_()
    wanted = inputs_by_hand(model, [x])
    moments = InputMoments(model, ridge=0.0)

    def outer(x: Tensor) -> Any:
        return model[1:](checkpoint(model[0], x, use_reentrant=reentrant))

    y = checkpoint(outer, x, use_reentrant=reentrant)
    assert isinstance(y, Tensor)
    y.sum().backward()
    assert moments._collector.count == 5
    moments.step()
    agrees(moments, model, wanted)


def test_evaluation_and_frozen_weights_are_not_counted() -> None:
    model, x = network(), normal(4, 9, 8)
    moments = InputMoments(model, ridge=0.0, decay=0.0)
    model.eval()
    model(x)
    moments.step()
    assert moments.bytes == 0
    model.train()
    model[0].q.weight.requires_grad_(False)
    with torch.no_grad():
        model(x)
    moments.step()
    assert moments.moment(model[0].q.weight) is None
    assert moments.moment(model[0].k.weight) is not None
    model[0].q.weight.requires_grad_(True)
    model(x)
    moments.step()
    agrees(moments, model, inputs_by_hand(model, [x]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_call_that_is_not_finite_is_dropped(bad: float) -> None:
    layer = nn.Conv1d(2, 3, 2)
    moments = InputMoments(layer, ridge=0.0, decay=0.5)
    good, other = normal(5, 4, 2, 6), 2 * normal(6, 1, 2, 5)
    spoilt = normal(7, 2, 2, 6)
    spoilt[1, 1, 3] = bad
    for x in (good, spoilt, other):
        layer(x)
    moments.step()

    def u(x: Tensor) -> Tensor:
        return nn.functional.unfold(x[:, :, None], (1, 2)).mT.reshape(-1, 4)

    first = [u(good), u(other)]
    assert far(moments.moment(layer.weight), by_hand([first])) < TIGHT
    layer(spoilt)  # a step with nothing else: as if it had not been
    moments.step()
    assert far(moments.moment(layer.weight), by_hand([first])) < TIGHT
    layer(other)
    moments.step()
    assert far(moments.moment(layer.weight), by_hand([first, [u(other)]], decay=0.5)) < TIGHT


def test_nothing_finite_so_far_and_nothing_but_zeros_give_the_identity() -> None:
    for x in (torch.full((3, 4), float("nan")), torch.zeros(3, 4)):
        layer = nn.Linear(4, 2)
        moments = InputMoments(layer)
        layer(x)
        moments.step()
        C = moments.moment(layer.weight)
        assert C is not None
        assert float((C[0] - torch.eye(4)).abs().max()) < 1e-7


def test_an_empty_batch_changes_nothing() -> None:
    layer, convolution = nn.Linear(4, 2), nn.Conv2d(3, 2, 2)
    model = nn.ModuleList([layer, convolution])
    moments = InputMoments(model, ridge=0.0)
    layer(torch.zeros(0, 4))
    convolution(torch.zeros(0, 3, 5, 5))
    moments.step()
    assert moments.moment(layer.weight) is None
    assert moments.moment(convolution.weight) is None
    x = normal(8, 3, 4)
    layer(x)
    layer(x[:0])
    moments.step()
    assert far(moments.moment(layer.weight), by_hand([[x]])) < TIGHT


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_summed_in_float32(dtype: torch.dtype) -> None:
    """A bfloat16 product would round sums to 2e-3."""
    layer = nn.Linear(16, 4, dtype=dtype)
    x = normal(9, 3000, 16).to(dtype) + 1
    moments = InputMoments(layer, ridge=0.0)
    layer(x)
    moments.step()
    C = moments.moment(layer.weight)
    assert far(C, by_hand([[x]])) < TIGHT
    assert C is not None
    assert C.dtype == torch.float32


def test_autocast_does_not_round_the_sums() -> None:
    layer, x = nn.Linear(16, 4), normal(10, 300, 16)
    moments = InputMoments(layer, ridge=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    moments.step()
    assert far(moments.moment(layer.weight), by_hand([[x]])) < TIGHT


def test_float64_moments_to_its_rounding() -> None:
    layer, x = nn.Linear(16, 4), normal(11, 300, 16)
    moments = InputMoments(layer, ridge=0.0, dtype=torch.float64)
    layer(x)
    moments.step()
    assert far(moments.moment(layer.weight), by_hand([[x]])) < 1e-14


@pytest.mark.parametrize(("backend", "first"), [("eager", "compile"), ("aot_eager", "hooks")])
def test_a_compiled_model_has_the_same_moments(backend: str, first: str) -> None:
    torch.compiler.reset()
    model = network()
    if first == "hooks":
        moments = InputMoments(model, ridge=0.0, decay=0.0, every=2)
        compiled: Any = torch.compile(model, backend=backend)
    else:
        compiled = torch.compile(model, backend=backend)
        moments = InputMoments(compiled, ridge=0.0, decay=0.0, every=2)
    assert moments.shares().keys() >= {"0.q.weight", "3.weight"}  # names without the wrapper's
    batches = [normal(12 + i, 2 + i, 4, 8) for i in range(4)]
    for i, x in enumerate(batches):
        compiled(x).sum().backward()
        moments.step()
        agrees(moments, model, inputs_by_hand(model, [batches[i - i % 2]]))
        assert moments.version(model[1].weight) == i // 2 + 1
    assert moments.shares()["0.q.weight"] == ("0.q.weight", "0.k.weight", "0.v.weight")
    compiled.eval()
    before = moments._collector.count
    compiled(batches[0])
    assert moments._collector.count == before


def test_steps_that_do_not_collect_are_one_graph() -> None:
    torch.compiler.reset()
    model, graphs = network(), []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    moments = InputMoments(model, every=3)
    x = normal(13, 4, 8)
    model(x)
    moments.step()
    torch.compile(model, backend=backend, fullgraph=True)(x)
    assert len(graphs) == 1


def test_a_checkpoint_inside_a_compiled_model() -> None:
    torch.compiler.reset()
    model, x = network(), normal(14, 4, 8).requires_grad_()
    wanted = inputs_by_hand(model, [x])
    moments = InputMoments(model, ridge=0.0)

    def forward(x: Tensor) -> Any:
        return model[1:](checkpoint(model[0], x, use_reentrant=False))

    torch.compile(forward, backend="aot_eager")(x).sum().backward()
    assert moments._collector.count == 5
    moments.step()
    agrees(moments, model, wanted)


def test_copies_of_the_model_do_not_write_here() -> None:
    """Deep copies and pickles of a model with its hooks; both can be measured on their own."""
    model, x = network(), normal(15, 4, 8)
    moments = InputMoments(model, ridge=0.0)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), copy.deepcopy(model)(x))
        assert moments._collector.count == 0
        own = InputMoments(other, ridge=0.0)
        other(x)
        own.step()
        agrees(own, other, inputs_by_hand(model, [x]))
    moments.step()
    assert moments.moment(model[1].weight) is None


def test_a_model_in_data_parallel_keeps_its_names(tmp_path: Path) -> None:
    """A state passes between the bare model and the wrapped one."""
    model, x = network(), normal(17, 4, 8)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        moments = InputMoments(wrapped, ridge=0.0)
        wrapped(x).sum().backward()
        moments.step()
    finally:
        torch.distributed.destroy_process_group()
    agrees(moments, model, inputs_by_hand(model, [x]))
    bare = InputMoments(model)
    bare.load_state_dict(moments.state_dict())
    assert bare.shares() == moments.shares()
    assert "0.q.weight" in bare.shares()


def test_inside_function_transforms_nothing_is_kept() -> None:
    layer, x = nn.Linear(4, 3), normal(16, 5, 4)
    moments = InputMoments(layer, ridge=0.0)
    torch.func.vmap(layer)(x)
    torch.func.jvp(layer, (x,), (x,))
    moments.step()
    assert moments.moment(layer.weight) is None
    with torch.inference_mode():
        layer(x.clone())
    moments.step()
    assert far(moments.moment(layer.weight), by_hand([[x]])) < TIGHT


@pytest.mark.gpu
def test_cuda() -> None:
    """bfloat16 inputs multiplied as they are, exactly; sums follow a model that moves; no wait for the device."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        layer, x = nn.Linear(64, 8, dtype=dtype).cuda(), (normal(17, 5000, 64) + 1).to(dtype)
        moments = InputMoments(layer, ridge=0.0, decay=0.0)
        on_device = x.cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            layer(on_device)
            moments.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        C = moments.moment(layer.weight)
        assert C is not None
        assert C.is_cuda
        assert far(C, by_hand([[x]])) < 5e-6
    layer, x = nn.Linear(4, 4), normal(18, 9, 4)
    moments = InputMoments(layer, ridge=0.0, decay=0.0)
    layer(x)
    layer.cuda()(x[:5].cuda())
    moments.step()
    assert far(moments.moment(layer.weight), by_hand([[x, x[:5]]])) < TIGHT
    layer.cpu()(x)
    moments.step()
    C = moments.moment(layer.weight)
    assert C is not None
    assert C.device.type == "cpu"
