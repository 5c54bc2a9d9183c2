"""Inputs of each kind of module, against nn.functional.unfold, the modules' own outputs, and rows counted by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.measure import InputMoments
from icm.measure import inputs as inputs_module
from icm.measure.inputs import Rows, feeds
from tests.measure.by_hand import by_hand, far, normal

TIGHT = 1e-6  # float32 sums of some hundred rows


class Conv1D(nn.Module):
    """A layer that stores inputs × outputs, as some language models have it."""

    def __init__(self, outputs: int, inputs: int):
        super().__init__()
        self.weight = nn.Parameter(normal(0, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def patches(layer: Any, x: Tensor) -> Tensor:
    (feed,) = feeds(layer, "weight")
    assert not isinstance(feed, str)
    return torch.cat(list(feed.read(x)))


def after_one_step(layer: nn.Module, *args: Tensor, **options: Any) -> InputMoments:
    moments = InputMoments(layer, ridge=0.0, **options)
    layer(*args)
    moments.step()
    return moments


OPTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "replicate", "stride": 2},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    {"kernel_size": 4, "padding": "same", "padding_mode": "circular"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_patches_times_the_flattened_weight_are_the_convolution(axes: int, options: dict[str, Any]) -> None:
    """Row by row: so they are the very patches, in the order of the flattened weight."""
    layer = [nn.Conv1d, nn.Conv2d, nn.Conv3d][axes - 1](3, 5, bias=False, **options).double()
    x = normal(1, 2, 3, *(9, 7, 8)[:axes]).double()
    wanted = layer(x).movedim(1, -1).reshape(-1, 5)
    found = patches(layer, x) @ layer.weight.flatten(1).mT
    assert float((found - wanted).detach().abs().max()) < 1e-13
    assert torch.equal(patches(layer, x[0]), patches(layer, x[:1]))  # without a batch axis


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [((3, 2), (2, 1), (1, 0), (1, 2)), ((1, 3), (1, 3), (0, 2), (1, 1))]
)
def test_convolutions_have_the_moment_of_unfolded_patches(kernel: Any, stride: Any, padding: Any, dilation: Any):
    layer = nn.Conv2d(3, 4, kernel, stride, padding, dilation)
    x = normal(2, 5, 3, 8, 9)
    u = nn.functional.unfold(x, kernel, dilation, padding, stride).mT
    assert far(after_one_step(layer, x).moment(layer.weight), by_hand([[u]])) < TIGHT


def test_many_patches_are_unfolded_a_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs_module, "CHUNK", 2000)
    layer = nn.Conv2d(3, 4, 3)
    x = normal(3, 7, 3, 8, 8)  # 36 patches of 27 entries each: two images at a time
    (feed,) = feeds(layer, "weight")
    assert not isinstance(feed, str)
    assert [len(part) for part in feed.read(x)] == [72, 72, 72, 36]
    u = nn.functional.unfold(x, 3).mT
    assert far(after_one_step(layer, x).moment(layer.weight), by_hand([[u]])) < TIGHT


def test_a_layer_that_stores_inputs_by_outputs() -> None:
    layer = Conv1D(7, 4)
    x = normal(4, 3, 5, 4)
    assert far(after_one_step(layer, x).moment(layer.weight), by_hand([[x]])) < TIGHT


def test_attention_on_itself_and_on_others() -> None:
    """in_proj_weight multiplies query, key and value: one set of rows, or all three."""
    layer = nn.MultiheadAttention(6, 2, batch_first=True)
    x, y, z = normal(5, 2, 4, 6), 3 * normal(6, 2, 9, 6), normal(7, 2, 9, 6) - 1
    for args in ((x, x, x), (x, y, y), (x, y, z), (x, x, x + 1)):
        found = after_one_step(layer, *args).moment(layer.in_proj_weight)
        assert far(found, by_hand([list(args)])) < TIGHT


def test_attention_of_other_widths_has_a_moment_for_each_projection() -> None:
    layer = nn.MultiheadAttention(6, 2, kdim=3, vdim=5)
    query, key, value = normal(8, 4, 2, 6), normal(9, 7, 2, 3), normal(10, 7, 2, 5)
    moments = InputMoments(layer, ridge=0.0)
    layer(value=value, key=key, query=query)  # by name
    moments.step()
    assert far(moments.moment(layer.q_proj_weight), by_hand([[query]])) < TIGHT
    assert far(moments.moment(layer.k_proj_weight), by_hand([[key]])) < TIGHT
    assert far(moments.moment(layer.v_proj_weight), by_hand([[value]])) < TIGHT
    assert moments.key(layer.k_proj_weight) == "k_proj_weight"


def test_wide_inputs_have_diagonal_blocks() -> None:
    """The fewest equal parts within `widest`; a prime number has nothing but the diagonal."""
    for n, widest, blocks in ((12, 12, 1), (12, 11, 2), (12, 5, 3), (35, 10, 5), (13, 12, 13)):
        layer = nn.Linear(n, 3)
        x = normal(n, 50, n) @ normal(n + 1, n, n)
        found = after_one_step(layer, x, widest=widest).moment(layer.weight)
        assert found is not None
        C, w = by_hand([[x]]), n // blocks
        assert found.shape == (blocks, w, w)
        for i, block in enumerate(found):
            assert np.abs(block.numpy() - C[i * w : (i + 1) * w, i * w : (i + 1) * w]).max() < 5e-6 * C.max()


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_no_rule_no_moment() -> None:
    """Left out by default, refused with the reason when named."""
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(4, 4),
            "norm": nn.LayerNorm(4),
            "embedding": nn.Embedding(9, 4),
            "grouped": nn.Conv2d(4, 4, 3, groups=2),
            "transposed": nn.ConvTranspose2d(4, 4, 3),
            "recurrent": nn.LSTM(4, 4),
            "bilinear": nn.Bilinear(4, 4, 4),
            "attention": nn.MultiheadAttention(4, 2),
            "complex": nn.Linear(4, 4, dtype=torch.complex64),
            "lazy": nn.LazyLinear(4),
            "empty": nn.Linear(4, 0),
            "scaled": torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        }
    )
    moments = InputMoments(model)
    measured = {"linear.weight", "attention.in_proj_weight"}
    assert set(itertools.chain(*moments.shares().values())) == measured
    reasons = {
        "norm.weight": "no weight that multiplies",
        "linear.bias": "no weight that multiplies",
        "embedding.weight": "no rule for the inputs of Embedding",
        "grouped.weight": "2 groups",
        "transposed.weight": "no rule",
        "recurrent.weight_ih_l0": "no weight that multiplies",
        "bilinear.weight": "no rule",
        "attention.out_proj.weight": "without calling its module",
        "complex.weight": "complex64",
        "lazy.weight": "run one forward",
        "empty.weight": "no entries",
        "scaled.parametrizations.weight.original1": "no weight that multiplies",
    }
    parameters = dict(model.named_parameters())
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=reason):
            InputMoments(model, [parameters[name]])
    with pytest.raises(InputError, match="no rule"):
        moments.moment(parameters["bilinear.weight"])


def test_a_weight_tied_to_an_embedding_or_to_another_width_is_left_out() -> None:
    model: Any = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False))
    model[2].weight = model[0].weight
    assert InputMoments(model).shares() == {"1.weight": ("1.weight",)}
    with pytest.raises(InputError, match="Embedding"):
        InputMoments(model, [model[2].weight])
    turned: Any = nn.Sequential(nn.Linear(4, 7), Conv1D(4, 7))
    turned[1].weight = nn.Parameter(normal(0, 7, 4))
    turned[0].weight = turned[1].weight
    with pytest.raises(InputError, match="another number of inputs"):
        InputMoments(turned, [turned[0].weight])


def test_an_input_that_does_not_fit_is_left_to_its_module() -> None:
    assert list(Rows(4)(normal(0, 3, 5))) == []
    layer = nn.Linear(4, 2)
    moments = InputMoments(layer)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(normal(0, 3, 5))
    convolution = nn.Conv2d(3, 4, 3)
    moments = InputMoments(convolution)
    for shape in ((2, 3, 2, 9), (2, 5, 9, 9), (3,)):
        with pytest.raises(RuntimeError, match=r"[Kk]ernel|channels|Expected"):
            convolution(normal(0, *shape))
    moments.step()
    assert moments.moment(convolution.weight) is None
