"""Patterns that cannot hold, parameters that no update fits, wrappers that change names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from icm.demo import load_example
from icm.errors import DtypeError, InputError
from icm.optim.groups import groups
from icm.optim.layout import Layout
from tests.optim.models import GPT2, MoEBlock, roles


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"fused": {"*.qkv": 3}}, r"fused: '\*.qkv' matches no parameter.*c_attn"),
        ({"heads": "lm_haed"}, "lm_head"),
        ({"fused": {"*.c_attn.bias": 3}}, "of two or more dimensions"),
        ({"fused": {"*.c_attn": 5}}, "36 outputs of transformer.h.0.attn.c_attn.weight are not 5 equal parts"),
        ({"fused": {"*.c_attn": (12, 12)}}, "parts"),
        ({"fused": {"*.c_attn": 3, "*.0.*.c_attn": 2}}, "is matched by .* make one narrower"),
        ({"fused": {"*.c_attn": Layout(parts=(12, 12, 12))}}, "its 12 outputs are not the sum"),
        ({"fused": {"*.c_attn": (24, 6, 6)}, "per_head": {"*.c_attn": 2}}, "give one count of heads for each"),
        ({"fused": {"*.c_attn": 3}, "matrices": "*.h.0.*"}, "declared twice, by matrices=.* and by fused="),
        ({"heads": "lm_head", "adamw": "lm_*", "matrices": "*.c_attn"}, "declared twice"),
        ({"experts": {"*.c_attn": "outputs x inputs"}}, "but layout 'experts' is"),
        ({"experts": {"*.c_attn": "rows"}}, "'outputs x inputs', 'inputs x outputs'"),
        ({"matrices": "*.c_attn", "lr": {"matrix": 0.1}}, "'matrix' is no role, perhaps 'matrices'"),
        ({"matrices": "*.c_attn", "options": {"norms": {"layout": None}}}, "'layout' of 'norms'"),
    ],
)
def test_declarations_that_cannot_hold_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        groups(GPT2(), **options)


def test_parameters_that_no_update_fits_are_refused() -> None:
    with pytest.raises(InputError, match=r"0\.weight has no shape yet"):
        groups(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(DtypeError, match="complex64"):
        groups(nn.Linear(3, 3, dtype=torch.complex64))
    with pytest.raises(InputError, match="no parameters"):
        groups(nn.ReLU())
    with pytest.raises((InputError, TypeError)):
        groups(nn.Linear(3, 3).parameters())  # pyright: ignore
    with pytest.raises(InputError, match="nothing says which dimensions are outputs"):
        groups(MoEBlock(), matrices="*_proj")


def test_wrappers_do_not_change_names() -> None:
    model = load_example().SmallLM()
    wanted = roles(groups(model, heads="head"))
    model.blocks[1] = torch.compile(model.blocks[1], backend="eager")
    for wrapped in (model, torch.compile(model, backend="eager"), nn.DataParallel(model)):
        assert isinstance(wrapped, nn.Module)
        assert roles(groups(wrapped, heads="head")) == wanted
