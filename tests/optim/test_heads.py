"""Which layer is taken for the output head, and which look like one and are not."""

from __future__ import annotations

from torch import nn

from icm.optim.groups import groups
from icm.optim.heads import find_heads
from tests.optim.models import GPT2, ConvNet, MoE, ViT, roles


def heads(model: nn.Module) -> dict[str, str]:
    return find_heads(dict(model.named_modules()))


def test_heads_of_whole_models() -> None:
    assert heads(GPT2()) == {}  # tied
    assert heads(GPT2(tied=False)) == {"lm_head": "inferred: outputs = 30 = rows of transformer.wte.weight"}
    assert list(heads(MoE(layers=1))) == list(heads(MoE())) == ["lm_head"]
    assert heads(ViT()) == {"head": "inferred: the last layer"}
    assert heads(ViT(classes=0)) == {}  # the last layer repeats
    assert heads(ConvNet()) == {}  # the last layer is a convolution
    assert heads(nn.MultiheadAttention(8, 2)) == {}
    assert heads(nn.Sequential(nn.LSTM(4, 4), nn.Linear(4, 3))) == {"1": "inferred: the last layer"}


def test_a_head_defined_before_the_blocks_is_found_by_its_outputs() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(30, 6), "readout": nn.Linear(6, 30), "body": nn.Linear(6, 6)})
    assert heads(model) == {"readout": "inferred: outputs = 30 = rows of embed.weight"}
    model["blocks"] = nn.ModuleList([nn.Linear(6, 30)])  # as many outputs, but one of a list
    assert list(heads(model)) == ["readout"]
    numbered = nn.Sequential(nn.Embedding(30, 6), nn.Linear(6, 30), nn.Linear(30, 4))
    assert heads(numbered) == {"2": "inferred: the last layer"}


def test_the_only_layer_is_no_head_and_heads_may_be_ruled_out() -> None:
    assert roles(groups(nn.Linear(4, 3))) == {"weight": "matrices", "bias": "biases"}
    mlp = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    assert roles(groups(mlp))["2.weight"] == "heads"
    assert roles(groups(mlp, heads=()))["2.weight"] == "matrices"
    assert roles(groups(mlp, matrices="2"))["2.weight"] == "matrices"
    declared = roles(groups(mlp, heads=("0",), embeddings="1.weight"))
    assert declared["0.weight"] == declared["0.bias"] == "heads"
    assert declared["1.weight"] == "embeddings"
    assert declared["2.weight"] == "matrices"
