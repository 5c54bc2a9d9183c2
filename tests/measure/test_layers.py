"""Which layers a pattern means, how fused ones divide, and what is said when it means none."""

from __future__ import annotations

import ast
import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from icm.errors import InputError
from icm.measure.layers import _patterns, find_layers
from tests.measure.planted import GPT
from tests.optim.models import GPT2


def names(*args: Any) -> list[str]:
    return [layer.name for layer in find_layers(*args)]


def test_layers_come_in_the_models_order_with_outputs_times_inputs():
    layers = find_layers(GPT(), "*")
    assert [(x.name, x.start, x.m, x.n) for x in layers] == [
        ("c_attn", 0, 24, 8),
        ("c_proj", 0, 8, 8),
        ("mlp.0", 0, 16, 8),
        ("mlp.2", 0, 8, 16),
        ("head", 0, 11, 8),
    ]


def test_patterns_add_and_take_away_in_turn():
    assert names(GPT(), ["*", "!mlp.*"]) == ["c_attn", "c_proj", "head"]
    assert names(GPT(), ["!mlp.*", "mlp.2"]) == ["mlp.2"]
    assert names(GPT2(tied=True), "*.mlp.c_fc") == ["transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_fc"]
    with pytest.raises(InputError, match="takes away every layer"):
        names(GPT(), ["head", "!*"])


@pytest.mark.parametrize("parts", [3, ("0", "1", "2"), {"0": 8, "1": 8, "2": 8}])
def test_equal_parts_of_a_fused_layer(parts: Any) -> None:
    layers = find_layers(GPT(), "c_attn", {"c_at*": parts})
    assert [(x.name, x.start, x.m, x.n) for x in layers] == [
        ("c_attn.0", 0, 8, 8),
        ("c_attn.1", 8, 8, 8),
        ("c_attn.2", 16, 8, 8),
    ]


def test_parts_are_matched_by_their_own_names_and_may_be_unequal():
    layers = find_layers(GPT(), "*.value", {"c_attn": {"query": 12, "key": 4, "value": 8}})
    assert [(x.name, x.start, x.m) for x in layers] == [("c_attn.value", 16, 8)]


@pytest.mark.parametrize(
    ("patterns", "parts", "said"),
    [
        ("mlp.1", None, "'mlp.1' is a GELU: only nn.Linear and Conv1D are measured; the nearest layers are mlp.0"),
        ("mlp", None, r"'mlp' is a Sequential, no linear layer; those in it are matched by 'mlp.\*'"),
        ("c_atn", None, "'c_atn' matches no linear layer; the nearest are c_attn"),
        ("blocks.*.headd", None, "the nearest are .*head"),
        (["*", "!mpl.0"], None, "'mpl.0' matches no linear layer; the nearest are mlp.0"),
        ("*", {"attn": 3}, "parts: 'attn' matches no linear layer; the nearest are c_attn"),
        ("*", {"c_attn": 5}, "the 24 outputs of c_attn do not divide into 5 equal parts; give {name: size"),
        ("*", {"c_attn": {"a": 8, "b": 8}}, "are no parts of the 24 outputs of c_attn; their sizes must add up"),
        ("*", {"c_attn": {"a": 24, "b": 0}}, "are no parts"),
        ("*", {"c_attn": ()}, "do not divide into 0 equal parts"),
    ],
)
def test_what_matches_nothing_is_refused_with_the_nearest(patterns: Any, parts: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_layers(GPT(), patterns, parts)


def test_a_model_without_linear_layers():
    with pytest.raises(InputError, match="Sequential has no linear layer"):
        find_layers(nn.Sequential(nn.Conv2d(1, 2, 3)), "*")


def test_tied_weights_are_refused_unless_left_out():
    with pytest.raises(InputError, match=r"weight of lm_head is tied \(transformer.wte.weight, lm_head.weight\)"):
        find_layers(GPT2(tied=True), "*")
    assert "lm_head" not in names(GPT2(tied=True), ["*", "!lm_head"])
    assert "lm_head" in names(GPT2(tied=False), "*")


def said(model: nn.Module, patterns: Any) -> str:
    with pytest.raises(InputError) as refused:
        find_layers(model, patterns)
    return str(refused.value)


def test_what_is_said_of_tied_weights_can_be_done():
    model = GPT2(tied=True)
    given = re.search(r"leave it out: layers=(\[.*\])$", said(model, ["*", "!*.c_proj"]))
    assert given is not None
    assert ast.literal_eval(given[1]) == ["*", "!*.c_proj", "!lm_head"]
    names(model, ast.literal_eval(given[1]))
    model = GPT()
    model.head.weight = model.wte.weight
    code = re.search(r"measure a copy of the model that holds it twice: (.*)$", said(model, "head"))
    assert code is not None
    exec(code[1], {"torch": torch, "copy": (copied := copy.deepcopy(model))})
    assert names(copied, "head") == ["head"]
    ids = torch.arange(6)[None]
    assert torch.equal(copied(ids), model(ids))


def test_parametrized_weights_are_measured_and_hooked_ones_say_what_to_do():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2))
    assert [(x.name, x.m, x.n) for x in find_layers(model, "*")] == [("0", 4, 3), ("1", 2, 4)]
    with pytest.warns(FutureWarning):
        hooked = nn.utils.weight_norm(nn.Linear(3, 4))
    for patterns, held in (("0", nn.Sequential(hooked, nn.Linear(4, 2))), ("*", nn.Sequential(hooked))):
        assert "its weight is written anew in every pass" in said(held, patterns)
        assert "use those of torch.nn.utils.parametrizations" in said(held, patterns)
    nn.utils.remove_weight_norm(hooked)
    assert names(nn.Sequential(hooked), "*") == ["0"]


def test_parametrized_weights_that_are_tied_are_refused():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 3))
    model[0].parametrizations.weight.original1 = model[1].weight  # pyright: ignore
    with pytest.raises(InputError, match="the weight of 0 is tied"):
        find_layers(model, "0")


@pytest.mark.parametrize("patterns", [3, None, ["*", 3], {"*": 1}])
def test_what_is_no_pattern(patterns: Any) -> None:
    with pytest.raises(InputError, match=r"must be a name or pattern of layers, such as '\*.mlp.\*', or a list"):
        _patterns(patterns)


def test_no_pattern_at_all():
    with pytest.raises(
        InputError, match=r"layers=\[\] names no layer to measure; give a name or a pattern, '\*' for all"
    ):
        find_layers(GPT(), [])


def test_a_module_with_two_names_is_measured_once():
    model = GPT()
    model.again = model.head
    assert names(model, "*") == names(GPT(), "*")
    assert names(model, "again") == ["again"]


def test_layers_that_are_never_called_are_named():
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "out": nn.Linear(4, 4)})
    assert names(model, "*") == ["out"]
    with pytest.raises(InputError, match="its weights are used without calling a module"):
        names(model, "attention")
    with pytest.raises(InputError, match="its weights are used without calling a module"):
        names(model, "attention.out_proj")


def test_names_are_those_without_wrappers():
    compiled = torch.compile(GPT(), backend="eager")
    assert isinstance(compiled, nn.Module)
    assert "mlp.0" in names(compiled, "mlp.0")
