"""Small modules stored as the models people train store them, for the tests of this room; and who landed where."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from icm.optim.layout import Layout


class Conv1D(nn.Module):
    """A linear layer as Hugging Face's GPT-2 holds it: weight (inputs, outputs), attribute nf."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.empty(nx, nf).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class GPT2Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": Conv1D(3 * width, width), "c_proj": Conv1D(width, width)})
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": Conv1D(4 * width, width), "c_proj": Conv1D(width, 4 * width)})


class GPT2(nn.Module):
    """Names, storage and tied head of GPT2LMHeadModel; no forward."""

    def __init__(self, layers: int = 2, width: int = 12, vocab: int = 30, tied: bool = True) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab, width),
                "wpe": nn.Embedding(width, width),
                "h": nn.ModuleList(GPT2Block(width) for _ in range(layers)),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, vocab, bias=False)
        if tied:
            self.lm_head.weight = self.transformer.get_parameter("wte.weight")


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class MoEBlock(nn.Module):
    """Grouped-query attention in one layer, and expert batches stored both ways."""

    def __init__(self, width: int = 12, experts: int = 3) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.qkv_proj = nn.Linear(width, 2 * width, bias=False)  # 12 rows of query, 6 of key, 6 of value
        self.o_proj = nn.Linear(width, width, bias=False)
        self.router = nn.Linear(width, experts, bias=False)
        self.gate_up_proj = nn.Parameter(torch.zeros(experts, width, 2 * 20))
        self.down_proj = nn.Parameter(torch.zeros(experts, width, 20))


class MoE(nn.Module):
    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(40, 12)
        self.layers = nn.ModuleList(MoEBlock() for _ in range(layers))
        self.norm = RMSNorm(12)
        self.lm_head = nn.Linear(12, 40, bias=False)


class ViT(nn.Module):
    """Positions (1, T, d), a class token (1, 1, d), blocks in a Sequential, layer scale, a classifier."""

    def __init__(self, width: int = 12, depth: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, width))
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(width, 3, 24) for _ in range(depth)))
        self.gamma = nn.Parameter(torch.ones(width, 1, 1))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Linear(width, classes) if classes else nn.Identity()


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.multiplied = nn.Conv2d(8, 16, 3, groups=8)
        self.grouped = nn.Conv2d(16, 8, 3, groups=2)
        self.groupnorm = nn.GroupNorm(2, 8)
        self.activation = nn.PReLU()
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.squeeze = nn.Linear(4, 1)
        self.out = nn.Conv2d(4, 3, 1)


def placed(found: list[dict[str, Any]]) -> dict[str, tuple[str, Layout | None, str]]:
    """Name → role, layout and reason."""
    return {
        name: (group["role"], group["layout"], reason)
        for group in found
        for (name, _), reason in zip(group["params"], group["reasons"], strict=True)
    }


def roles(found: list[dict[str, Any]]) -> dict[str, str]:
    return {name: role for name, (role, _, _) in placed(found).items()}
