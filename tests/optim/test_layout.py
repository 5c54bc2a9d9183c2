"""Layouts against what the layers compute: attention, convolutions, expert batches and gates out of the pieces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from icm.errors import InputError
from icm.optim.layout import Layout

CASES: list[tuple[Layout, tuple[int, ...]]] = [
    (Layout(), (6, 4)),
    (Layout("transposed"), (6, 4)),
    (Layout(heads=(3,)), (6, 4)),
    (Layout("transposed", heads=(2,)), (6, 4)),
    (Layout(parts=(6, 2, 2)), (10, 3)),
    (Layout(parts=(6, 2, 2), heads=(3, 1, 1)), (10, 3)),
    (Layout("transposed", parts=(4, 4, 4)), (5, 12)),
    (Layout("transposed", parts=(4, 4, 4), heads=(2, 2, 2)), (5, 12)),
    (Layout(parts=(6, 6, 6), blocks=3), (18, 5)),
    (Layout(parts=(6, 6, 6), heads=(3, 3, 3), blocks=3), (18, 5)),
    (Layout(parts=(12, 6, 6), heads=(6, 3, 3), blocks=3), (24, 5)),
    (Layout("convolution"), (6, 4, 3, 2)),
    (Layout("convolution", groups=2), (6, 4, 3, 2)),
    (Layout("convolution"), (6, 4, 3)),
    (Layout("convolution", parts=(6, 6)), (12, 4, 1, 1)),
    (Layout("transposed-convolution"), (6, 4, 3, 2)),
    (Layout("transposed-convolution", groups=3), (6, 4, 3, 2)),
    (Layout("experts"), (3, 4, 5)),
    (Layout("experts-transposed"), (2, 3, 4, 5)),
    (Layout("experts", parts=(2, 2)), (3, 4, 5)),
    (Layout("experts-transposed", parts=(3, 2)), (3, 4, 5)),
    (Layout("experts-transposed", parts=(3, 3), blocks=3), (2, 4, 6)),
]

# Whole parts whose rows lie apart, and several heads to a block: no strides of three dimensions reach them.
COPIED = Layout(parts=(6, 6, 6), blocks=3), Layout(parts=(12, 6, 6), heads=(6, 3, 3), blocks=3)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbered(shape: tuple[int, ...]) -> Tensor:
    """Every entry a different number, so that a permutation cannot hide."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


def close(x: Tensor, y: Tensor) -> None:
    torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("layout", "shape"), CASES, ids=str)
def test_every_number_is_in_one_piece_and_goes_back(layout: Layout, shape: tuple[int, ...]) -> None:
    tensor = numbered(shape)
    pieces = layout.gather(tensor)
    assert [tuple(piece.shape) for piece in pieces] == layout.shapes(shape)
    assert torch.equal(torch.cat([piece.flatten() for piece in pieces]).sort().values, tensor.flatten())
    back = torch.zeros_like(tensor)
    layout.scatter(back, pieces)
    assert torch.equal(back, tensor)
    layout.add(back, pieces, alpha=-3.0)
    assert torch.equal(back, -2 * tensor)
    layout.check("weight", shape)


@pytest.mark.parametrize(("layout", "shape"), CASES, ids=str)
def test_other_strides_give_the_same_pieces(layout: Layout, shape: tuple[int, ...]) -> None:
    """Channels-last, transposed and sliced storage: the same pieces, and scatter and add reach it all the same."""
    tensor = numbered(shape)
    stored = [tensor.clone().mT.contiguous().mT, torch.stack([tensor, tensor], -1)[..., 0]]
    if len(shape) == 4:
        stored.append(tensor.clone().to(memory_format=torch.channels_last))
    for each in stored:
        pieces = layout.gather(each)
        assert all(map(torch.equal, pieces, layout.gather(tensor)))
        new = [piece.square() for piece in pieces]
        layout.add(each, new)
        assert torch.equal(each, tensor + tensor.square())
        layout.scatter(each, new)
        assert torch.equal(each, tensor.square())


@pytest.mark.parametrize(("layout", "shape"), CASES, ids=str)
def test_pieces_of_a_contiguous_tensor_are_views(layout: Layout, shape: tuple[int, ...]) -> None:
    """Changes in place reach a parameter that requires grad; parts that alternate and stay whole must be copied."""
    parameter = nn.Parameter(numbered(shape))
    pieces = layout.gather(parameter)
    for piece in pieces:
        piece.neg_()
    changed = parameter.detach() == -numbered(shape)
    assert bool(changed.all()) == (layout not in COPIED)


