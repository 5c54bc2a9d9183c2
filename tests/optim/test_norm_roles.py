"""Each role's norm on small models, and how much a step of length 1 changes a layer's outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from icm.errors import InputError
from icm.norms import MaxEntry, OneToRMS, RMSToRMS
from icm.optim import SteepestDescent, role_norms
from tests.optim.models import GPT2, ConvNet, MoE, ViT
from tests.optim.steps import normal


def ways(found: list[dict[str, Any]]) -> dict[str, tuple[str, float, str]]:
    """Name → role, weight and norm."""
    return {
        name: (group["role"], group.get("weight", 1.0), str(group.get("norm", group["algorithm"])).split("(")[0])
        for group in found
        for name, _ in group["params"]
    }


def test_every_parameter_of_a_model_has_one_norm() -> None:
    cases: tuple[tuple[nn.Module, dict[str, Any]], ...] = (
        (GPT2(), {"fused": {"*.c_attn": 3}}),
        (ViT(), {}),
        (ConvNet(), {}),
        (MoE(), {"fused": {"*.qkv_proj": (12, 6, 6)}, "experts": {"*.gate_up_proj": "inputs x outputs",
                                                                 "*.down_proj": "outputs x inputs"}}),
    )  # fmt: skip
    for model, declared in cases:
        found = role_norms(model, **declared)
        assert sorted(ways(found)) == sorted(name for name, _ in model.named_parameters())
        assert all(group["layout"] is not None for group in found)
        SteepestDescent(found, 0.1)


def test_roles_have_the_norms_of_their_outputs() -> None:
    found = ways(role_norms(ViT()))
    assert found["patch.weight"] == ("convolutions", 16.0, "rms-to-rms")
    assert found["blocks.0.linear1.weight"] == ("matrices", 1.0, "rms-to-rms")
    assert found["blocks.0.self_attn.in_proj_weight"] == ("fused", 1.0, "rms-to-rms")
    assert found["blocks.0.linear1.bias"] == ("biases", 1.0, "rms")
    assert found["blocks.0.norm1.weight"] == ("norms", 3.0, "max-entry")
    assert found["pos_embed"] == ("others", 1.0, "one-to-rms")
    assert found["head.weight"] == ("heads", 12.0 / 5, "max-entry")
    assert found["head.bias"] == ("heads", 1.0, "max-entry")
    found = ways(role_norms(GPT2(), fused={"*.c_attn": 3}))
    assert found["transformer.wte.weight"] == ("embeddings", 1.0, "one-to-rms")


def test_norms_and_weights_of_roles_are_chosen_by_name() -> None:
    norms: dict[str, Any] = {"heads": "rms-to-rms", "biases": "adamw", "others": MaxEntry()}
    found = role_norms(ViT(), norms=norms, weights={"heads": 0.1, "convolutions": 2.0}, options={"norms": {"lr": 0.5}})
    by_name = ways(found)
    assert by_name["head.weight"] == ("heads", 0.1, "rms-to-rms")
    assert by_name["patch.weight"] == ("convolutions", 32.0, "rms-to-rms")
    assert by_name["patch.bias"] == ("biases", 1.0, "adamw")
    assert by_name["pos_embed"] == ("others", 1.0, "max-entry")
    assert {group["lr"] for group in found if group["role"] == "norms"} == {0.5}
    optimizer = SteepestDescent.for_model(ViT(), 0.1, norms=norms, weights={"heads": 0.1}, betas=(0.5, 0.6))
    assert {g["algorithm"] for g in optimizer.param_groups if g["role"] == "biases"} == {"adamw"}
    wrongs: tuple[dict[str, Any], ...] = ({"norms": {"head": "spectral"}}, {"weights": {"head": 0.1}})
    for wrong in wrongs:
        with pytest.raises(InputError, match="perhaps 'heads'"):
            role_norms(ViT(), **wrong)


@pytest.mark.parametrize("seed", range(4))
def test_a_step_of_length_1_changes_outputs_by_at_most_1_and_logits_by_5(seed: int) -> None:
    """Linear layers, convolutions, embeddings and gains in root mean square, for inputs of root mean square 1; a head's
    largest logit. In float64, by exact norms: products are rounded to bfloat16."""
    layers: dict[str, nn.Module] = {
        "embed": nn.Embedding(30, 8),
        "linear": nn.Linear(8, 20, bias=False),
        "up": nn.ConvTranspose1d(20, 6, 3, stride=3, bias=False),
        "conv": nn.Conv1d(6, 12, 3, padding=1, padding_mode="circular", bias=False),
        "head": nn.Linear(12, 30, bias=False),
    }
    model = nn.ModuleDict(layers).double()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    exact: Any = dict.fromkeys(("matrices", "convolutions"), RMSToRMS())
    given = {"norms": exact, "weights": {"convolutions": 3.0}}  # a norm that is named brings its weight along
    optimizer = SteepestDescent.for_model(model, 1.0, momentum=0.0, **given)
    for i, p in enumerate(model.parameters()):
        p.grad = normal(10 * seed + i, *p.shape)
    optimizer.step()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(p - start[name])

    def rms(x: torch.Tensor, dim: int) -> float:
        return float(x.detach().square().mean(dim).sqrt().max())

    assert rms(model["embed"](torch.arange(30)), -1) == pytest.approx(1.0)
    x = normal(seed, 50, 8)
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    assert 0.3 < rms(model["linear"](x), -1) <= 1 + 1e-12
    x = normal(seed, 5, 6, 9)
    x = x / x.square().mean(1, keepdim=True).sqrt()
    assert 0.1 < rms(model["conv"](x), 1) <= 1 + 1e-12
    x = normal(seed, 50, 12)
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    assert 1.5 < float(model["head"](x).detach().abs().max()) <= 5 + 1e-12


def test_tables_and_tokens_move_each_row_alike() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 3)).double()
    group = next(g for g in role_norms(model) if g["role"] == "embeddings")
    assert group["norm"] == OneToRMS()
    p = group["params"][0][1]
    (stack,) = group["layout"].gather(p)
    assert torch.equal(stack[0], p.detach().T)
