"""Lengths of steps against torch.optim.Muon's own factors and the norms they come from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim._muon import _adjust_lr

from icm.errors import InputError
from icm.optim.scaling import check, length
from tests.optim.steps import normal, polar


@pytest.mark.parametrize("shape", [(1, 1), (3, 8), (8, 3), (1, 7), (7, 1), (256, 768)])
def test_two_are_those_of_torch(shape: tuple[int, int]) -> None:
    for mine, theirs in (("original", "original"), ("match-rms-adamw", "match_rms_adamw")):
        wanted = _adjust_lr(1.0, theirs, torch.Size(shape)) * math.sqrt(min(shape))
        assert length(mine, *shape) == pytest.approx(wanted, rel=1e-15)  # pyright: ignore


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_what_they_are_named_for(shape: tuple[int, int]) -> None:
    """Of a polar factor of that length: entries of root mean square 0.2; and a spectral norm of √(m/n)."""
    Q = polar(normal(1, *shape)) / math.sqrt(min(shape))
    assert float((length("match-rms-adamw", *shape) * Q).square().mean().sqrt()) == pytest.approx(0.2, rel=1e-12)
    norm = float(torch.linalg.matrix_norm(length("spectral", *shape) * Q, 2))
    assert norm == pytest.approx(math.sqrt(shape[0] / shape[1]), rel=1e-12)


def test_refusals() -> None:
    none: Any = "none"
    with pytest.raises(InputError, match="'none' gives no length"):
        length(none, 2, 3)
    with pytest.raises(InputError, match=r"scaling='foo': choose one of 'match-rms-adamw', 'spectral'"):
        check("foo")