COMPILED = """
import torch
from icm.optim.layout import Layout

layout = Layout("transposed", parts=(4, 4, 4), heads=(2, 2, 2))

@torch.compile(fullgraph=True, backend="eager")
def step(tensor):
    layout.add(tensor, [piece * 2 for piece in layout.gather(tensor)], alpha=0.5)

tensor = torch.arange(60.0).reshape(5, 12)
step(tensor)
assert torch.equal(tensor, 2 * torch.arange(60.0).reshape(5, 12))
"""


def test_gather_and_add_compile_into_one_graph() -> None:
    """In an interpreter of its own: the annotation checks of the tests do not compile."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", COMPILED], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(time, heads, size) each, fewer heads of k and v shared by neighbouring heads of q."""
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    share = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(share, 0), v.repeat_interleave(share, 0)
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1).flatten(1)


def by_head(x: Tensor, pieces: list[Tensor]) -> Tensor:
    """Attention out of the pieces (heads, size, inputs) alone."""
    return attention(*(torch.einsum("ti,hdi->thd", x, piece) for piece in pieces))


def test_fused_rows_in_order_as_vision_transformers_use_them() -> None:
    linear, x = normal(1, 36, 12), normal(2, 7, 12)
    q, k, v = functional.linear(x, linear).reshape(7, 3, 4, 3).unbind(1)
    wanted = attention(q, k, v)
    close(by_head(x, Layout(parts=(12, 12, 12), heads=(4, 4, 4)).gather(linear)), wanted)
    whole = Layout(parts=(12, 12, 12)).gather(linear)
    assert all(map(torch.equal, whole, [each[None] for each in linear.chunk(3)]))
    close(attention(*(functional.linear(x, each[0]).unflatten(-1, (4, 3)) for each in whole)), wanted)


def test_gpt2_stores_inputs_by_outputs() -> None:
    """Its forward: Conv1D is x @ weight, then split(embed_dim, dim=2), then view(…, heads, size)."""
    weight, x = normal(3, 12, 36), normal(4, 7, 12)
    q, k, v = (each.unflatten(-1, (4, 3)) for each in (x @ weight).split(12, dim=1))
    close(by_head(x, Layout("transposed", parts=(12, 12, 12), heads=(4, 4, 4)).gather(weight)), attention(q, k, v))


def test_grouped_query_attention_has_unequal_parts() -> None:
    weight, x = normal(5, 24 + 6 + 6, 12), normal(6, 7, 12)
    fused = functional.linear(x, weight)
    q, k, v = (each.unflatten(-1, (-1, 3)) for each in (fused[:, :24], fused[:, 24:30], fused[:, 30:]))
    close(by_head(x, Layout(parts=(24, 6, 6), heads=(8, 2, 2)).gather(weight)), attention(q, k, v))


def test_gpt_neox_alternates_by_head() -> None:
    """Its forward: view(…, heads, 3 · size), then thirds of the last dimension."""
    weight, x = normal(7, 36, 12), normal(8, 7, 12)
    q, k, v = functional.linear(x, weight).view(7, 4, 9).split(3, dim=-1)
    wanted = attention(q, k, v)
    close(by_head(x, Layout(parts=(12, 12, 12), heads=(4, 4, 4), blocks=4).gather(weight)), wanted)
    whole = Layout(parts=(12, 12, 12), blocks=4).gather(weight)
    close(attention(*(functional.linear(x, each[0]).unflatten(-1, (4, 3)) for each in whole)), wanted)
    wrong = Layout(parts=(12, 12, 12), heads=(4, 4, 4)).gather(weight)  # meta: the order of rows matters
    assert float((by_head(x, wrong) - wanted).abs().max()) > 1e-3


def test_falcon_alternates_by_key_head() -> None:
    """Its forward: view(…, key heads, share + 2, size); the last two are key and value."""
    weight, x = normal(9, 2 * 5 * 3, 12), normal(10, 7, 12)
    fused = functional.linear(x, weight).view(7, 2, 5, 3)
    wanted = attention(fused[:, :, :3].flatten(1, 2), fused[:, :, 3], fused[:, :, 4])
    close(by_head(x, Layout(parts=(18, 6, 6), heads=(6, 2, 2), blocks=2).gather(weight)), wanted)


