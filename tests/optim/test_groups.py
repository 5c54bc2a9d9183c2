"""Who lands where, on modules stored as real models store theirs."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from icm.demo import load_example
from icm.errors import InputError
from icm.optim.groups import groups
from icm.optim.layout import Layout
from tests.optim.models import GPT2, Conv1D, ConvNet, MoE, ViT, placed, roles

MOE: dict[str, Any] = {
    "fused": {"*.qkv_proj": (12, 6, 6), "*.gate_up_proj": 2},
    "experts": {"*.gate_up_proj": "inputs x outputs", "*.down_proj": "outputs × inputs"},
}


def gpt2(**options: Any) -> dict[str, tuple[str, Layout | None, str]]:
    return placed(groups(GPT2(), fused={"*.c_attn": 3}, **options))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (GPT2(), {"fused": {"*.c_attn": 3}}),
        (GPT2(tied=False), {"matrices": "*.c_attn"}),
        (MoE(), MOE),
        (ViT(), {}),
        (ConvNet(), {}),
        (nn.Transformer(8, 2, 1, 1, 16, batch_first=True), {}),
        (nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3), {}),
        (load_example().SmallLM(), {}),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_every_parameter_is_in_one_group_that_torch_takes(model: nn.Module, options: dict[str, Any]) -> None:
    next(model.parameters()).requires_grad_(False)
    found = groups(model, **options)
    everyone = dict(model.named_parameters())
    listed = [pair for group in found for pair in group["params"]]
    assert len(listed) == len(everyone)
    assert all(everyone[name] is parameter for name, parameter in listed)
    for group in found:
        assert len(group["reasons"]) == len(group["params"]) > 0
        assert group["algorithm"] == ("adamw" if group["layout"] is None else "icm")
        for name, parameter in group["params"]:
            if group["layout"] is not None:
                group["layout"].check(name, parameter.shape)
    optimizer = torch.optim.Optimizer(found, {"lr": 0.1})
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert names == [name for name, _ in listed]
    assert pickle.loads(pickle.dumps([group["layout"] for group in found])) == [group["layout"] for group in found]


def test_the_small_language_model() -> None:
    found = groups(load_example().SmallLM())
    assert [(group["role"], len(group["params"])) for group in found] == [
        ("matrices", 18),
        ("embeddings", 2),
        ("heads", 1),
        ("norms", 7),
    ]
    assert placed(found)["head.weight"][2] == "inferred: outputs = 256 = rows of embedding.weight"
    one_layer = load_example().SmallLM(load_example().Config(layers=1, width=16, context=16))
    assert [len(group["params"]) for group in groups(one_layer)] == [
        6,
        2,
        1,
        3,
    ]  # 16 outputs = 16 positions are no head


def test_gpt2_is_transposed_fused_and_tied() -> None:
    found = gpt2()
    assert found["transformer.h.1.attn.c_attn.weight"][:2] == ("fused", Layout("transposed", parts=(12, 12, 12)))
    assert found["transformer.h.1.mlp.c_fc.weight"] == ("matrices", Layout("transposed"), "Conv1D")
    assert found["transformer.h.1.mlp.c_fc.bias"][0] == "biases"
    assert found["transformer.ln_f.bias"][0] == "norms"
    assert found["transformer.wte.weight"] == ("embeddings", None, "Embedding, tied to lm_head.weight")
    assert "lm_head.weight" not in found
    untied = placed(groups(GPT2(tied=False), fused={"*.c_attn": 3}))
    assert untied["lm_head.weight"][::2] == ("heads", "inferred: outputs = 30 = rows of transformer.wte.weight")


def test_each_head_is_a_matrix_where_asked() -> None:
    layout = gpt2(per_head={"*.c_attn": 4})["transformer.h.0.attn.c_attn.weight"][1]
    wanted = Layout("transposed", parts=(12, 12, 12), heads=(4, 4, 4))
    assert layout == wanted
    assert wanted.shapes((12, 36)) == [(4, 3, 12)] * 3
    moe = placed(groups(MoE(), **MOE, per_head={"*.qkv_proj": (4, 2, 2), "*.o_proj": 2}))
    assert moe["layers.1.qkv_proj.weight"][1] == Layout(parts=(12, 6, 6), heads=(4, 2, 2))
    assert moe["layers.1.o_proj.weight"][:2] == ("matrices", Layout(heads=(2,)))
    attention = placed(groups(nn.MultiheadAttention(12, 4), per_head={"in_proj_weight": 4}))
    assert attention["in_proj_weight"][1] == Layout(parts=(12, 12, 12), heads=(4, 4, 4))


def test_expert_batches_as_declared() -> None:
    found = placed(groups(MoE(), **MOE))
    assert found["layers.0.gate_up_proj"][:2] == ("experts", Layout("experts-transposed", parts=(20, 20)))
    assert found["layers.0.down_proj"][:2] == ("experts", Layout("experts"))
    assert "experts='*.down_proj'" in found["layers.0.down_proj"][2]
    assert found["layers.0.router.weight"][0] == "matrices"
    assert found["layers.0.norm.weight"] == ("norms", None, "inferred: class RMSNorm")


def test_undeclared_stacks_are_refused_together_with_the_remedy() -> None:
    with pytest.raises(InputError) as caught:
        groups(MoE())
    for part in ("layers.0.gate_up_proj (3, 12, 40) in MoEBlock", "layers.1.down_proj", "experts=", "adamw="):
        assert part in str(caught.value)
    assert roles(groups(MoE(), fused={"*.qkv_proj": (12, 6, 6)}, adamw="*_proj"))["layers.0.down_proj"] == "others"


def test_vision_transformer() -> None:
    found = placed(groups(ViT()))
    for name, role in {
        "cls_token": "vectors",
        "pos_embed": "others",
        "gamma": "vectors",
        "temperature": "vectors",
        "patch.weight": "convolutions",
        "blocks.1.self_attn.in_proj_weight": "fused",
        "blocks.1.self_attn.in_proj_bias": "biases",
        "blocks.1.self_attn.out_proj.weight": "matrices",
        "blocks.1.linear2.weight": "matrices",
        "blocks.1.norm2.bias": "norms",
        "head.weight": "heads",
        "head.bias": "heads",
    }.items():
        assert found[name][0] == role, name
    assert "inferred: a free table in ViT" in found["pos_embed"][2]
    assert found["head.weight"][2] == "inferred: the last layer"
    backbone = roles(groups(ViT(classes=0)))  # the last layer repeats: it is no head
    assert backbone["blocks.1.linear2.weight"] == "matrices"
    assert "heads" not in backbone.values()


def test_names_that_say_fused_warn_until_declared() -> None:
    model = GPT2()
    with pytest.warns(UserWarning, match=r"2 of '\*.c_attn' \(12 → 36\).*fused={\"\*.c_attn\": 3}") as caught:
        assert placed(groups(model))["transformer.h.0.attn.c_attn.weight"][:2] == ("matrices", Layout("transposed"))
    assert len(caught) == 1
    block = nn.ModuleDict({"gate_up": nn.Linear(4, 10), "in_proj": nn.Linear(4, 12), "kv": nn.Linear(4, 6)})
    block["out"] = nn.Linear(4, 4)
    with pytest.warns(UserWarning, match=r"gate_up.*in_proj.*kv.*fused={\"gate_up\": 2}"):
        groups(block)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups(model, matrices=("*.c_attn",))
        groups(model, fused={"*.c_attn": (12, 24)})
        groups(model, per_head={"*.c_attn": 12})
        groups(model, adamw="*.c_attn")
        groups(nn.Sequential(nn.Linear(4, 12), nn.Linear(12, 4)))  # three times as many outputs, but no such name


def test_any_layout_can_be_declared() -> None:
    neox = Layout(parts=(12, 12, 12), heads=(4, 4, 4), blocks=4)
    model = nn.ModuleDict({"query_key_value": nn.Linear(12, 36), "dense": nn.Linear(36, 12)})
    assert placed(groups(model, fused={"query_*": neox}))["query_key_value.weight"][:2] == ("fused", neox)
    vit = placed(groups(ViT(), matrices={"pos_embed": Layout("experts-transposed")}))
    assert vit["pos_embed"][:2] == ("experts", Layout("experts-transposed"))
    table = nn.Module()
    table.mixer = nn.Parameter(torch.zeros(5, 4))
    assert placed(groups(table, matrices="mixer"))["mixer"][:2] == ("matrices", Layout())
    assert placed(groups(table))["mixer"][0] == "others"


def test_ties_with_other_storage_must_be_settled() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(4, 6, bias=False), Conv1D(4, 6)
            self.up.weight = self.down.get_parameter("weight")

    with pytest.raises(InputError, match=r"down\.weight and up\.weight are one parameter"):
        groups(Both())
    assert placed(groups(Both(), matrices={"down": Layout()}))["down.weight"][1] == Layout()
    shared = nn.Linear(4, 4)
    assert "tied to 1.weight" in placed(groups(nn.ModuleList([shared, shared])))["0.weight"][2]


def test_learning_rates_and_options_by_role() -> None:
    lr = torch.tensor(0.02)
    found = {group["role"]: group for group in groups(GPT2(tied=False), matrices="*.c_attn", lr=lr, adamw_lr=1e-3)}
    assert found["matrices"]["lr"] is lr
    assert found["heads"]["lr"] == found["norms"]["lr"] == 1e-3
    by_role = {"matrices": 0.01, "embeddings": 3e-4, "convolutions": 1.0}
    options = {"norms": {"weight_decay": 0.0}}
    found = groups(GPT2(tied=False), matrices="*.c_attn", lr=by_role, adamw_lr=1e-3, options=options)
    assert {group["role"]: group["lr"] for group in found} == {
        "matrices": 0.01,
        "embeddings": 3e-4,
        "heads": 1e-3,
        "norms": 1e-3,
        "biases": 1e-3,
    }
    assert [group.get("weight_decay") for group in found if group["role"] in ("norms", "biases")] == [0.0, None]
    assert all("lr" not in group for group in groups(GPT2(), matrices="*.c_attn"))


def test_deep_copies_and_devices_without_numbers() -> None:
    found = groups(copy.deepcopy(ViT()).to("meta"))
    assert roles(found) == roles(groups(ViT()))
    empty = nn.Module()
    empty.register_parameter("rows", nn.Parameter(torch.zeros(0, 3)))
    assert placed(groups(empty))["rows"] == ("vectors", None, "no entries")
