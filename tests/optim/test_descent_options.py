"""Options that cannot be used are named, with the remedy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from icm.errors import InputError
from icm.norms import Spectral
from icm.norms.entries import Frobenius
from icm.optim import Layout, SteepestDescent
from icm.optim.descent_options import plain
from tests.optim.steps import parameter


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr": torch.zeros(2)}, "2 numbers"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"weight": 0.0}, "weight=0.0"),
        ({"radius": float("inf")}, "radius=inf"),
        ({"norm": "spectrum"}, "spectrum"),
        ({"norm": 3}, "norm=3"),
        ({"norm": lambda step: 3}, "norm="),
        ({"mode": "frank-wolfe"}, "mode='frank-wolfe'"),
        ({"length": "long"}, "length='long'"),
        ({"mode": "constrained", "weight_decay": 0.1}, "weight_decay at 0"),
        ({"mode": "constrained", "length": "dual"}, "length='unit'"),
        ({"mode": "constrained", "lr": 1.5}, "at most 1"),
        ({"normalize": True, "weight_decay": 0.1}, "weight_decay=0.1"),
        ({"escalator": -1.0}, "start=-1.0"),
    ],
)
def test_what_cannot_be_used_is_named(options: dict[str, Any], named: str) -> None:
    lr = options.pop("lr", 0.1)
    own = {name: options.pop(name) for name in ("norm", "mode", "length") if name in options}
    with pytest.raises(InputError) as error:
        SteepestDescent([{"params": [parameter(1, 4, 3)], **own}], lr, **options)
    assert named in str(error.value)


def test_a_group_that_is_refused_is_not_kept() -> None:
    optimizer = SteepestDescent([parameter(1, 4, 3)], 0.1)
    with pytest.raises(InputError, match="parts"):
        optimizer.add_param_group({"params": [parameter(2, 4, 3)], "layout": Layout(parts=(3, 3))})
    with pytest.raises(InputError, match="betas"):
        optimizer.add_param_group({"params": [parameter(2, 4, 3)], "algorithm": "adamw", "betas": (0.9, 1.0)})
    assert len(optimizer.param_groups) == 1


def test_a_state_has_norms_as_text_where_they_have_one() -> None:
    group: dict[str, Any] = {"params": [], "layout": Layout(), "role": "matrices", "lr": 0.1}
    assert plain(group | {"norm": Spectral(method="products", steps=4)})["norm"] == "spectral(products, steps=4)"
    assert plain(group | {"norm": "frobenius"})["norm"] == "frobenius"
    assert "norm" not in plain(group | {"norm": lambda step: Frobenius()})
    assert plain(group | {"norm": Frobenius()}).keys() == {"params", "lr", "norm"}