def test_torch_multihead_attention() -> None:
    torch_attention = nn.MultiheadAttention(12, 4, bias=False).double()
    x = normal(11, 7, 12)
    with torch.no_grad():
        mask = nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
        wanted = torch_attention(x, x, x, attn_mask=mask)[0]
        pieces = Layout(parts=(12, 12, 12), heads=(4, 4, 4)).gather(torch_attention.in_proj_weight)
        close(torch_attention.out_proj(by_head(x, pieces)), wanted)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_its_matrix_on_patches(groups: int) -> None:
    weight, x = normal(12, 6, 4 // groups, 3, 2), normal(13, 1, 4, 8, 9)
    stack = Layout("convolution", groups=groups).gather(weight)[0]
    patches = functional.unfold(x, (3, 2))[0].unflatten(0, (groups, -1))
    close((stack @ patches).flatten(0, 1), functional.conv2d(x, weight, groups=groups)[0].flatten(1))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_transposed_convolution_writes_patches(groups: int, stride: int) -> None:
    weight, x = normal(14, 4, 6 // groups, 3, 2), normal(15, 1, 4, 5, 6)
    stack = Layout("transposed-convolution", groups=groups).gather(weight)[0]
    wanted = functional.conv_transpose2d(x, weight, stride=stride, groups=groups)
    written = (stack @ x[0].flatten(1).unflatten(0, (groups, -1))).flatten(0, 1)
    close(functional.fold(written[None], wanted.shape[-2:], (3, 2), stride=stride), wanted)


def test_expert_batches() -> None:
    """Outputs × inputs; inputs × outputs with gate and up joined as in Llama 4, alternating as in gpt-oss."""
    x = normal(16, 3, 7, 5)
    stack = Layout("experts").gather(normal(17, 3, 4, 5))[0]
    close(torch.stack([functional.linear(*each) for each in zip(x, normal(17, 3, 4, 5), strict=True)]), x @ stack.mT)
    gate_up = normal(18, 3, 5, 8)
    for layout, wanted in (
        (Layout("experts-transposed", parts=(4, 4)), torch.bmm(x, gate_up).chunk(2, dim=-1)),
        (
            Layout("experts-transposed", parts=(4, 4), blocks=4),
            (torch.bmm(x, gate_up)[..., ::2], torch.bmm(x, gate_up)[..., 1::2]),
        ),
    ):
        for piece, each in zip(layout.gather(gate_up), wanted, strict=True):
            close(x @ piece.mT, each)


def test_gates_of_an_lstm() -> None:
    cell, x, h, c = nn.LSTMCell(5, 4, bias=False).double(), normal(19, 2, 5), normal(20, 2, 4), normal(21, 2, 4)
    layout = Layout(parts=(4, 4, 4, 4))
    pairs = zip(layout.gather(cell.weight_ih), layout.gather(cell.weight_hh), strict=True)
    i, f, g, o = (x @ w[0].mT + h @ u[0].mT for w, u in pairs)
    new = f.sigmoid() * c + i.sigmoid() * g.tanh()
    with torch.no_grad():
        found = cell(x, (h, c))
    close(found[1], new)
    close(found[0], o.sigmoid() * new.tanh())


@pytest.mark.parametrize(
    ("layout", "shape", "match"),
    [
        (Layout(), (3, 4, 5), r"h\.w has shape \(3, 4, 5\)"),
        (Layout("convolution"), (3, 4), "kernel"),
        (Layout("experts"), (3, 4), "experts, outputs"),
        (Layout("convolution", groups=4), (6, 1, 3), "4 groups do not divide"),
        (Layout(parts=(4, 4, 4)), (13, 5), "13 outputs are not the sum .* 12"),
        (Layout("transposed", parts=(4, 4, 4)), (12, 5), "5 outputs"),
        (Layout("experts-transposed", parts=(4, 4)), (8, 8, 5), "5 outputs"),
        (Layout(heads=(5,)), (12, 5), "12 outputs, which 5 heads"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(layout: Layout, shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(InputError, match=match):
        layout.check("h.w", shape)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"parts": (4, 0)}, "at least 1"),
        ({"groups": 2}, "belongs to convolutions"),
        ({"kind": "transposed-convolution", "heads": (2,)}, "not cut further"),
        ({"kind": "convolution", "groups": 2, "parts": (2, 2)}, "not cut further"),
        ({"blocks": 2}, "rows of the parts"),
        ({"parts": (4, 4), "heads": (2,)}, "each of 2 parts"),
        ({"parts": (4, 6), "heads": (2, 4)}, "part 1 has 6 rows, 4 heads"),
        ({"parts": (4, 6), "blocks": 4}, "part 1 has 6 rows"),
        ({"parts": (12, 12), "heads": (3, 3), "blocks": 2}, "blocks the heads"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(given: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Layout(**given)
