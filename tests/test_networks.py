"""Names of modules without wrappers, and names near to one that does not exist."""

from __future__ import annotations

import torch
from torch import nn

from icm.networks import named_modules, nearest, plain, unwrapped


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1)))


def test_wrappers_are_taken_off():
    model = network()
    assert unwrapped(model) is model
    assert unwrapped(nn.DataParallel(model)) is model
    compiled = torch.compile(nn.DataParallel(model), backend="eager")
    assert isinstance(compiled, nn.Module)
    assert unwrapped(compiled) is model


def test_names_lose_what_wrappers_put_in_between():
    assert plain("_orig_mod.blocks.0.weight") == "blocks.0.weight"
    assert plain("blocks._checkpoint_wrapped_module.0._fsdp_wrapped_module.weight") == "blocks.0.weight"
    assert plain("_orig_mod") == ""
    assert plain("not_orig_mod.weight") == "not_orig_mod.weight"
    model = network()
    model[1] = torch.compile(model[1], backend="eager")  # pyright: ignore[reportArgumentType]
    found = named_modules(model)
    assert list(found) == ["", "0", "1", "1.0"]
    assert isinstance(found["1"], nn.Sequential)


def test_a_module_with_two_names_has_both():
    model = network()
    model.append(model[0])
    found = named_modules(model)
    assert found["0"] is found["2"]


def test_the_nearest_names_are_alike_in_a_tail_and_differ_by_more_than_numbers():
    names = [f"blocks.{i}.{x}" for i in range(3) for x in ("attention.query", "mlp.up", "mlp.down")] + ["head"]
    assert nearest("blocks.*.mlp.upp", names)[0] == "blocks.0.mlp.up"
    assert nearest("qeury", names)[0] == "blocks.0.attention.query"
    assert len(nearest("x", names)) == 3
    assert nearest("x", []) == []
