"""Passes without torch's fused kernels, and what is said where there is no memory for them."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.measure.surroundings import OutOfMemory, enough_memory, plain_attention
from tests.measure.planted import by_hand
from tests.measure.test_displacement import directions, prepared


class Encoder(nn.Module):
    """torch's encoder of two layers, in eval mode; it computes padding by nested tensors unless kept from it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.lift, self.encoder = nn.Linear(4, 8), nn.TransformerEncoder(layer, 2)
        self.eval()

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.encoder(self.lift(x), src_key_padding_mask=padding)


def encoded(model: Any, batch: dict[str, Tensor]) -> Tensor:
    y = model(batch["x"], batch["padding"]).square().sum(-1)
    return y.masked_fill(batch["padding"], 0.0)


@pytest.mark.parametrize("looped", [False, True])
def test_torchs_encoder_in_eval_mode_passes_as_in_training(looped: bool) -> None:
    """Its fused kernels give zeros for padding and cannot run under torch.func; in training mode it has none."""
    model = Encoder().double()
    batch = {"x": directions(3, 5, 4), "padding": torch.arange(5) > torch.tensor([[4], [2], [3]])}
    network, layer = prepared(model, "lift", encoded, looped=looped)
    base = network.base(layer, batch)
    delta = directions(2, *base.y.shape, seed=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="displacements pass one by one")
        found = network.remainders(layer, batch, base, delta)[0]
    training = copy.deepcopy(model).train()
    for k in range(2):
        torch.testing.assert_close(found[k], by_hand(training, encoded, batch, "lift", delta[k]))


@pytest.mark.parametrize("enabled", [True, False])
def test_fused_kernels_are_as_they_were_after_passes_and_after_errors(enabled: bool) -> None:
    def loss(model: Any, x: Tensor) -> Tensor:
        assert not torch.backends.mha.get_fastpath_enabled()
        return model(x)

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        network, layer = prepared(Greedy(1), "a", loss)
        network.base(layer, torch.ones(4, 3))
        assert torch.backends.mha.get_fastpath_enabled() == enabled
        with pytest.raises(OutOfMemory):
            network.base(layer, torch.ones(4, 3))
        assert torch.backends.mha.get_fastpath_enabled() == enabled
        with pytest.raises(KeyError), plain_attention():
            raise KeyError("mine")
        assert torch.backends.mha.get_fastpath_enabled() == enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class Greedy(nn.Module):
    """Asks for more memory than any machine has in every call after the first so many."""

    def __init__(self, calls: int):
        super().__init__()
        self.a, self.left = nn.Linear(3, 3), calls

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            torch.empty(2**50)
        return self.a(x).square().sum(-1)


@pytest.mark.parametrize("looped", [False, True])
def test_no_memory_is_said_so_and_not_taken_for_a_model_that_vmap_cannot_run(looped: bool) -> None:
    def loss(model: Any, x: Tensor) -> Tensor:
        return model(x)

    x = torch.arange(12.0).view(4, 3)
    network, layer = prepared(Greedy(1), "a", loss, looped=looped)
    base = network.base(layer, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"no memory is left for 2 displacements of a at once .*smaller memory="):
            network.remainders(layer, x, base, directions(2, *base.y.shape).float())
    assert network.looped == looped
    with pytest.raises(InputError, match=r"no memory is left for a pass .* smaller batches"):
        network.base(layer, x)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_what_devices_say_of_memory_is_understood(error: Exception) -> None:
    """One class for them all, which is torch's too: whoever catches that of a GPU catches it."""
    said = "smaller memory=, or smaller batches"
    with pytest.raises(torch.OutOfMemoryError, match=said) as raised, enough_memory("nothing"):
        raise error
    assert isinstance(raised.value, InputError)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("vmap: no batching rule"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, enough_memory("nothing"):
        raise error
    assert raised.value is error
