"""The table of the groups: what it must say, for every parameter, in 120 columns."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from icm.optim.groups import groups
from icm.optim.layout import Layout
from icm.optim.table import table
from tests.optim.models import GPT2, ConvNet, MoE, ViT

MOE: dict[str, Any] = {
    "fused": {"*.qkv_proj": (12, 6, 6), "*.gate_up_proj": 2},
    "per_head": {"*.qkv_proj": (4, 2, 1)},
    "experts": {"*.gate_up_proj": "inputs x outputs", "*.down_proj": "outputs x inputs"},
}


def row(text: str, *words: str) -> str:
    """The one line that starts with these words."""
    found = [line for line in text.splitlines() if line.split()[: len(words)] == list(words)]
    assert len(found) == 1, (words, text)
    return found[0]


def test_a_row_says_stored_shape_matrices_rate_and_reason() -> None:
    text = table(groups(MoE(), **MOE, lr={"fused": 0.02, "experts": torch.tensor(0.005)}, adamw_lr=3e-4))
    assert text.splitlines()[0].split() == ["role", "by", "count", "stored", "taken", "as", "lr", "why"]
    fused = row(text, "fused", "icm", "2", "24×12")
    assert "6 × 3×12 + 6×12" in fused
    assert "0.02" in fused
    assert "declared: fused='*.qkv_proj', per_head='*.qkv_proj'" in fused
    assert "6 × 20×12 (transposed)" in row(text, "experts", "icm", "2", "3×12×40")
    assert "3 × 12×20" in row(text, "experts", "icm", "2", "3×12×20")
    assert "0.005" in row(text, "experts", "icm", "2", "3×12×20")
    head = row(text, "heads", "adamw", "1")
    assert re.search(r"40×12 +– +0\.0003 +inferred: outputs = 40 = rows of embed_tokens\.weight$", head)
    assert "inferred: class RMSNorm" in row(text, "norms", "adamw")
    assert re.search(r"12×12 +12×12 +– +Linear$", row(text, "matrices", "icm", "2", "12×12"))  # no lr given


def test_counts_and_sums_are_the_models() -> None:
    model = ConvNet()
    model.stem.requires_grad_(False)
    found = groups(model)
    text = table(found)
    rows = [line.split() for line in text.splitlines()[1:] if line.split()[1] in ("icm", "adamw") and line[0] != " "]
    counted = [int(cells[2]) for cells in rows if cells[0] != "icm"]
    assert sum(counted) == len(list(model.parameters()))
    last = text.splitlines()[-1]
    sums = re.findall(r"(\d+) parameters, ([\d,]+) numbers", last)
    assert sum(int(count) for count, _ in sums) == len(list(model.parameters()))
    assert sum(int(n.replace(",", "")) for _, n in sums) == sum(p.numel() for p in model.parameters())
    assert last.endswith("; 2 frozen")


@pytest.mark.parametrize(
    ("model", "options"), [(GPT2(), {"fused": {"*.c_attn": 3}}), (MoE(), MOE), (ViT(), {}), (ConvNet(), {})]
)
def test_lines_are_short_and_names_are_all_there(model: nn.Module, options: dict[str, Any]) -> None:
    model = model.requires_grad_(True)
    next(model.parameters()).requires_grad_(False)
    found = groups(model, **options, lr=0.123456789, adamw_lr=1e-12)
    for text in (table(found), table(found, names=True)):
        assert max(map(len, text.splitlines())) <= 120
        assert all(line == line.rstrip() for line in text.splitlines())
    listed = re.findall(r"^    (\S+?)(?::|$)", table(found, names=True), re.MULTILINE)  # "why" goes on further right
    assert sorted(listed) == sorted(name for name, _ in model.named_parameters())
    first = next(name for name, _ in model.named_parameters())
    assert f"    {first}: frozen, " in table(found, names=True)


def test_long_cells_go_on_below() -> None:
    parts = (7, 11, 13, 17, 19, 23, 29)
    layer = nn.ModuleDict({"a_layer_of_many_parts": nn.Linear(10, sum(parts)), "last": nn.Linear(3, 4)})
    text = table(groups(layer, fused={"a_layer_of_*_parts": parts}))
    assert max(map(len, text.splitlines())) <= 120
    for part in parts:
        assert f"{part}×10" in text


def test_an_optimizers_groups_and_bare_ones() -> None:
    found = groups(GPT2(), fused={"*.c_attn": 3})
    wanted = table(groups(GPT2(), fused={"*.c_attn": 3}, lr=0.1, adamw_lr=0.1), names=True)
    optimizer = torch.optim.Optimizer(found, {"lr": 0.1})
    assert table(optimizer.param_groups, names=True) == wanted
    bare = table([{"params": [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.tensor(0.0))]}], names=True)
    assert "parameter 1" in bare
    assert "scalar" in bare
    alternating = {"params": [nn.Parameter(torch.zeros(36, 4))], "layout": Layout(parts=(12, 24), blocks=4)}
    assert "12×4 + 24×4 (4 blocks)" in table([alternating])
    assert table([]).startswith("role")
