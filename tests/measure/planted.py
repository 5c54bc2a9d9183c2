"""Networks for the tests of measured curvatures: with a known loss beyond one layer, and small ones as people have."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from benchmarks.coverage import CURVATURES, Planted, Setting, examples, radial, slope

__all__ = ["CURVATURES", "Planted", "batch", "quadratic", "radial", "slope"]


def batch(count: int = 16, tokens: int = 3, seed: int = 0, factor: str = "gamma", deviation: float = 0.5) -> Any:
    """Examples for `radial` and `quadratic`; deviation 0: with factors 1."""
    made = examples(Setting("", "one", count, tokens, factor, deviation or 0.5), seed)
    if deviation == 0:
        made["a"], made["b"] = torch.ones_like(made["a"]), torch.zeros_like(made["b"])
    return made


def quadratic(A: Tensor) -> Callable[[Any, dict[str, Tensor]], Tensor]:
    """Terms ⟨g, d⟩ + a dᵀ A d of d = y − y₀."""

    def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
        d = model(batch["u"])
        return (batch["g"] * d).sum(-1) + batch["a"] * ((d @ A.to(d)) * d).sum(-1)

    return loss


class Conv1D(nn.Module):
    """A linear layer as Hugging Face's GPT-2 holds it, weight (inputs, outputs); it sees a flattened batch."""

    def __init__(self, nf: int, nx: int):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf) / nx**0.5)
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return y.view(*x.shape[:-1], self.nf)


class GPT(nn.Module):
    """A block of GPT-2's kind, that counts its calls in a buffer; tokens (B, T) to logits (B, T, vocab)."""

    def __init__(self, width: int = 8, vocab: int = 11, dropout: float = 0.0, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.wte = nn.Embedding(vocab, width)
            self.ln = nn.LayerNorm(width)
            self.c_attn, self.c_proj = Conv1D(3 * width, width), Conv1D(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            self.drop = nn.Dropout(dropout)
            self.head = nn.Linear(width, vocab, bias=False)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        x = self.wte(tokens)
        q, k, v = self.c_attn(self.ln(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.c_proj(attended.transpose(1, 2).flatten(-2)))
        return self.head(x + self.mlp(x))


def tokens(count: int = 4, length: int = 5, seed: int = 0, vocab: int = 11) -> dict[str, Tensor]:
    """A dict batch of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    return {"ids": torch.randint(vocab, (count, length), generator=generator)}


def next_token(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropies (B, T − 1)."""
    logits = model(batch["ids"][:, :-1])
    return cross_entropy(logits.transpose(1, 2), batch["ids"][:, 1:], reduction="none")


class Displaced(nn.Module):
    """A module whose output is moved by a fixed tensor."""

    def __init__(self, inner: nn.Module, delta: Tensor):
        super().__init__()
        self.inner, self.delta = inner, delta

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.delta


def by_hand(model: nn.Module, loss: Any, batch: Any, name: str, delta: Tensor) -> Tensor:
    """Remainders (B,) when the output of the layer moves by delta, from three plain passes of changed copies."""

    def moved(by: Tensor) -> Tensor:
        changed = copy.deepcopy(model)
        parent, _, key = name.rpartition(".")
        owner = changed.get_submodule(parent)
        setattr(owner, key, Displaced(owner.get_submodule(key), by))
        return loss(changed, batch).reshape(len(delta), -1).sum(-1)

    origin = torch.zeros_like(delta).requires_grad_()
    before = moved(origin)
    (g,) = torch.autograd.grad(before.sum(), origin)
    return (moved(delta) - before).detach() - (g * delta).flatten(1).sum(-1)
